#!/usr/bin/env python3
"""Hold predictions from pretrained weights against PyTorch: the same pixels, the same weights, every class.

usage: pretrained.py OCELLUS lite0 WEIGHTS.safetensors PHOTOS   EfficientNet-Lite0 on photographs NN_CLASS.jpg
       pretrained.py OCELLUS NAME                                           a net of torchvision with weights of its own
       pretrained.py OCELLUS timm/NAME                                      the same with timm's names: vit_tiny, convnext_atto, convnext_tiny

Photographs are brought to 256 pixels by Pillow and kept as PNG; of these both sides take the middle 224x224, so that they see the
same bytes. What is compared is the logarithm of the probabilities, which is the logits less what their sum makes.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch
import torch.nn.functional as functional
from PIL import Image
from safetensors.torch import load_file, save_file

import timm_nets

# The paper's table 1: kernel, strides of the first, expansion, repetitions.
STAGES = [(3, 1, 1, 1), (3, 2, 6, 2), (5, 2, 6, 2), (3, 2, 6, 3), (5, 1, 6, 3), (5, 2, 6, 4), (3, 1, 6, 1)]


def same(x, kernel, strides):
    """TensorFlow's padding: what is odd goes below and to the right."""
    pads = []
    for size in (x.shape[3], x.shape[2]):
        total = max((-(-size // strides) - 1) * strides + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return functional.pad(x, pads)


def lite0(weights, images):
    """EfficientNet-Lite0's logits, written out."""
    def norm(x, name):
        w = [weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return functional.batch_norm(x, *w, training=False, eps=1e-3)

    def convolution(x, name, norm_name, strides=1):
        kernel = weights[f"{name}.weight"]
        groups = x.shape[1] if kernel.shape[1] == 1 else 1
        return norm(functional.conv2d(same(x, kernel.shape[2], strides), kernel, stride=strides, groups=groups), norm_name)

    x = (images.permute(0, 3, 1, 2).double() - 127) / 128
    x = functional.relu6(convolution(x, "_conv_stem", "_bn0", 2))
    block = 0
    for _, strides, expansion, repetitions in STAGES:
        for number in range(repetitions):
            at, before = f"_blocks.{block}", x
            if expansion > 1:
                x = functional.relu6(convolution(x, f"{at}._expand_conv", f"{at}._bn0"))
            x = functional.relu6(convolution(x, f"{at}._depthwise_conv", f"{at}._bn1", strides if number == 0 else 1))
            x = convolution(x, f"{at}._project_conv", f"{at}._bn2")
            if number > 0:
                x = x + before
            block += 1
    x = functional.relu6(convolution(x, "_conv_head", "_bn1"))
    return functional.linear(x.mean((2, 3)), weights["_fc.weight"], weights["_fc.bias"])


def predictions(ocellus, model, files, classes):
    """Each image's probabilities, class after class."""
    command = [ocellus, "predict", str(model), *map(str, files), "--top", str(classes), "--json"]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return [{answer["class"]: answer["probability"] for answer in json.loads(line)["top"]} for line in lines]


def compare(answers, names, logits):
    expected = functional.log_softmax(logits, 1).numpy()
    found = np.log([[answer[name] for name in names] for answer in answers])
    print(f"largest difference of logits: {np.abs(found - expected).max():.2e} over {expected.size} of them, "
          f"from {expected.min():.1f} to {expected.max():.1f}")
    return np.abs(found - expected).max() < 1e-3


def photographs(ocellus, weights_file, photos, place):
    model = place / "model.safetensors"
    paths = sorted(pathlib.Path(photos).glob("*.jpg"))
    labels = [int(path.stem.split("_")[1]) for path in paths]
    files, images = [], []
    for path in paths:
        image = Image.open(path).convert("RGB")
        left, top = ((side - min(image.size)) / 2 for side in image.size)
        box = (left, top, left + min(image.size), top + min(image.size))
        image = image.resize((256, 256), Image.BICUBIC, box=box)
        files.append(place / f"{path.stem}.png")
        image.save(files[-1])
        images.append(np.asarray(image)[16:240, 16:240])
    weights = {name: value.double() for name, value in load_file(weights_file).items()}
    with torch.no_grad():
        logits = lite0(weights, torch.tensor(np.stack(images)))
    classes = len(logits[0])
    # A name may stand for two classes; numbers do not.
    subprocess.run([ocellus, "import", weights_file, "--output", str(model), "--class-names", str(numbers(place, classes))],
                   check=True, stdout=subprocess.DEVNULL)
    answers = predictions(ocellus, model, files, classes)
    right = lambda answers: sum(int(max(answer, key=answer.get)) == label for answer, label in zip(answers, labels))
    print(f"of {len(labels)} photographs right: {right(answers)}, by PyTorch {int((logits.argmax(1) == torch.tensor(labels)).sum())}; "
          f"{right(predictions(ocellus, model, paths, classes))} with ocellus' own decoder and resizing")
    return compare(answers, [str(n) for n in range(classes)], logits) and right(answers) >= 18


def numbers(place, classes):
    path = place / "numbers.names"
    path.write_text("".join(f"{n}\n" for n in range(classes)))
    return path


def of_torchvision(ocellus, name, place):
    torch.manual_seed(0)
    half = torch.tensor([0.5] * 3)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    if name.startswith("timm/"):
        net = timm_nets.NETS[name.removeprefix("timm/")]().eval()
        if name == "timm/vit_tiny":
            mean, deviation = half, half
    else:
        import torchvision
        net = getattr(torchvision.models, name)(weights=None).eval()
    with torch.no_grad():
        for key, value in net.state_dict().items():
            if key.endswith("running_mean"):
                value.normal_(0, 0.1)
            elif key.endswith("running_var"):
                value.uniform_(0.5, 1.5)
            elif value.ndim == 1 and key.endswith("weight"):
                value.uniform_(0.5, 1.5)
            elif key.endswith(("gamma", "layer_scale")):
                value.uniform_(0.1, 0.3)
            elif key.endswith(("cls_token", "pos_embed")):
                value.normal_(0, 0.1)
        save_file({key: value.contiguous() for key, value in net.state_dict().items()}, place / "weights.safetensors")
        model = place / "model.safetensors"
        # A published crop of 0.9 leaves no whole number of pixels, so that resizing would count, too: 0.875 of 256 are 224.
        config = {"input_size": [3, 224, 224], "crop_pct": 0.875, "mean": mean.tolist(), "std": deviation.tolist()}
        (place / "config.json").write_text(json.dumps({"pretrained_cfg": config}))
        names = numbers(place, net(torch.zeros(1, 3, 224, 224)).shape[1])
        subprocess.run([ocellus, "import", str(place / "weights.safetensors"), "--class-names", str(names), "--output", str(model)],
                       check=True, stdout=subprocess.DEVNULL)
        random = np.random.default_rng(0)
        files, images = [], []
        for number in range(4):
            pixels = random.integers(0, 256, (8, 8, 3), np.uint8)
            image = Image.fromarray(pixels).resize((256, 256), Image.BILINEAR)
            files.append(place / f"{number}.png")
            image.save(files[-1])
            images.append(np.asarray(image)[16:240, 16:240])
        x = torch.tensor(np.stack(images)).permute(0, 3, 1, 2).double() / 255
        x = (x - mean.double().view(3, 1, 1)) / deviation.double().view(3, 1, 1)
        logits = net.double()(x)
    return compare(predictions(ocellus, model, files, logits.shape[1]), [str(n) for n in range(logits.shape[1])], logits)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        ocellus, name, rest = sys.argv[1], sys.argv[2], sys.argv[3:]
        place = pathlib.Path(folder)
        fine = photographs(ocellus, *rest[:2], place) if name == "lite0" else of_torchvision(ocellus, name, place)
    sys.exit(0 if fine else 1)
