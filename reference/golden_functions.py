#!/usr/bin/env python3
"""Write Keras' optimizers, learning-rate schedules, activations and losses, sampled, each with its settings in the metadata.

usage: golden_functions.py [--out DIR]
"""
import argparse
import json
import os
import pathlib

os.environ["KERAS_BACKEND"], os.environ["TF_CPP_MIN_LOG_LEVEL"] = "tensorflow", "3"
import keras
import numpy as np
import tensorflow
from safetensors.numpy import save_file

keras.config.set_floatx("float64")

OPTIMIZERS = {  # what is not given has Keras' default
    "sgd": {"class": "SGD"},
    "sgd_momentum": {"class": "SGD", "momentum": 0.9},
    "sgd_nesterov": {"class": "SGD", "momentum": 0.9, "nesterov": True},
    "sgd_weight_decay": {"class": "SGD", "momentum": 0.9, "weight_decay": 0.004},
    "sgd_clipvalue": {"class": "SGD", "clipvalue": 0.5},
    "sgd_clipnorm": {"class": "SGD", "clipnorm": 1.0},
    "sgd_global_clipnorm": {"class": "SGD", "global_clipnorm": 1.0},
    "rmsprop": {"class": "RMSprop"},
    "rmsprop_momentum": {"class": "RMSprop", "momentum": 0.9},
    "rmsprop_centered": {"class": "RMSprop", "centered": True},
    "rmsprop_centered_momentum": {"class": "RMSprop", "momentum": 0.9, "centered": True},
    "adagrad": {"class": "Adagrad"},
    "adam": {"class": "Adam"},
    "adam_amsgrad": {"class": "Adam", "amsgrad": True},
    "adam_amsgrad_short_memory": {"class": "Adam", "amsgrad": True, "beta_2": 0.5},
    "adam_large_epsilon": {"class": "Adam", "epsilon": 0.1},
    "adamw": {"class": "AdamW"},
    "adamw_amsgrad": {"class": "AdamW", "amsgrad": True, "weight_decay": 0.01},
}

SCHEDULES = {
    "exponential": {"class": "ExponentialDecay", "initial_learning_rate": 0.1, "decay_steps": 20, "decay_rate": 0.9},
    "exponential_staircase": {"class": "ExponentialDecay", "initial_learning_rate": 0.1, "decay_steps": 20, "decay_rate": 0.9,
                              "staircase": True},
    "cosine": {"class": "CosineDecay", "initial_learning_rate": 0.1, "decay_steps": 100, "alpha": 0.01},
    "cosine_warmup": {"class": "CosineDecay", "initial_learning_rate": 0.01, "decay_steps": 100, "alpha": 0.001,
                      "warmup_target": 0.1, "warmup_steps": 20},
    "cosine_restarts": {"class": "CosineDecayRestarts", "initial_learning_rate": 0.1, "first_decay_steps": 20, "t_mul": 2.0,
                        "m_mul": 0.5, "alpha": 0.01},
    "piecewise_constant": {"class": "PiecewiseConstantDecay", "boundaries": [20, 60], "values": [0.1, 0.01, 0.001]},
    "polynomial": {"class": "PolynomialDecay", "initial_learning_rate": 0.1, "decay_steps": 100, "end_learning_rate": 0.001, "power": 2.0},
    "inverse_time": {"class": "InverseTimeDecay", "initial_learning_rate": 0.1, "decay_steps": 20, "decay_rate": 0.5},
}

ACTIVATIONS = {
    "relu": {}, "relu6": {}, "leaky_relu": {"negative_slope": 0.2}, "elu": {"alpha": 1.0}, "selu": {}, "gelu": {"approximate": False},
    "gelu_tanh": {"approximate": True}, "silu": {}, "sigmoid": {}, "tanh": {}, "softplus": {}, "softsign": {}, "hard_sigmoid": {},
    "hard_silu": {}, "mish": {}, "exponential": {},
}

LOSSES = {
    "categorical_crossentropy": {"class": "CategoricalCrossentropy", "from_logits": True},
    "categorical_crossentropy_smoothed": {"class": "CategoricalCrossentropy", "from_logits": True, "label_smoothing": 0.1},
    "sparse_categorical_crossentropy": {"class": "SparseCategoricalCrossentropy", "from_logits": True},
    "binary_crossentropy": {"class": "BinaryCrossentropy", "from_logits": True},
    "binary_crossentropy_smoothed": {"class": "BinaryCrossentropy", "from_logits": True, "label_smoothing": 0.1},
    "mean_squared_error": {"class": "MeanSquaredError"},
}


