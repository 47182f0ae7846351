"""Whether labelling what `ocellus suggest` names brings more than labelling as many images at random.

    suggest_against_random.py OCELLUS FASHION_MNIST_DIR [--first 200] [--more 200] [--epochs 30] [--seeds 0 1 2] [--threads 2]

For each seed a net is trained on --first training images, drawn at random. Then --more are added, once as suggested and once at random, from all
other training images; of each a net is trained anew and tested on all test images. Needs NumPy and Pillow.
"""
import argparse, csv, gzip, json, random, subprocess, tempfile
from pathlib import Path

import numpy as np
from PIL import Image

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("ocellus")
parser.add_argument("data", type=Path)
parser.add_argument("--first", type=int, default=200)
parser.add_argument("--more", type=int, default=200)
parser.add_argument("--epochs", type=int, default=30)
parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
parser.add_argument("--threads", type=int, default=2)
arguments = parser.parse_args()


def idx(name):
    content = gzip.decompress((arguments.data / f"{name}.gz").read_bytes())
    return np.frombuffer(content, np.uint8, offset=16 if "idx3" in name else 8)


def ocellus(*words):
    words = [arguments.ocellus, *map(str, words), "--threads", str(arguments.threads), "--json"]
    return json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout)


def accuracy(name, chosen, seed):
    """Test accuracy in percent after training on these images."""
    arrays = {"x_train": train[chosen], "y_train": labels[chosen], "x_test": test, "y_test": test_labels}
    np.savez(root / f"{name}.npz", **arrays)
    words = ["--epochs", arguments.epochs, "--seed", seed, "--no-check", "--output", root / name]
    return 100 * ocellus("train", root / f"{name}.npz", *words)["test"]["accuracy"]


train, test = (idx(f"{part}-images-idx3-ubyte").reshape(-1, 28, 28) for part in ("train", "t10k"))
labels, test_labels = (idx(f"{part}-labels-idx1-ubyte") for part in ("train", "t10k"))
with tempfile.TemporaryDirectory() as folder:
    root = Path(folder)
    (root / "unlabelled").mkdir()
    files = [root / "unlabelled" / f"{number}.png" for number in range(len(train))]
    for file, pixels in zip(files, train):
        Image.fromarray(pixels).save(file, compress_level=1)
    results = []
    for seed in arguments.seeds:
        order = random.Random(seed).sample(range(len(train)), arguments.first + arguments.more)
        first = order[: arguments.first]
        before = accuracy(f"first-{seed}", first, seed)
        for number in first:
            files[number].rename(root / files[number].name)
        ocellus("suggest", root / f"first-{seed}", root / "unlabelled", "--count", arguments.more, "--seed", seed, "--output", root / "next.csv")
        with open(root / "next.csv") as lines:
            suggested = [int(Path(row["file_name"]).stem) for row in csv.DictReader(lines)]
        for number in first:
            (root / files[number].name).rename(files[number])
        assert len(suggested) == arguments.more and not set(suggested) & set(first)
        results.append([before, accuracy(f"suggested-{seed}", first + suggested, seed), accuracy(f"random-{seed}", order, seed)])
        counts = np.bincount(labels[suggested], minlength=10).tolist()
        print(f"seed {seed}: {before:.2f}%, with suggested {results[-1][1]:.2f}%, at random {results[-1][2]:.2f}%; "
              f"suggested of each class {counts}", flush=True)
    before, suggested, by_chance = np.mean(results, axis=0)
    print(f"mean: {before:.2f}%, with suggested {suggested:.2f}%, at random {by_chance:.2f}%")
