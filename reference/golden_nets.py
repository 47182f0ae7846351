#!/usr/bin/env python3
"""Write the golden file of each net: outputs, every gradient and ten training losses.

usage: golden_nets.py {torch,keras} [--out DIR] [--precision float64]

Arithmetic is in f64 from weights rounded to f32, so a file holds the framework's answer without its rounding noise;
`--precision float32` writes what the framework gives by default, to see how large that noise is (`compare.py`).
"""
import argparse
import json
import math
import os
import pathlib

import numpy as np
from safetensors.numpy import save_file

import nets


def put(tensors, name, value):
    """Store a tensor as f32, a big one as a sample, a sum and a sum of squares."""
    value = np.asarray(value, np.float64)
    if value.size > nets.BIG:
        flat = value.ravel()
        tensors[f"{name}/sample"] = flat[::nets.STRIDE].astype(np.float32)
        tensors[f"{name}/sum"] = np.array([flat.sum()], np.float32)
        tensors[f"{name}/sum_of_squares"] = np.array([flat @ flat], np.float32)
    else:
        tensors[name] = np.ascontiguousarray(value, np.float32)


class Torch:
    """PyTorch, from the layers' description; parameters are kept in Keras' layout and permuted at each use."""

    def __init__(self, precision):
        import torch
        self.torch, self.functional, self.dtype = torch, torch.nn.functional, getattr(torch, precision)
        self.version = f"torch {torch.__version__}"

    def build(self, net):
        self.layers = nets.chain(net["layers"])
        self.values = {name: self.torch.tensor(w, dtype=self.dtype, requires_grad=True)
                       for name, w in nets.weights(net).items()}
        self.statistics = {}
        for layer in self.layers:
            if layer["class"] == "BatchNormalization":
                like = self.values[f"{layer['name']}/gamma"]
                self.statistics[f"{layer['name']}/moving_mean"] = self.torch.zeros_like(like)
                self.statistics[f"{layer['name']}/moving_variance"] = self.torch.ones_like(like)

    def pad(self, x, layer, window):
        """Pad explicitly: PyTorch knows no strided "same", and pads symmetrically. Returns also the mask of real pixels."""
        mask = self.torch.ones_like(x[:1, :1])
        if layer["padding"] == "same":
            (_, top, bottom), (_, left, right) = (
                nets.same_padding(*a) for a in zip(x.shape[2:], window, layer["strides"], layer.get("dilation_rate", (1, 1))))
            x, mask = (self.functional.pad(v, (left, right, top, bottom)) for v in (x, mask))
        return x, mask

    def apply(self, layer, inputs, training):
        """One layer on NCHW tensors."""
        F, name, x, kind = self.functional, layer["name"], inputs[0], layer["class"]
        parameter = lambda what: self.values.get(f"{name}/{what}")
        if kind == "Conv2D":
            x, _ = self.pad(x, layer, layer["kernel_size"])
            return F.conv2d(x, parameter("kernel").permute(3, 2, 0, 1), parameter("bias"), layer["strides"],
                            dilation=layer["dilation_rate"], groups=layer["groups"])
        if kind == "DepthwiseConv2D":
            x, _ = self.pad(x, layer, layer["kernel_size"])
            kernel = parameter("kernel").permute(2, 3, 0, 1).flatten(0, 1).unsqueeze(1)
            return F.conv2d(x, kernel, parameter("bias"), layer["strides"], groups=x.shape[1])
        if kind == "MaxPooling2D":
            return F.max_pool2d(x, layer["pool_size"], layer["strides"])
        if kind == "AveragePooling2D":  # padding does not count towards the mean
            x, mask = self.pad(x, layer, layer["pool_size"])
            return F.avg_pool2d(x, layer["pool_size"], layer["strides"]) / F.avg_pool2d(mask, layer["pool_size"], layer["strides"])
        if kind == "BatchNormalization":
            mean, variance = (self.statistics[f"{name}/moving_{what}"] for what in ("mean", "variance"))
            if training:  # PyTorch's own moving variance is unbiased; Keras' is the batch's variance as it is
                with self.torch.no_grad():
                    momentum = layer["momentum"]
                    mean.mul_(momentum).add_(x.mean((0, 2, 3)) * (1 - momentum))
                    variance.mul_(momentum).add_(x.var((0, 2, 3), correction=0) * (1 - momentum))
                mean = variance = None
            return F.batch_norm(x, mean, variance, parameter("gamma"), parameter("beta"), training, 0.0, layer["epsilon"])
        if kind == "Dense":
            return x @ parameter("kernel") + parameter("bias")
        if kind == "GlobalAveragePooling2D":
            return x.mean((2, 3))
        if kind == "Flatten":
            return x.permute(0, 2, 3, 1).flatten(1)
        return sum(inputs) if kind == "Add" else x

    def forward(self, images, training):
        """Every layer's output, NCHW, and the logits. The last activation is softmax."""
        functions = {"linear": lambda x: x, "relu": self.torch.relu, "elu": self.functional.elu,
                     "silu": self.functional.silu, "gelu": self.functional.gelu, "softmax": lambda x: x.softmax(-1)}
        outputs = {"input": images.permute(0, 3, 1, 2)}
        for layer in self.layers:
            logits = self.apply(layer, [outputs[name] for name in layer["inputs"]], training)
            outputs[layer["name"]] = functions[layer.get("activation", "linear")](logits)
        return outputs, logits

    def step(self, images, labels):
        """Loss, every layer's output (NHWC) and the gradients of one batch in training."""
        images = self.torch.tensor(images, dtype=self.dtype, requires_grad=True)
        outputs, logits = self.forward(images, True)
        loss = self.functional.cross_entropy(logits, self.torch.tensor(labels))
        names = ["input", *self.values]
        gradients = self.torch.autograd.grad(loss, [images, *self.values.values()])
        outputs = {k: (v.permute(0, 2, 3, 1) if v.ndim == 4 else v).detach().numpy() for k, v in outputs.items()}
        return loss.item(), outputs, {k: v.numpy() for k, v in zip(names, gradients)}

    def infer(self, images):
        with self.torch.no_grad():
            return self.forward(self.torch.tensor(images, dtype=self.dtype), False)[1].softmax(-1).numpy()

    def train(self, images, labels, config):
        """Losses of ten steps on the same batch, each before its update."""
        make = {"SGD": lambda v: self.torch.optim.SGD(v, config["learning_rate"], config["momentum"]),
                "Adam": lambda v: self.torch.optim.Adam(v, config["learning_rate"], (config["beta_1"], config["beta_2"]))}
        optimizer, losses = make[config["class"]](list(self.values.values())), []
        for step in range(1, nets.STEPS + 1):
            if "epsilon" in config:  # Keras adds epsilon before the second moment's bias is corrected, PyTorch after
                optimizer.param_groups[0]["eps"] = config["epsilon"] / math.sqrt(1 - config["beta_2"]**step)
            loss, _, gradients = self.step(images, labels)
            losses.append(loss)
            for name, value in self.values.items():
                value.grad = self.torch.from_numpy(gradients[name])
            optimizer.step()
        return losses

    def moving_statistics(self):
        return {name: value.numpy() for name, value in self.statistics.items()}


