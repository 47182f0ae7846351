"""The three nets of the golden files, as data, and the formula that makes their weights, images and labels.

A net is a list of layers with Keras' names and arguments; `inputs` defaults to the layer before.
Everything that goes in is computed, so that a golden file holds only what comes out.
"""
import math

import numpy as np

BATCH = 8
CLASSES = 10
STEPS = 10
BIG = 4096  # tensors with more elements are stored as a sample, a sum and a sum of squares
STRIDE = 37  # the sample: elements 0, 37, 74, ...
INPUT_KEY = 1000  # the images' key in `unit`; a parameter's key is its index
OPTIMIZERS = {
    "sgd": {"class": "SGD", "learning_rate": 0.05, "momentum": 0.9},
    "adam": {"class": "Adam", "learning_rate": 1e-3, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7},
}


def conv(name, filters, kernel_size, strides=(1, 1), padding="valid", activation="linear", **more):
    layer = {"class": "Conv2D", "name": name, "filters": filters, "kernel_size": kernel_size, "strides": strides,
             "padding": padding, "dilation_rate": (1, 1), "groups": 1, "use_bias": True, "activation": activation}
    return layer | more


def batch_norm(name):
    return {"class": "BatchNormalization", "name": name, "momentum": 0.99, "epsilon": 1e-3}


def activation(name, function):
    return {"class": "Activation", "name": name, "activation": function}


def dense(name, units, function):
    return {"class": "Dense", "name": name, "units": units, "activation": function}


def max_pooling(name):
    return {"class": "MaxPooling2D", "name": name, "pool_size": (2, 2), "strides": (2, 2), "padding": "valid"}


def global_average(name="global_average_pooling2d"):
    return {"class": "GlobalAveragePooling2D", "name": name}


REFERENCE = [
    conv("conv2d", 32, (3, 3), activation="relu"),
    max_pooling("max_pooling2d"),
    conv("conv2d_1", 64, (3, 3), activation="relu"),
    max_pooling("max_pooling2d_1"),
    {"class": "Flatten", "name": "flatten"},
    dense("dense", 64, "relu"),
    dense("dense_1", CLASSES, "softmax"),
]

# 17 rows need symmetric padding under the strided convolution, 14 columns asymmetric (0 before, 1 after).
VARIED = [
    conv("conv2d", 8, (3, 3), strides=(2, 2), padding="same", activation="relu"),
    conv("conv2d_1", 12, (3, 3), padding="same", dilation_rate=(2, 2), groups=4, activation="elu"),
    {"class": "DepthwiseConv2D", "name": "depthwise_conv2d", "kernel_size": (3, 3), "strides": (1, 1),
     "padding": "same", "depth_multiplier": 2, "use_bias": True, "activation": "silu"},
    {"class": "AveragePooling2D", "name": "average_pooling2d", "pool_size": (2, 2), "strides": (2, 2), "padding": "same"},
    conv("conv2d_2", 10, (1, 3), strides=(2, 1), activation="gelu"),
    global_average(),
    dense("dense", CLASSES, "softmax"),
]

NO_BIAS = {"padding": "same", "use_bias": False}
RESIDUAL = [
    conv("conv2d", 16, (3, 3), **NO_BIAS),
    batch_norm("batch_normalization"),
    activation("activation", "relu"),
    conv("conv2d_1", 16, (3, 3), **NO_BIAS),
    batch_norm("batch_normalization_1"),
    activation("activation_1", "relu"),
    conv("conv2d_2", 16, (3, 3), **NO_BIAS),
    batch_norm("batch_normalization_2"),
    {"class": "Add", "name": "add", "inputs": ["batch_normalization_2", "activation"]},
    activation("activation_2", "relu"),
    conv("conv2d_3", 24, (3, 3), strides=(2, 2), **NO_BIAS),
    batch_norm("batch_normalization_3"),
    activation("activation_3", "relu"),
    conv("conv2d_4", 24, (3, 3), **NO_BIAS),
    batch_norm("batch_normalization_4"),
    conv("conv2d_5", 24, (1, 1), strides=(2, 2), inputs=["activation_2"], **NO_BIAS),
    batch_norm("batch_normalization_5"),
    {"class": "Add", "name": "add_1", "inputs": ["batch_normalization_4", "batch_normalization_5"]},
    activation("activation_4", "relu"),
    global_average(),
    dense("dense", CLASSES, "softmax"),
]

# At 0.05 the reference net's run meets a kink that f32's rounding decides (README.md).
SLOWER = OPTIMIZERS | {"sgd": OPTIMIZERS["sgd"] | {"learning_rate": 0.002}}

