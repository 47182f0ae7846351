"""Writes golden.txt: optimizer steps, losses and their gradients as Keras computes them, for tests/keras.rs.

Made with Keras 3.15.1 on TensorFlow 2.21.0:  python golden.py > golden.txt
Each line: a name, then numbers. Everything that goes in is written out, too, so that the test needs no constants.
"""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras
import numpy as np
import tensorflow as tf

random = np.random.default_rng(7)


def line(name, values):
    print(name, *(repr(float(np.float32(v))) for v in np.asarray(values).ravel()))


# Five steps on nineteen values: the parameter before, the gradients, and the parameter after every step.
STEPS, VALUES = 5, 19
start = random.normal(size=VALUES).astype("float32")
gradients = random.normal(size=(STEPS, VALUES)).astype("float32")
gradients[:, 0] = 0.0
line("start", start)
for step in range(STEPS):
    line(f"gradient{step}", gradients[step])
optimizers = {
    "sgd": keras.optimizers.SGD(0.1),
    "momentum": keras.optimizers.SGD(0.1, momentum=0.9),
    "nesterov": keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "rmsprop": keras.optimizers.RMSprop(0.01),
    "rmsprop_all": keras.optimizers.RMSprop(0.01, rho=0.8, momentum=0.5, epsilon=1e-3, centered=True),
    "adagrad": keras.optimizers.Adagrad(0.01),
    "adam": keras.optimizers.Adam(0.01),
    "adam_amsgrad": keras.optimizers.Adam(0.01, beta_1=0.8, beta_2=0.6, epsilon=1e-3, amsgrad=True),
    "adamw": keras.optimizers.AdamW(0.01, weight_decay=0.1),
    "sgd_clipvalue": keras.optimizers.SGD(0.1, clipvalue=0.5),
    "sgd_clipnorm": keras.optimizers.SGD(0.1, clipnorm=0.5),
}
for name, optimizer in optimizers.items():
    variable = keras.Variable(start)
    for step in range(STEPS):
        optimizer.apply([tf.constant(gradients[step])], [variable])
        line(f"{name}{step}", variable.numpy())

# Losses of six samples of five classes; seed i is the derivative of the total by the loss of sample i.
SAMPLES, CLASSES = 6, 5
logits = (3 * random.normal(size=(SAMPLES, CLASSES))).astype("float32")
probabilities = random.uniform(size=(SAMPLES, CLASSES)).astype("float32")
probabilities[0] = [0, 1, 0, 0.5, 1]
target = random.uniform(size=(SAMPLES, CLASSES)).astype("float32")
target[:4] = np.eye(CLASSES, dtype="float32")[[0, 3, 1, 4]]
seed = random.normal(size=SAMPLES).astype("float32")
for name, values in {"logits": logits, "probabilities": probabilities, "target": target, "seed": seed}.items():
    line(name, values)
losses = {
    "softmax_cross_entropy": (keras.losses.categorical_crossentropy, logits, {"from_logits": True}),
    "categorical_cross_entropy": (keras.losses.categorical_crossentropy, probabilities, {}),
    "sigmoid_binary_cross_entropy": (keras.losses.binary_crossentropy, logits, {"from_logits": True}),
    "binary_cross_entropy": (keras.losses.binary_crossentropy, probabilities, {}),
    "mean_squared_error": (keras.losses.mean_squared_error, logits, None),
}
for name, (loss, prediction, options) in losses.items():
    for smoothing in (0.0, 0.1):
        x = tf.Variable(prediction)
        with tf.GradientTape() as tape:
            extra = {} if options is None else {**options, "label_smoothing": smoothing}
            values = loss(tf.constant(target), x, **extra)
            total = tf.reduce_sum(values * seed)
        line(f"{name}/{smoothing}/loss", values.numpy())
        line(f"{name}/{smoothing}/gradient", tape.gradient(total, x).numpy())
