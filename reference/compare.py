#!/usr/bin/env python3
"""Compare two golden files, or every pair in two folders: the largest difference of each kind of tensor.

usage: compare.py A B [--limit 1e-5]      two files
       compare.py DIR [--limit 1e-5]      each NET_torch with its NET_keras

The difference is relative to the tensor's largest magnitude. Exits with 1 if one is above the limit.
"""
import argparse
import pathlib
import sys

import numpy as np
from safetensors.numpy import load_file

from nets import STRIDE


def differences(a, b):
    a, b = load_file(a), load_file(b)
    if a.keys() != b.keys():
        sys.exit(f"different tensors: {sorted(a.keys() ^ b.keys())}")
    found = {}
    for name in a:
        scale = np.abs(a[name]).max()
        if name.endswith("/sum"):  # a sum may cancel: judge it by the magnitude of its terms
            terms = STRIDE * a[name.replace("/sum", "/sample")].size
            scale = np.sqrt(terms * a[f"{name}_of_squares"].max())
        found[name] = float(np.abs(a[name] - b[name]).max() / max(scale, 1e-30))
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("paths", type=pathlib.Path, nargs="+")
    parser.add_argument("--limit", type=float, default=1e-5)
    parser.add_argument("--all", action="store_true", help="print every tensor")
    arguments = parser.parse_args()
    pairs = [arguments.paths] if len(arguments.paths) == 2 else [
        (path, path.with_name(path.name.replace("_torch", "_keras"))) for path in sorted(arguments.paths[0].glob("*_torch.*"))]
    worst = 0.0
    for a, b in pairs:
        found = differences(a, b)
        kinds = {}
        for name, value in found.items():
            kind = name.split("/")[0] if not name.endswith("losses") else name
            kinds[kind] = max(kinds.get(kind, (0.0, "")), (value, name))
        print(f"{a.name} against {b.name}")
        for name, value in (found.items() if arguments.all else ((f"{k} ({n})", v) for k, (v, n) in kinds.items())):
            print(f"  {value:9.1e}  {name}")
        worst = max(worst, *found.values())
    print(f"largest {worst:.1e}, limit {arguments.limit:.0e}")
    sys.exit(worst > arguments.limit)


if __name__ == "__main__":
    main()
