#!/usr/bin/env python3
"""Write PyTorch's one-cycle learning rates, which Keras lacks; apart from the others because torch and tensorflow clash in one process.

usage: golden_one_cycle.py [--out DIR]
"""
import argparse
import json
import pathlib

import numpy as np
import torch
from safetensors.numpy import save_file

CASES = {
    "one_cycle": {"max_lr": 0.1, "total_steps": 100, "pct_start": 0.3, "div_factor": 25.0, "final_div_factor": 1e4},
    "one_cycle_short_rise": {"max_lr": 0.01, "total_steps": 50, "pct_start": 0.1, "div_factor": 10.0, "final_div_factor": 100.0},
    "one_cycle_linear": {"max_lr": 0.1, "total_steps": 100, "anneal_strategy": "linear"},
}


def rates(config):
    """The rate of every step."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, cycle_momentum=False, **config)
    found = schedule.get_last_lr()
    while len(found) < config["total_steps"]:
        optimizer.step()
        schedule.step()
        found += schedule.get_last_lr()
    return np.array(found, np.float32)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "golden")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    save_file({name: rates(config) for name, config in CASES.items()}, out / "one_cycle.safetensors",
              {"cases": json.dumps(CASES)})


if __name__ == "__main__":
    main()
