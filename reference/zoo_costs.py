#!/usr/bin/env python3
"""Count parameters and multiply-adds of PyTorch's models with PyTorch's own counter: what our table is held to.

usage: zoo_costs.py [NAME...]
"""
import sys

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from golden_zoo import LeNet5, MODELS, Small

SIZES = {"lenet5": 28, "efficientnet_lite1": 240, "efficientnet_lite2": 260}
SMALL = {"airbench94", "resnet20", "resnet32", "resnet56", "resnet18_cifar", "residual_cnn"}


def reference_cnn(size, classes):
    """Two convolutions with pooling, two dense layers."""
    return nn.Sequential(nn.Conv2d(1, 32, 3), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.MaxPool2d(2), nn.Flatten(),
                         nn.Linear(1600, 64), nn.Linear(64, classes))


def small(blocks):
    return lambda size, classes: Small((16, 32, 64), blocks, classes)


def main():
    makers = {name: make for name, (make, _) in MODELS.items()}
    makers |= {"reference_cnn": reference_cnn, "residual_cnn": small(1), "resnet32": small(5), "resnet56": small(9)}
    makers["lenet5"] = lambda size, classes: LeNet5(size, classes, 1)
    for name in sys.argv[1:] or makers:
        size = SIZES.get(name, 28 if name == "reference_cnn" else 32 if name in SMALL else 224)
        net = makers[name]((size, size), 1000 if size > 32 else 10).eval()
        channels = next(p for p in net.parameters() if p.dim() == 4).shape[1]
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            net(torch.zeros(1, channels, size, size))
        print(f'("{name}", {sum(p.numel() for p in net.parameters()):_}, {counter.get_total_flops() // 2:_}),', flush=True)


if __name__ == "__main__":
    main()
