#!/usr/bin/env python3
"""Write what torchvision's and timm's models (and some written here) give for two images, with weights by a formula.

usage: golden_zoo.py [--size 64x48] [--classes 10] [--out golden/zoo.safetensors] [NAME...]

Weights, statistics included, follow from each tensor's PyTorch name and place (see README.md), so that only outputs are
stored: the logarithms of the probabilities, which are the logits less what their sum makes.
"""
import argparse
import json
import math
import pathlib
import sys
import warnings

warnings.filterwarnings("ignore")
import numpy as np
import torch
import torch.nn.functional as functional
import torchvision.models as zoo
from safetensors.numpy import save_file
from torch import nn
from torchvision import __version__ as torchvision_version
from torchvision.models.resnet import BasicBlock

import nets

IMAGENET = (255 * np.array([0.485, 0.456, 0.406]), 255 * np.array([0.229, 0.224, 0.225]))
CIFAR_10 = (255 * np.array([0.4914, 0.4822, 0.4465]), 255 * np.array([0.2470, 0.2435, 0.2616]))
# Of floats: pixels are unsigned.
ONE, LITE, BOTH = (0.0, 255.0), (127.0, 128.0), (127.5, 127.5)


class Small(nn.Module):
    """A ResNet for images of 32x32, of torchvision's blocks."""

    def __init__(self, widths, blocks, classes):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0])
        before = widths[0]
        for stage, width in enumerate(widths):
            parts = []
            for number in range(blocks):
                strides = 2 if stage > 0 and number == 0 else 1
                shape = nn.Sequential(nn.Conv2d(before, width, 1, strides, bias=False), nn.BatchNorm2d(width))
                parts.append(BasicBlock(before, width, strides, shape if strides > 1 else None))
                before = width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*parts))
        self.stages, self.fc = len(widths), nn.Linear(before, classes)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return self.fc(x.mean((2, 3)))


