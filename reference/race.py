#!/usr/bin/env python3
"""Race `ocellus benchmark --json` against other frameworks on one machine: contestants alternate, medians count.

usage: race.py OCELLUS [--peer SCRIPT] [--frameworks torch torch-tuned keras-tensorflow] [--data DIR]
               [--batch 32 128] [--rounds 3] [--threads N] [--python PYTHON] [--out FILE]

OCELLUS is the binary. SCRIPT is called as `SCRIPT FRAMEWORK --batch B --threads N --data DIR` and, like ours, prints one JSON object with
`train_samples_s`, `infer_samples_s` and `latency_us`. `NAME-tuned` is NAME with glibc told to keep large buffers instead of returning
them to the system after every step, which makes PyTorch faster. Prints a table per batch size: medians, our ratio to each (above 1: we are faster).
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

TUNED = {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=4294967296:glibc.malloc.top_pad=268435456"}
MEASURES = {"train_samples_s": 1, "infer_samples_s": 1, "latency_us": -1}  # the sign says which way is better


def run(command, environment):
    """The JSON object that a contestant prints last, or None if it fails."""
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        print(f"failed: {' '.join(map(str, command))}\n{done.stderr[-2000:]}", file=sys.stderr)
        return None
    return json.loads(lines[-1])


def contestants(arguments, batch):
    """Name → command and environment."""
    threads = ["--threads", str(arguments.threads)]
    ours = ["benchmark", "--json", "--batch-size", str(batch), *threads]
    found = {"ocellus": ([arguments.ocellus, *ours], {})}
    if arguments.peer:
        data = ["--data", arguments.data] if arguments.data else []
        for framework in arguments.frameworks:
            plain = framework.removesuffix("-tuned")
            found[framework] = ([arguments.python, arguments.peer, plain, "--batch", str(batch), *threads, *data], {} if plain == framework else TUNED)
    return found


def table(results):
    """Medians with the range of the rounds, and our ratio."""
    lines = [f"{'':18}" + "".join(f"{measure:>30}{'ratio':>8}" for measure in MEASURES)]
    for name, rounds in results.items():
        cells = ""
        for measure, sign in MEASURES.items():
            values, ours = ([r[measure] for r in results[who]] for who in (name, "ocellus"))
            if not values:
                cells += f"{'failed':>30}{'':>8}"
                continue
            cell = f"{statistics.median(values):,.0f} ({min(values):,.0f}-{max(values):,.0f})"
            ratio = (statistics.median(ours) / statistics.median(values)) ** sign if ours else float("nan")
            cells += f"{cell:>30}{ratio:>8.2f}"
        lines.append(f"{name:18}{cells}")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("ocellus", type=pathlib.Path)
    parser.add_argument("--peer", type=pathlib.Path)
    parser.add_argument("--frameworks", nargs="+", default=["torch", "torch-tuned", "keras-tensorflow"])
    parser.add_argument("--data")
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--out", type=pathlib.Path, help="write every round here, as JSON")
    arguments = parser.parse_args()
    rounds = {}
    for batch in arguments.batch:
        entrants = contestants(arguments, batch)
        results = rounds[batch] = {name: [] for name in entrants}
        for number in range(arguments.rounds):
            for name, (command, environment) in entrants.items():
                result = run(command, environment)
                if result:
                    results[name].append(result)
                    print(f"batch {batch}, round {number + 1}, {name}: {json.dumps(result)}", file=sys.stderr, flush=True)
        print(f"batch {batch}, {arguments.threads} threads, median of {arguments.rounds} (lowest-highest)\n{table(results)}\n", flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(rounds, indent=1))


if __name__ == "__main__":
    main()