class Keras:
    """Keras on TensorFlow, through its own layers, loss and optimizers."""

    def __init__(self, precision):
        os.environ["KERAS_BACKEND"], os.environ["TF_CPP_MIN_LOG_LEVEL"] = "tensorflow", "3"
        import keras
        import tensorflow
        keras.config.set_floatx(precision)
        self.keras, self.tensorflow, self.precision = keras, tensorflow, precision
        self.version = f"keras {keras.__version__} on tensorflow {tensorflow.__version__}"

    def build(self, net):
        outputs = {"input": self.keras.Input(net["input_shape"])}
        for layer in nets.chain(net["layers"]):
            config = {k: v for k, v in layer.items() if k not in ("class", "inputs")}
            inputs = [outputs[name] for name in layer["inputs"]]
            outputs[layer["name"]] = getattr(self.keras.layers, layer["class"])(**config)(inputs if len(inputs) > 1 else inputs[0])
        self.model = self.keras.Model(outputs["input"], outputs)
        self.last = layer["name"]
        self.values = {}
        for name, value in nets.weights(net).items():
            owner, what = name.split("/")
            variable = getattr(self.model.get_layer(owner), what)
            variable.assign(value)
            self.values[name] = variable

    def step(self, images, labels):
        images = self.tensorflow.constant(images, self.precision)
        target = self.keras.ops.one_hot(labels, nets.CLASSES, dtype=self.precision)
        with self.tensorflow.GradientTape() as tape:
            tape.watch(images)
            outputs = self.model(images, training=True)
            loss = self.keras.losses.CategoricalCrossentropy()(target, outputs[self.last])
        names = ["input", *self.values]
        gradients = tape.gradient(loss, [images, *(v.value for v in self.values.values())])
        return (float(loss), {k: np.asarray(v) for k, v in outputs.items()},
                {k: np.asarray(v) for k, v in zip(names, gradients)})

    def infer(self, images):
        return np.asarray(self.model(self.tensorflow.constant(images, self.precision), training=False)[self.last])

    def train(self, images, labels, config):
        optimizer = getattr(self.keras.optimizers, config["class"])(**{k: v for k, v in config.items() if k != "class"})
        losses = []
        for _ in range(nets.STEPS):
            loss, _, gradients = self.step(images, labels)
            losses.append(loss)
            optimizer.apply([gradients[name] for name in self.values], list(self.values.values()))
        return losses

    def moving_statistics(self):
        return {f"{layer.name}/{what}": np.asarray(getattr(layer, what)) for layer in self.model.layers
                if hasattr(layer, "moving_mean") for what in ("moving_mean", "moving_variance")}


