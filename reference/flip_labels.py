"""Flips labels at random and measures how many of them `ocellus labels` finds and what leaving them out brings.

    flip_labels.py OCELLUS FASHION_MNIST_DIR [--share 0.05] [--epochs 5] [--seeds 0] [--keep DIR]

The training labels of IDX files are changed to another class, each as likely as the others, and the images are linked beside them. Three
trainings follow: with the labels as they were, with flipped ones, and without what the list of the second names (as many as were
flipped, unless --likely has those that are more likely wrong than right).
"""
import argparse, gzip, json, random, re, shutil, subprocess, tempfile
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("ocellus")
parser.add_argument("data", type=Path)
parser.add_argument("--share", type=float, default=0.05)
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--seeds", type=int, nargs="+", default=[0])
parser.add_argument("--likely", action="store_true")
parser.add_argument("--relabel", action="store_true", help="give them the suggested labels rather than leave them out")
parser.add_argument("--keep", type=Path)
arguments = parser.parse_args()


def read(path):
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def ocellus(*words):
    words = [arguments.ocellus, *map(str, words)]
    return json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout)


def accuracy(data, run, seed, *words):
    result = ocellus("train", data, "--epochs", arguments.epochs, "--seed", seed, "--output", run, "--json", "--no-check", *words)
    return result["test"]["accuracy"]


root = arguments.keep or Path(tempfile.mkdtemp())
for seed in arguments.seeds:
    rng = random.Random(seed)
    folder = root / f"flipped-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    for file in arguments.data.iterdir():
        target = folder / file.name.removesuffix(".gz")
        if "ubyte" in file.name:
            target.write_bytes(read(file))
    labels = bytearray((folder / "train-labels-idx1-ubyte").read_bytes())
    count = len(labels) - 8
    flipped = set(rng.sample(range(count), round(arguments.share * count)))
    true = bytes(labels[8:])
    for index in flipped:
        labels[8 + index] = rng.choice([label for label in range(10) if label != true[index]])
    (folder / "train-labels-idx1-ubyte").write_bytes(labels)

    clean = accuracy(arguments.data, folder / "clean", seed)
    noisy = accuracy(folder, folder / "noisy", seed)
    amount = [] if arguments.likely else ["--count", len(flipped)]
    listed = ocellus("labels", folder / "noisy", *amount, "--json")
    hits = [int(re.search(r"\[(\d+)\]$", suspect["name"])[1]) for suspect in listed["suspects"]]
    right = sum(index in flipped for index in hits)
    option = "--relabel" if arguments.relabel else "--drop-labels"
    mended = accuracy(folder, folder / "mended", seed, option, folder / "noisy" / "label_errors.csv")
    print(
        f"seed {seed}: {len(flipped)} of {count} flipped; listed {len(hits)}, of them flipped {right} ({100 * right / max(1, len(hits)):.1f}%), "
        f"found {100 * right / len(flipped):.1f}%; likely wrong by confidence: {listed['likely_wrong']}\n"
        f"  accuracy clean {100 * clean:.2f}%, flipped {100 * noisy:.2f}%, mended {100 * mended:.2f}%: "
        f"regained {100 * (mended - noisy) / (clean - noisy) if clean != noisy else float('nan'):.0f}% of the loss",
        flush=True,
    )
if not arguments.keep:
    shutil.rmtree(root)
