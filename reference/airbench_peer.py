"""The recipe airbench94 in PyTorch, to time a step beside ocellus: the same net, optimizer and batch.

    python airbench_peer.py [--precision f32|bf16] [--compile] [--steps 6] [--batch 1024]

Prints seconds for each step, their median, and what 476 steps of 1024 images would take. Images are noise: only time is measured.
After Keller Jordan's recipe (arXiv:2404.00498).
"""

import argparse
import statistics
import time

import torch
from torch import nn
from torch.nn import functional

STEPS = 476


class Group(nn.Module):
    """Two convolutions of 3x3, the first one pooled, each normalised without a learned scale."""

    def __init__(self, before, after):
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.second = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(after, eps=1e-12, momentum=0.4) for _ in range(2))
        for norm in self.norms:
            norm.weight.requires_grad = False
        for conv in (self.first, self.second):
            nn.init.dirac_(conv.weight.data[: conv.weight.shape[1]])

    def forward(self, x):
        x = functional.gelu(self.norms[0](functional.max_pool2d(self.first(x), 2)))
        return functional.gelu(self.norms[1](self.second(x)))


def network():
    whiten = nn.Conv2d(3, 24, 2)
    whiten.weight.requires_grad = False
    groups = [Group(24, 64), Group(64, 256), Group(256, 256)]
    return nn.Sequential(whiten, nn.GELU(), *groups, nn.MaxPool2d(3), nn.Flatten(), nn.Linear(256, 10, bias=False))


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    arguments.add_argument("--compile", action="store_true")
    arguments.add_argument("--steps", type=int, default=6)
    arguments.add_argument("--batch", type=int, default=1024)
    given = arguments.parse_args()
    torch.manual_seed(0)
    model = network().to(memory_format=torch.channels_last)
    shifts = [p for name, p in model.named_parameters() if "norms" in name and p.requires_grad]
    others = [p for name, p in model.named_parameters() if "norms" not in name and p.requires_grad]
    rate, decay = 1.5, 0.0019957
    groups = [
        {"params": shifts, "lr": 64 * rate, "weight_decay": decay / rate / 64},
        {"params": others, "lr": rate, "weight_decay": decay / rate},
    ]
    optimizer = torch.optim.SGD(groups, momentum=0.85, nesterov=True)
    forward = torch.compile(model) if given.compile else model
    images = torch.randn(given.batch, 3, 32, 32).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (given.batch,))
    seconds = []
    for step in range(given.steps + 1):
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=given.precision == "bf16"):
            logits = forward(images) / 9
        loss = functional.cross_entropy(logits.float(), labels, label_smoothing=0.2)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        took = time.perf_counter() - began
        print(f"step {step}: {took:.3f} s, loss {loss.item():.3f}", flush=True)
        if step > 0:
            seconds.append(took)
    middle = statistics.median(seconds)
    whole = middle * STEPS * 1024 / given.batch / 60
    name = f"PyTorch {torch.__version__}, {given.precision}{', compiled' if given.compile else ''}"
    print(f"{name}: {middle:.3f} s a step of {given.batch}; {whole:.1f} min projected for {STEPS} steps of 1024")


if __name__ == "__main__":
    main()