def construct(module, config):
    return getattr(module, config["class"])(**{k: v for k, v in config.items() if k != "class"})


def optimizers():
    """One parameter of 16 elements, held as two variables of 8, so that the norm of one differs from the global norm."""
    random = np.random.default_rng(0)
    parameter = random.uniform(-1, 1, 16).astype(np.float32)
    gradients = (random.standard_normal((5, 16)) * 10.0 ** np.tile(np.linspace(-6, 1, 8), 2)).astype(np.float32)
    gradients[:, 3] = 0.0  # never a gradient
    gradients[:3, 12] = 0.0  # a late one
    gradients[3] *= 0.1  # amsgrad remembers the larger moments before
    tensors = {"parameter": parameter, "gradients": gradients}
    for name, config in OPTIMIZERS.items():
        optimizer = construct(keras.optimizers, config)
        variables = [keras.Variable(half.astype(np.float64)) for half in np.split(parameter, 2)]
        steps = []
        for gradient in gradients.astype(np.float64):
            optimizer.apply([tensorflow.constant(half) for half in np.split(gradient, 2)], variables)
            steps.append(np.concatenate([np.asarray(v) for v in variables]))
        tensors[name] = np.array(steps)
    return tensors, OPTIMIZERS


def schedules():
    steps = np.arange(0, 121, 4)
    tensors = {"steps": steps}
    for name, config in SCHEDULES.items():
        schedule = construct(keras.optimizers.schedules, config)
        tensors[name] = np.array([float(schedule(int(step))) for step in steps])
    return tensors, SCHEDULES


def activations():
    """Values and derivatives at `x`; softmax's gradient is of the sum of cotangent times output."""
    x = np.concatenate([[-100, -30, -3, 0, 3, 6, 30], np.linspace(-8.05, 8.05, 47)]).astype(np.float32)
    tensors = {"x": x}
    for name, config in ACTIVATIONS.items():
        point = tensorflow.constant(x.astype(np.float64))
        with tensorflow.GradientTape() as tape:
            tape.watch(point)
            value = getattr(keras.activations, name.removesuffix("_tanh"))(point, **config)
        tensors[name], tensors[f"{name}/derivative"] = np.asarray(value), np.asarray(tape.gradient(value, point))
    random = np.random.default_rng(1)
    logits, cotangent = ((random.standard_normal((4, 10)) * scale).astype(np.float32) for scale in (5, 1))
    point = tensorflow.constant(logits.astype(np.float64))
    with tensorflow.GradientTape() as tape:
        tape.watch(point)
        value = keras.activations.softmax(point)
        total = keras.ops.sum(value * cotangent)
    tensors |= {"softmax/x": logits, "softmax/cotangent": cotangent, "softmax": np.asarray(value),
                "softmax/gradient": np.asarray(tape.gradient(total, point))}
    return tensors, ACTIVATIONS


def losses():
    """Loss and its gradient with respect to `predictions`, without and with a weight per sample."""
    random = np.random.default_rng(2)
    predictions = (random.standard_normal((6, 5)) * 3).astype(np.float32)
    labels = np.array([0, 4, 2, 2, 1, 3])
    targets = {"categorical": np.eye(5)[labels], "sparse": labels, "binary": random.integers(0, 2, (6, 5)).astype(float),
               "mean": random.standard_normal((6, 5)).astype(np.float32)}
    weights = np.array([1.0, 0.5, 2.0, 0.0, 3.0, 1.0])  # their sum is not their number
    tensors = {"predictions": predictions, "sample_weight": weights}
    tensors |= {f"target/{kind}": target for kind, target in targets.items()}
    for name, config in LOSSES.items():
        loss, target = construct(keras.losses, config), targets[name.split("_")[0]]
        for suffix, weight in (("", None), ("/weighted", weights)):
            point = tensorflow.constant(predictions.astype(np.float64))
            with tensorflow.GradientTape() as tape:
                tape.watch(point)
                value = loss(target, point, sample_weight=weight)
            tensors[f"{name}{suffix}"] = np.asarray(value).reshape(1)
            tensors[f"{name}{suffix}/gradient"] = np.asarray(tape.gradient(value, point))
    return tensors, LOSSES


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "golden")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for kind in (optimizers, schedules, activations, losses):
        tensors, cases = kind()
        path = out / f"{kind.__name__}.safetensors"
        save_file({k: np.ascontiguousarray(v, np.float32) for k, v in tensors.items()}, path, {"cases": json.dumps(cases)})
        print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
