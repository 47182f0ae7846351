"""Make the data set that the binary carries: 6,000 + 1,000 images of Fashion-MNIST, stratified and shuffled.

usage: make_builtin.py FASHION_MNIST_FOLDER OUTPUT_FOLDER        (needs only Python's standard library)

FASHION_MNIST_FOLDER holds the four IDX .gz files of Zalando Research. The result is four smaller ones under the same
names, so that any IDX reader opens them. The same input gives the same output, byte for byte with the same zlib.
"""
import gzip
import os
import random
import struct
import sys

PER_CLASS = {"train": 600, "t10k": 100}
CLASSES = 10


def read(path, dimensions):
    with gzip.open(path, "rb") as f:
        data = f.read()
    magic, *sizes = struct.unpack(f">{1 + dimensions}I", data[: 4 + 4 * dimensions])
    assert magic == 0x0800 + dimensions, path
    return sizes, data[4 + 4 * dimensions :]


def write(path, sizes, data):
    header = struct.pack(f">{1 + len(sizes)}I", 0x0800 + len(sizes), *sizes)
    with open(path, "wb") as f, gzip.GzipFile("", "wb", 9, f, mtime=0) as g:
        g.write(header + data)


def main(source, target):
    os.makedirs(target, exist_ok=True)
    for prefix, per_class in PER_CLASS.items():
        images_name, labels_name = f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz"
        (count, height, width), pixels = read(os.path.join(source, images_name), 3)
        _, labels = read(os.path.join(source, labels_name), 1)
        generator = random.Random(f"ocellus {prefix}")
        chosen = []
        for label in range(CLASSES):
            chosen += generator.sample([i for i in range(count) if labels[i] == label], per_class)
        generator.shuffle(chosen)
        size = height * width
        write(os.path.join(target, images_name), (len(chosen), height, width),
              b"".join(pixels[i * size : (i + 1) * size] for i in chosen))
        write(os.path.join(target, labels_name), (len(chosen),), bytes(labels[i] for i in chosen))


if __name__ == "__main__":
    main(*sys.argv[1:])
