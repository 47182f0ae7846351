#!/usr/bin/env python3
"""Time an image classifier of torchvision in ONNX Runtime on the CPU: random weights, random images of 224x224.

usage: onnx_peer.py MODEL [--batch N] [--seconds S] [--threads N]

MODEL is a name in torchvision.models, such as resnet50 or mobilenet_v2. The model is exported with its batch size fixed and all of
the runtime's graph optimisations on. Needs torch, torchvision, onnx and onnxruntime. Prints one JSON line, which for a batch of one
image also has the microseconds that it takes: medians of the timed runs.
"""
import argparse
import io
import json
import os
import statistics
import time

import onnxruntime
import torch
import torchvision


def export(name, batch):
    """The model as ONNX holds it."""
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None).eval()
    file = io.BytesIO()
    torch.onnx.export(model, torch.rand(batch, 3, 224, 224), file, input_names=["images"], dynamo=False)
    return file.getvalue()


def session(model, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    runtime = session(export(arguments.model, arguments.batch), arguments.threads)
    images = torch.rand(arguments.batch, 3, 224, 224).numpy()
    for _ in range(3):
        runtime.run(None, {"images": images})
    times, end = [], time.perf_counter() + arguments.seconds
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        runtime.run(None, {"images": images})
        times.append(time.perf_counter() - start)
    median = statistics.median(times)
    result = {"framework": "onnxruntime", "model": arguments.model, "batch": arguments.batch, "threads": arguments.threads,
              "infer_samples_s": round(arguments.batch / median, 1)}
    if arguments.batch == 1:
        result["latency_us"] = round(median * 1e6)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
