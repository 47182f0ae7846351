#!/usr/bin/env python3
"""Keras' accuracy on the recipe we are held to: the reference net, Adam, batch 32, ten epochs, images divided by 255.

usage: keras_recipe.py DATA [--seeds 0 1 2] [--subset 6000] [--epochs 10] [--batch 32]

DATA is a folder with the four IDX files of MNIST or Fashion-MNIST, plain or gzipped. `--subset N` trains on N images and tests on N / 6,
as many of each class, drawn with a fixed seed. Prints one JSON line per seed (accuracy on test after the last epoch) and one for the mean.
"""
import argparse
import gzip
import json
import os
import pathlib
import time

import numpy as np

os.environ["KERAS_BACKEND"], os.environ["TF_CPP_MIN_LOG_LEVEL"] = "tensorflow", "3"


def read_idx(folder, name):
    """An IDX file of unsigned bytes."""
    plain = folder / name
    raw = plain.read_bytes() if plain.exists() else gzip.decompress((folder / f"{name}.gz").read_bytes())
    shape = np.frombuffer(raw, ">u4", raw[3], 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def read(folder, part):
    images, labels = read_idx(folder, f"{part}-images-idx3-ubyte"), read_idx(folder, f"{part}-labels-idx1-ubyte")
    return images[..., None].astype(np.float32) / 255, labels.astype(np.int64)


def stratified(images, labels, count):
    """As many images of each class, shuffled."""
    random, classes = np.random.default_rng(0), np.unique(labels)
    chosen = np.concatenate([random.permutation(np.flatnonzero(labels == c))[:count // len(classes)] for c in classes])
    chosen = random.permutation(chosen)
    return images[chosen], labels[chosen]


def train(seed, training, test, epochs, batch):
    import keras
    from keras import layers
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([
        keras.Input(training[0].shape[1:]),
        layers.Conv2D(32, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Conv2D(64, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Flatten(),
        layers.Dense(64, activation="relu"),
        layers.Dense(10, activation="softmax"),
    ])
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    start = time.perf_counter()
    model.fit(*training, batch_size=batch, epochs=epochs, verbose=0)
    seconds = time.perf_counter() - start
    return model.evaluate(*test, batch_size=256, verbose=0)[1], seconds


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--subset", type=int)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=32)
    arguments = parser.parse_args()
    training, test = read(arguments.data, "train"), read(arguments.data, "t10k")
    if arguments.subset:
        training, test = stratified(*training, arguments.subset), stratified(*test, arguments.subset // 6)
    accuracies = []
    for seed in arguments.seeds:
        accuracy, seconds = train(seed, training, test, arguments.epochs, arguments.batch)
        accuracies.append(accuracy)
        print(json.dumps({"seed": seed, "test_accuracy": round(accuracy, 4), "seconds": round(seconds, 1)}), flush=True)
    print(json.dumps({"data": arguments.data.name, "train": len(training[0]), "test": len(test[0]), "epochs": arguments.epochs,
                      "batch": arguments.batch, "seeds": len(accuracies), "mean_test_accuracy": round(float(np.mean(accuracies)), 4)}))


if __name__ == "__main__":
    main()
