#!/usr/bin/env python3
"""Race deep nets: `ocellus benchmark` against PyTorch and ONNX Runtime on one machine. Contestants alternate, medians count.

usage: race_models.py OCELLUS --torch SCRIPT [--onnx SCRIPT] [--only PART...] [--rounds 3] [--threads N] [--python PYTHON] [--out FILE]

SCRIPT of PyTorch is called as `SCRIPT MODEL MODE --what train|infer|latency --batch N --threads N`, that of ONNX Runtime as
`SCRIPT MODEL --batch N --threads N`; both print one JSON object with `images_s` or `latency_us`. glibc is told to keep
large buffers, which makes PyTorch faster. PART is part of a workload's name, such as `resnet20` or `train`. Prints for each workload
every contestant's median with the range of the rounds, and ours divided by it (above 1: we are faster).
"""
import argparse
import json
import os
import pathlib
import statistics
import sys

from race import TUNED, run

# Name, our model, theirs, images' side, classes, what, batch; then our precisions and PyTorch's modes, and whether ONNX Runtime takes part.
WORKLOADS = [
    ("resnet20 train f32", "resnet20", "resnet20", 32, 10, "train", 128, ["f32"], ["eager", "channels_last"], False),
    ("resnet20 train bf16", "resnet20", "resnet20", 32, 10, "train", 128, ["bf16"], ["bf16"], False),
    ("resnet18_cifar train f32", "resnet18_cifar", "resnet18-cifar", 32, 10, "train", 128, ["f32"], ["channels_last"], False),
    ("resnet18_cifar train bf16", "resnet18_cifar", "resnet18-cifar", 32, 10, "train", 128, ["bf16"], ["bf16"], False),
    ("resnet50 latency", "resnet50", "resnet50", 224, 1000, "latency", 1, ["f32", "int8"], ["channels_last", "compile"], True),
    ("resnet50 infer", "resnet50", "resnet50", 224, 1000, "infer", 16, ["f32", "int8"], ["channels_last", "compile"], True),
    ("mobilenet_v2 latency", "mobilenet_v2", "mobilenet_v2", 224, 1000, "latency", 1, ["f32"], ["channels_last", "compile"], True),
    ("mobilenet_v2 infer", "mobilenet_v2", "mobilenet_v2", 224, 1000, "infer", 16, ["f32"], ["channels_last", "compile"], True),
    ("mobilenet_v2 train", "mobilenet_v2", "mobilenet_v2", 224, 1000, "train", 16, ["f32"], ["channels_last"], False),
]
FIELDS = {"train": "train_samples_s", "infer": "infer_samples_s", "latency": "latency_us"}


def contestants(arguments, workload):
    """Name → command and the field of its figure."""
    _, ours, theirs, side, classes, what, batch, precisions, modes, onnx = workload
    common = ["--what", what, "--threads", str(arguments.threads)]
    shape = ["--image-shape", f"{side}x{side}x3", "--classes", str(classes), "--batch-size", str(batch)]
    found = {}
    for precision in precisions:
        command = [arguments.ocellus, "benchmark", "--json", "--model", ours, *shape, "--precision", precision, *common]
        found[f"ocellus {precision}"] = (command, FIELDS[what])
    field = "latency_us" if what == "latency" else "images_s"
    for mode in modes:
        found[f"torch {mode}"] = ([arguments.python, arguments.torch, theirs, mode, "--batch", str(batch), *common], field)
    if onnx and arguments.onnx:
        command = [arguments.python, arguments.onnx, theirs, "--batch", str(batch), "--threads", str(arguments.threads)]
        found["onnxruntime"] = (command, FIELDS[what])
    return found


def table(what, results):
    """Medians with the range of the rounds, and our first precision's ratio to each."""
    sign = -1 if what == "latency" else 1
    ours = next(iter(results.values()))
    for name, values in results.items():
        if not values:
            yield f"  {name:22} failed"
            continue
        ratio = (statistics.median(ours) / statistics.median(values)) ** sign if ours else float("nan")
        yield f"  {name:22} {statistics.median(values):>10,.1f} ({min(values):,.1f}-{max(values):,.1f}) {ratio:>8.2f}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("ocellus", type=pathlib.Path)
    parser.add_argument("--torch", type=pathlib.Path, required=True)
    parser.add_argument("--onnx", type=pathlib.Path)
    parser.add_argument("--only", nargs="+", default=[""])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--out", type=pathlib.Path, help="write every round here, as JSON, when it is done")
    arguments = parser.parse_args()
    chosen = [w for w in WORKLOADS if any(part in w[0] for part in arguments.only)]
    figures = {w[0]: {name: [] for name in contestants(arguments, w)} for w in chosen}
    for number in range(arguments.rounds):
        for workload in chosen:
            for name, (command, field) in contestants(arguments, workload).items():
                result = run(command, TUNED if name.startswith("torch") else {})
                if result:
                    figures[workload[0]][name].append(result[field])
                    print(f"round {number + 1}, {workload[0]}, {name}: {result[field]}", file=sys.stderr, flush=True)
            if arguments.out:
                arguments.out.write_text(json.dumps(figures, indent=1))
    for workload in chosen:
        print(f"{workload[0]}, batch {workload[6]}, {'µs' if workload[5] == 'latency' else 'images/s'}")
        print("\n".join(table(workload[5], figures[workload[0]])))


if __name__ == "__main__":
    main()