NETS = {
    "reference": {"input_shape": (28, 28, 1), "layers": REFERENCE, "optimizers": SLOWER},
    "varied": {"input_shape": (17, 14, 4), "layers": VARIED, "optimizers": OPTIMIZERS},
    "residual": {"input_shape": (12, 12, 3), "layers": RESIDUAL, "optimizers": OPTIMIZERS},
}


def chain(layers):
    """The layers with `inputs` written out; the images are called `input`."""
    previous, chained = "input", []
    for layer in layers:
        chained.append(layer | {"inputs": layer.get("inputs", [previous])})
        previous = layer["name"]
    return chained


def hash32(x):
    """A bijection of u32 (Wellons' lowbias32); all arithmetic modulo 2^32."""
    x = np.asarray(x, np.uint64) & 0xFFFFFFFF
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    return x ^ (x >> 16)


def bits(key, count):
    """`count` 32-bit numbers of the sequence `key`."""
    return hash32(np.arange(count, dtype=np.uint64) + hash32(key))


def unit(key, count):
    """`count` numbers in [-1, 1)."""
    return bits(key, count) / 2.0**32 * 2.0 - 1.0


def images(shape):
    """A batch of images as f32, (batch, height, width, channels): bytes divided by 255."""
    shape = (BATCH, *shape)
    return ((bits(INPUT_KEY, math.prod(shape)) >> 24).astype(np.float32) / np.float32(255)).reshape(shape)


def labels():
    return [(7 * n + 3) % CLASSES for n in range(BATCH)]


def parameters(net):
    """Name → {index, shape, offset, scale}, in index order; the value of element i is offset + scale * unit(index)[i]."""
    shapes, found = {"input": net["input_shape"]}, {}

    def add(name, shape, offset, scale):
        found[name] = {"index": len(found), "shape": list(shape), "offset": offset, "scale": scale}

    for layer in chain(net["layers"]):
        kind, name, shape = layer["class"], layer["name"], shapes[layer["inputs"][0]]
        if kind in ("Conv2D", "DepthwiseConv2D"):
            (kh, kw), channels = layer["kernel_size"], shape[-1]
            if kind == "Conv2D":
                filters, kernel = layer["filters"], (kh, kw, channels // layer["groups"], layer["filters"])
            else:
                filters, kernel = channels * layer["depth_multiplier"], (kh, kw, channels, layer["depth_multiplier"])
            fan_in = kh * kw * (kernel[2] if kind == "Conv2D" else 1)
            add(f"{name}/kernel", kernel, 0.0, math.sqrt(6 / fan_in))
            if layer["use_bias"]:
                add(f"{name}/bias", (filters,), 0.0, 0.1)
            shape = (*spatial(shape, layer), filters)
        elif kind == "Dense":
            add(f"{name}/kernel", (shape[-1], layer["units"]), 0.0, math.sqrt(6 / shape[-1]))
            add(f"{name}/bias", (layer["units"],), 0.0, 0.1)
            shape = (layer["units"],)
        elif kind == "BatchNormalization":
            add(f"{name}/gamma", (shape[-1],), 1.0, 0.1)
            add(f"{name}/beta", (shape[-1],), 0.0, 0.1)
        elif kind in ("MaxPooling2D", "AveragePooling2D"):
            shape = (*spatial(shape, layer), shape[-1])
        elif kind == "Flatten":
            shape = (math.prod(shape),)
        elif kind == "GlobalAveragePooling2D":
            shape = (shape[-1],)
        shapes[name] = shape
    return found


def spatial(shape, layer):
    """Height and width after a convolution or a pooling."""
    window = layer.get("kernel_size") or layer["pool_size"]
    return [same_padding(n, k, s, d)[0] if layer["padding"] == "same" else (n - d * (k - 1) - 1) // s + 1
            for n, k, s, d in zip(shape, window, layer["strides"], layer.get("dilation_rate", (1, 1)))]


def same_padding(size, window, stride, dilation=1):
    """Output size and padding before and after: TensorFlow's rule, the odd one goes after."""
    out = -(-size // stride)
    total = max(0, (out - 1) * stride + dilation * (window - 1) + 1 - size)
    return out, total // 2, total - total // 2


def weights(net):
    """Name → f32 array; computed in f64, rounded once."""
    return {name: (p["offset"] + p["scale"] * unit(p["index"], math.prod(p["shape"]))).astype(np.float32).reshape(p["shape"])
            for name, p in parameters(net).items()}