def golden(framework, net):
    tensors, images, labels = {}, nets.images(net["input_shape"]), nets.labels()
    framework.build(net)
    tensors["inference/probabilities"] = framework.infer(images).astype(np.float32)
    loss, outputs, gradients = framework.step(images, labels)
    weights, before, last = nets.weights(net), *(layer["name"] for layer in net["layers"][-2:])
    logits = outputs[before] @ weights[f"{last}/kernel"] + weights[f"{last}/bias"]
    tensors["loss"] = np.array([loss], np.float32)
    tensors["logits"] = logits.astype(np.float32)
    tensors["probabilities"] = outputs[last].astype(np.float32)
    put(tensors, "input", images)
    tensors["labels"] = np.array(labels, np.float32)
    for layer in net["layers"]:
        put(tensors, f"output/{layer['name']}", outputs[layer["name"]])
    for name, gradient in gradients.items():
        put(tensors, f"gradient/{name}", gradient)
    for optimizer, config in net["optimizers"].items():
        framework.build(net)
        tensors[f"{optimizer}/losses"] = np.array(framework.train(images, labels, config), np.float32)
        tensors[f"{optimizer}/inference/probabilities"] = framework.infer(images).astype(np.float32)
        for name, value in framework.moving_statistics().items():
            put(tensors, f"{optimizer}/{name}", value)
    return tensors


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("framework", choices=["torch", "keras"])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "golden")
    parser.add_argument("--precision", choices=["float64", "float32"], default="float64")
    arguments = parser.parse_args()
    framework = {"torch": Torch, "keras": Keras}[arguments.framework](arguments.precision)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, net in nets.NETS.items():
        description = {"made_by": framework.version, "precision": arguments.precision, "input_shape": net["input_shape"],
                       "layers": nets.chain(net["layers"]), "parameters": nets.parameters(net),
                       "optimizers": net["optimizers"], "batch": nets.BATCH, "sample_stride": nets.STRIDE}
        path = arguments.out / f"{name}_{arguments.framework}.safetensors"
        save_file(golden(framework, net), path, {"net": json.dumps(description)})
        print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