class Airbench(nn.Module):
    """The net of github.com/KellerJordan/cifar10-airbench, airbench94."""

    def __init__(self, size, classes):
        super().__init__()
        self.whiten = nn.Conv2d(3, 24, 2)
        before = 24
        for n, width in enumerate((64, 256, 256)):
            block = nn.Module()
            block.conv1 = nn.Conv2d(before, width, 3, padding="same", bias=False)
            block.conv2 = nn.Conv2d(width, width, 3, padding="same", bias=False)
            block.norm1, block.norm2 = (nn.BatchNorm2d(width, eps=1e-12) for _ in range(2))
            block.norm1.weight = block.norm2.weight = None
            setattr(self, f"block{n + 1}", block)
            before = width
        rows, columns = (((n - 1) // 2 // 2 // 2) // 3 for n in size)
        self.head = nn.Linear(before * rows * columns, classes, bias=False)
        self.image = before, rows, columns

    def forward(self, x):
        x = functional.gelu(self.whiten(x))
        for block in (self.block1, self.block2, self.block3):
            x = functional.gelu(block.norm1(functional.max_pool2d(block.conv1(x), 2)))
            x = functional.gelu(block.norm2(block.conv2(x)))
        return self.head(functional.max_pool2d(x, 3).flatten(1)) / 9


class LeNet5(nn.Module):
    """LeNet-5 as it is commonly built today."""

    def __init__(self, size, classes, channels=3):
        super().__init__()
        self.c1, self.c3 = nn.Conv2d(channels, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        rows, columns = ((n // 2 - 4) // 2 for n in size)
        self.c5, self.f6, self.output = nn.Linear(16 * rows * columns, 120), nn.Linear(120, 84), nn.Linear(84, classes)

    def forward(self, x):
        x = functional.avg_pool2d(self.c1(x).tanh(), 2)
        x = functional.avg_pool2d(self.c3(x).tanh(), 2)
        return self.output(self.f6(self.c5(x.flatten(1)).tanh()).tanh())


def torchvision(name):
    return lambda size, classes: getattr(zoo, name)(num_classes=classes), IMAGENET


def create(name, **arguments):
    # Only where one of its models is asked for.
    import timm
    return timm.create_model(name, **arguments)


def of_timm(name, pixels=IMAGENET):
    return lambda size, classes: create(name, num_classes=classes), pixels


MODELS = {
    "lenet5": (LeNet5, ONE),
    "airbench94": (Airbench, CIFAR_10),
    "resnet20": (lambda size, classes: Small((16, 32, 64), 3, classes), ONE),
    "resnet18_cifar": (lambda size, classes: Small((64, 128, 256, 512), 2, classes), ONE),
    **{name: torchvision(name) for name in ("resnet18", "resnet34", "resnet50", "vgg11", "vgg16", "squeezenet1_1", "mobilenet_v2")},
    **{f"efficientnet_lite{n}": of_timm(f"tf_efficientnet_lite{n}", LITE) for n in range(3)},
    **{name: of_timm(name) for name in ("efficientnet_b0", "convnext_atto", "convnext_tiny")},
    "vit_tiny": (lambda size, classes: create("vit_tiny_patch16_224", img_size=size, num_classes=classes), BOTH),
}


# The variance of a kernel's sums, for inputs of variance 1: so that neither image nor logits vanish.
VARIANCE = {"resnet20": 1.2, "resnet18_cifar": 1.2, "resnet18": 1.0, "resnet34": 0.8, "resnet50": 0.8, "squeezenet1_1": 2.2,
            "airbench94": 2.5, "efficientnet_b0": 2.0, "vgg16": 1.8}


def key(name):
    """FNV-1a of the name."""
    found = 0x811C9DC5
    for byte in name.encode():
        found = ((found ^ byte) * 0x01000193) & 0xFFFFFFFF
    return found


def formula(name, shape, variance):
    """Offset and scale of a tensor's numbers."""
    part = name.rsplit(".", 1)[-1]
    if part == "running_mean":
        return 0.0, 0.2
    if part == "running_var":
        return 1.0, 0.4
    if part == "gamma":
        return 0.5, 0.3
    if part in ("cls_token", "pos_embed"):
        return 0.0, 0.5
    if len(shape) == 1:
        return (1.0, 0.25) if part == "weight" else (0.0, 0.1)
    return 0.0, math.sqrt(3 * variance / math.prod(shape[1:]))


def fill(net, variance):
    """Every tensor of the net by its formula."""
    for name, tensor in net.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        offset, scale = formula(name, tensor.shape, variance)
        values = offset + scale * nets.unit(key(name), tensor.numel())
        tensor.copy_(torch.from_numpy(values.astype(np.float32)).view(tensor.shape))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="64x48")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "golden/zoo.safetensors")
    parser.add_argument("names", nargs="*", default=list(MODELS))
    arguments = parser.parse_args()
    size = tuple(int(n) for n in arguments.size.split("x"))
    shape = (2, *size, 3)
    images = (nets.bits(nets.INPUT_KEY, math.prod(shape)) >> 24).reshape(shape)
    outputs = {}
    for name in arguments.names:
        make, (mean, deviation) = MODELS[name]
        net = make(size, arguments.classes).eval()
        with torch.no_grad():
            fill(net, VARIANCE.get(name, 1.5))
            pixels = torch.from_numpy(((images - mean) / deviation).astype(np.float32)).permute(0, 3, 1, 2)
            found = functional.log_softmax(net(pixels).double(), 1)
        outputs[name] = found.numpy().astype(np.float32)
        print(f"{name}: logits' deviation {found.std(1).mean():.3f}, between images {(found[0] - found[1]).abs().max():.3f}", flush=True)
    made_by = f"torch {torch.__version__}, torchvision {torchvision_version}"
    if "timm" in sys.modules:
        made_by += f", timm {sys.modules['timm'].__version__}"
    variances = {name: VARIANCE.get(name, 1.5) for name in outputs}
    metadata = {"size": json.dumps(size), "variances": json.dumps(variances), "classes": json.dumps(arguments.classes), "made_by": json.dumps(made_by)}
    save_file(outputs, arguments.out, metadata)


if __name__ == "__main__":
    main()
