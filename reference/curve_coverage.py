"""How often the interval of `ocellus suggest RUN --curve` holds what twice as many training images then bring.

    curve_coverage.py OCELLUS DATA_DIR... [--images 800] [--subsets 4] [--epochs 10] [--tested 2000] [--threads 2] [--keep FILE.json]

DATA_DIR holds IDX files of MNIST's kind. Of each as many disjoint subsets are drawn as --subsets says; the curve of each class comes from --images
training images and --tested test images. Then nets are trained on twice as many images, of which those are half, with three seeds, and
compared are, class by class: each of them on the same test images, and their mean on the other test images. Needs NumPy.
"""
import argparse, gzip, itertools, json, subprocess, tempfile
from pathlib import Path

import numpy as np

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("ocellus")
parser.add_argument("data", type=Path, nargs="+")
parser.add_argument("--images", type=int, default=800)
parser.add_argument("--subsets", type=int, default=4)
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--tested", type=int, default=2000)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--keep", type=Path, help="write points, forecasts and what was reached, class by class")
arguments = parser.parse_args()


def idx(path):
    packed = path.with_name(path.name + ".gz")
    content = gzip.decompress(packed.read_bytes()) if packed.exists() else path.read_bytes()
    return np.frombuffer(content, np.uint8, offset=16 if "idx3" in path.name else 8)


def ocellus(*words):
    words = [arguments.ocellus, *map(str, words), "--threads", str(arguments.threads), "--json"]
    return json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout)


def train(data, run, seed):
    words = ["--epochs", arguments.epochs, "--seed", seed, "--no-check", "--output", run]
    return ocellus("train", data, *words)["test"]


def recalls(evaluation):
    return np.array([scores["recall"] for scores in evaluation["classes"]])


def report(title):
    one = np.array([[r["twice"]["low"] <= x <= r["twice"]["high"] for x in r["reached"]["same"]] for r in rows])
    mean = np.array([r["twice"]["low"] <= r["reached"]["others"] <= r["twice"]["high"] for r in rows])
    width = np.mean([r["twice"]["high"] - r["twice"]["low"] for r in rows])
    off = np.array([r["reached"]["others"] - r["twice"]["accuracy"] for r in rows])
    print(f"{title}: a training's result lies within in {one.sum()} of {one.size} ({100 * one.mean():.0f}%), the mean of three on other images in "
          f"{mean.sum()} of {mean.size} ({100 * mean.mean():.0f}%); width {100 * width:.1f} points; the mean is {100 * off.mean():+.2f} points off, "
          f"{100 * np.abs(off).mean():.2f} in size", flush=True)


rows = []
with tempfile.TemporaryDirectory() as folder:
    root = Path(folder)
    sets = []
    for data in arguments.data:
        images, test = (idx(data / f"{part}-images-idx3-ubyte").reshape(-1, 28, 28) for part in ("train", "t10k"))
        labels, test_labels = (idx(data / f"{part}-labels-idx1-ubyte") for part in ("train", "t10k"))
        sets.append((data.name, images, labels, test, test_labels))
    for subset, (name, images, labels, test, test_labels) in itertools.product(range(arguments.subsets), sets):
        chosen = np.random.default_rng(0).permutation(len(images))[2 * arguments.images * subset :][: 2 * arguments.images]
        tests = np.random.default_rng(1).permutation(len(test))
        seen, others = tests[: arguments.tested], tests[arguments.tested :]
        for file, train_on, test_on in [("half", chosen[: arguments.images], seen), ("whole", chosen, seen), ("others", chosen, others)]:
            arrays = {"x_train": images[train_on], "y_train": labels[train_on], "x_test": test[test_on], "y_test": test_labels[test_on]}
            np.savez(root / f"{file}.npz", **arrays)
        train(root / "half.npz", root / "half", 0)
        curves = ocellus("suggest", root / "half", "--curve")["curve"]
        same, other = [], []
        for seed in range(3):
            same.append(recalls(train(root / "whole.npz", root / "whole", seed)))
            other.append(recalls(ocellus("evaluate", root / "whole" / "model.safetensors", root / "others.npz")))
        for number, curve in enumerate(curves):
            reached = {"same": [float(r[number]) for r in same], "others": float(np.mean(other, 0)[number])}
            rows.append({"data": name, "subset": subset, **curve, "reached": reached})
        if arguments.keep:
            arguments.keep.write_text(json.dumps(rows))
        report(f"{name} {subset}, all until now")
