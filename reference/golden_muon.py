#!/usr/bin/env python3
"""Hold Muon's definition against torch.optim.Muon and write three steps of it for the kernels' tests.

usage: golden_muon.py

PyTorch multiplies in bf16; the same steps in single precision are written, and must be near PyTorch's. Parameters and gradients
follow from a formula: sin(a n² + b), n the place of a number in rows of outputs.
"""
import torch
from torch.optim import _muon

SHAPES = ((4, 6), (6, 4), (5, 5))
LEARNING_RATE, MOMENTUM, DECAY = 0.05, 0.95, 0.1


def numbers(shape, a, b):
    count = shape[0] * shape[1]
    return torch.sin(a * torch.arange(count, dtype=torch.float64) ** 2 + b).reshape(shape).float()


def steps(shape):
    """After three steps: a parameter of (outputs, inputs), as PyTorch has it."""
    parameter = torch.nn.Parameter(numbers(shape, 1.7, 0.3).clone())
    optimizer = torch.optim.Muon([parameter], lr=LEARNING_RATE, weight_decay=DECAY, momentum=MOMENTUM, nesterov=True)
    for step in range(3):
        parameter.grad = numbers(shape, 2.3 + step, 1.1)
        optimizer.step()
    return parameter.detach()


def orthogonal(gradient, coefficients, count, epsilon):
    x = gradient.clone()
    if x.size(0) > x.size(1):
        x = x.T
    x = x / x.norm().clamp(min=epsilon)
    a, b, c = coefficients
    for _ in range(count):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if gradient.size(0) > gradient.size(1) else x


if __name__ == "__main__":
    print(f"// PyTorch {torch.__version__}, in single precision.")
    for shape in SHAPES:
        theirs = steps(shape)
        usual = _muon._zeropower_via_newtonschulz
        _muon._zeropower_via_newtonschulz = orthogonal
        ours = steps(shape)
        _muon._zeropower_via_newtonschulz = usual
        largest = (theirs - ours).abs().max().item()
        assert largest < 3e-3, largest
        print(f"// {shape[0]} outputs, {shape[1]} inputs; PyTorch's own, in bf16, differ by {largest:.1e} at most.")
        print("&[" + ", ".join(f"{value:.7}" for value in ours.flatten().tolist()) + "],")
