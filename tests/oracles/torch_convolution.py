"""Writes what PyTorch's convolution and max pooling compute, to check ours against.

    pip install torch==2.15.0 "numpy<2.3"
    python tests/oracles/torch_convolution.py

The result, `common/tests/fixtures/torch_convolution.json`, is read by `common/tests/convolution_oracle.rs`.
PyTorch computes in float64 here, from inputs that are exact in float32. Images and weights are written with
channels last, [N, H, W, C] and [O, KH, KW, C]. The gradients are those of sum(outputs * of_outputs).

    images, kernel, stride, padding      [N, H, W, C], and rows and columns
    activation                           relu, tanh or identity; of pooling none
    x, weight, bias                      flat
    outputs, of_outputs                  [N, OH, OW, O], flat
    gradients                            x, and of convolutions weight and bias, flat
"""

import json
import pathlib
import re

import torch
from torch.nn import functional

FIXTURE = pathlib.Path(__file__).parents[2] / "common" / "tests" / "fixtures" / "torch_convolution.json"

torch.manual_seed(1989)


def random(*shape):
    """Numbers that float32 holds exactly and that are short to write, as float64."""
    return (torch.randn(*shape) * 64).round().double() / 64


def last(tensor):
    """Channels last, flat."""
    return [float(f"{x:.10g}") for x in tensor.detach().permute(0, 2, 3, 1).reshape(-1).tolist()]


def case(images, kernel, stride, padding, outputs=None, activation=None):
    n, height, width, channels = images
    x = random(n, channels, height, width).requires_grad_()
    geometry = {"stride": stride, "padding": padding}
    result = {"images": images, "kernel": kernel, **geometry}
    if outputs is None:
        y = functional.max_pool2d(x, kernel, **geometry)
    else:
        weight, bias = random(outputs, channels, *kernel).requires_grad_(), random(outputs).requires_grad_()
        y = functional.conv2d(x, weight, bias, **geometry)
        y = {"relu": torch.relu, "tanh": torch.tanh, "identity": lambda y: y}[activation](y)
        result |= {"activation": activation, "weight": last(weight), "bias": bias.tolist()}
    of_outputs = random(*y.shape)
    (y * of_outputs).sum().backward()
    gradients = {"x": last(x.grad)}
    if outputs is not None:
        gradients |= {"weight": last(weight.grad), "bias": bias.grad.tolist()}
    return result | {
        "x": last(x),
        "outputs": last(y),
        "of_outputs": last(of_outputs),
        "gradients": gradients,
    }


convolutions = [
    case([2, 12, 12, 4], [8, 8], [4, 4], [0, 0], 6, "relu"),
    case([2, 6, 6, 5], [4, 4], [2, 2], [0, 0], 17, "relu"),
    case([1, 5, 5, 3], [3, 3], [1, 1], [0, 0], 9, "tanh"),
    case([2, 6, 7, 4], [3, 3], [1, 1], [1, 1], 4, "relu"),
    case([1, 7, 5, 2], [3, 2], [2, 3], [2, 1], 5, "tanh"),
    case([2, 5, 6, 3], [1, 1], [2, 2], [0, 0], 4, "identity"),
    case([1, 4, 9, 1], [2, 5], [1, 2], [0, 2], 33, "identity"),
]
poolings = [
    case([2, 7, 8, 3], [3, 3], [2, 2], [1, 1]),
    case([1, 6, 6, 4], [2, 2], [2, 2], [0, 0]),
    case([2, 5, 7, 2], [3, 2], [1, 3], [1, 0]),
]
fixture = {"torch": torch.__version__.split("+")[0], "convolutions": convolutions, "poolings": poolings}
text = json.dumps(fixture, indent=1)
text = re.sub(r"\[[^][{}]*\]", lambda array: " ".join(array[0].split()), text)
FIXTURE.write_text(text + "\n")
