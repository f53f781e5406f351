"""Writes whole networks, forward and backward: common/tests/fixtures/torch_networks.json.

Each case is an observation space, keys of the section [policy], weights, observations, and what PyTorch says of them in double
precision: rows of distribution parameters, values, and the gradient of

    loss = sum(rows * row_weights) + sum(values * value_weights)

with respect to every weight. The network is written down here anew, from the papers that the configuration names:

    nature, minatar   convolutions without padding, each with its activation
    residual          sections: convolution 3 x 3, max pooling 3 x 3 with stride 2 and padding 1, two blocks
                      x + conv(f(conv(f(x)))); f once more behind the last section
    all               fully connected layers on the flattened result; an LSTM; a policy head and a value head

f is the activation; with layer_norm the features (of images, the channels of each pixel) are normalised before it. Kernels are
[O, KH, KW, C], images are flattened as [H, W, C], and bytes count as a share of their space's bound. To make it anew, from the
repository root:

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 "numpy<2.3"
    venv/bin/python tests/oracles/torch_networks.py
"""

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from torch_support import single, write

FIXTURE = Path(__file__).parents[2] / "common/tests/fixtures/torch_networks.json"
STEPS, COLUMNS, ACTIONS = 3, 2, 3

CASES = [
    {
        "name": "convolutions on stacked frames",
        "space": {"shape": [3, 12, 14], "dtype": "u8", "high": 255},
        "policy": {"encoder": "nature", "channels": [4, 5], "kernels": [4, 3], "strides": [2, 1], "hidden": [6]},
    },
    {
        "name": "a convolution on flags, and another for the value",
        "space": {"shape": [6, 5, 4], "dtype": "u8", "high": 1},
        "policy": {
            "encoder": "minatar", "channels": [4], "hidden": [6], "activation": "tanh", "shared_encoder": False,
        },
    },
    {
        "name": "residual sections",
        "space": {"shape": [9, 8, 2], "dtype": "u8", "high": 255},
        "policy": {"encoder": "residual", "channels": [3, 4], "hidden": [5]},
    },
    {
        "name": "residual sections, normalised, on real numbers in planes",
        "space": {"shape": [2, 7, 8], "dtype": "f32", "high": 1},
        "policy": {"encoder": "residual", "channels": [4], "hidden": [5], "layer_norm": True},
    },
    {
        "name": "normalised convolutions under an LSTM",
        "space": {"shape": [8, 9], "dtype": "u8", "high": 255},
        "policy": {
            "encoder": "nature", "channels": [3, 4], "kernels": [3, 2], "strides": [2, 1], "hidden": [6],
            "layer_norm": True, "core": "lstm", "core_size": 4,
        },
    },
    {
        "name": "normalised layers on numbers",
        "space": {"shape": [5], "dtype": "f32", "high": 1},
        "policy": {"encoder": "mlp", "hidden": [8, 6], "layer_norm": True},
    },
]


class Network:
    """A network whose weights are made when they are first used; then `self.parameters` has them by name."""

    def __init__(self, policy, rng):
        self.policy, self.rng, self.parameters = policy, rng, {}
        tanh = policy.get("activation", "tanh" if policy["encoder"] == "mlp" else "relu") == "tanh"
        self.nonlinearity = torch.tanh if tanh else torch.relu

    def weight(self, name, shape, scale, offset=0.0):
        if name not in self.parameters:
            tensor = single(self.rng.normal(offset, scale, shape))
            self.parameters[name] = tensor.requires_grad_()
        return self.parameters[name]

    def f(self, name, x):
        """`x` is [N, F] or [N, C, H, W]."""
        if not self.policy.get("layer_norm"):
            return self.nonlinearity(x)
        features = x.shape[1]
        gain = self.weight(f"{name}.norm.weight", [features], 0.3, 1.0)
        bias = self.weight(f"{name}.norm.bias", [features], 0.3)
        return self.nonlinearity(F.layer_norm(x.movedim(1, -1), [features], gain, bias).movedim(-1, 1))

    def linear(self, name, x, outputs):
        inputs = x.shape[1]
        weight = self.weight(f"{name}.weight", [outputs, inputs], inputs**-0.5)
        return F.linear(x, weight, self.weight(f"{name}.bias", [outputs], 0.2))

    def convolution(self, name, x, outputs, kernel, stride, padding):
        inputs = x.shape[1]
        weight = self.weight(f"{name}.weight", [outputs, kernel, kernel, inputs], (kernel * kernel * inputs) ** -0.5)
        bias = self.weight(f"{name}.bias", [outputs], 0.2)
        return F.conv2d(x, weight.permute(0, 3, 1, 2), bias, stride, padding)

    def encoder(self, name, x):
        kind = self.policy["encoder"]
        if kind in ("nature", "minatar"):
            channels = self.policy["channels"]
            kernels, strides = self.policy.get("kernels", [3]), self.policy.get("strides", [1])
            for layer, sizes in enumerate(zip(channels, kernels, strides, strict=True)):
                layer = f"{name}.convolution.{layer}"
                x = self.f(layer, self.convolution(layer, x, *sizes, 0))
        if kind == "residual":
            for section, channels in enumerate(self.policy["channels"]):
                section = f"{name}.section.{section}"
                x = self.convolution(f"{section}.convolution", x, channels, 3, 1, 1)
                x = F.max_pool2d(x, 3, 2, 1)
                for block in range(2):
                    block = f"{section}.block.{block}"
                    inner = self.convolution(f"{block}.0", self.f(block, x), channels, 3, 1, 1)
                    x = x + self.convolution(f"{block}.1", self.f(f"{block}.0", inner), channels, 3, 1, 1)
            x = self.f(name, x)
        if x.dim() == 4:
            x = x.permute(0, 2, 3, 1).flatten(1)
        for layer, width in enumerate(self.policy["hidden"]):
            layer = f"{name}.{layer}"
            x = self.f(layer, self.linear(layer, x, width))
        return x

    def core(self, x):
        """Through time in each column, from states of zeros."""
        size = self.policy["core_size"]
        names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
        shapes = [[4 * size, x.shape[1]], [4 * size, size], [4 * size], [4 * size]]
        weights = [self.weight(f"core.{name}", shape, 0.5) for name, shape in zip(names, shapes)]
        states = x.new_zeros(1, COLUMNS, size)
        steps = x.view(STEPS, COLUMNS, -1)
        out, *_ = torch.lstm(steps, (states, states), weights, True, 1, 0.0, False, False, False)
        return out.flatten(0, 1)

    def __call__(self, x):
        features = self.encoder("encoder", x)
        if "core" in self.policy:
            features = self.core(features)
        apart = not self.policy.get("shared_encoder", True)
        of_value = self.encoder("value_encoder", x) if apart else features
        return self.linear("policy", features, ACTIONS), self.linear("value", of_value, 1).squeeze(1)


def images(observations, space):
    """What the first layer sees, [N, C, H, W] or [N, I]."""
    shape = space["shape"]
    x = observations.view(-1, *shape) / (space["high"] if space["dtype"] == "u8" else 1)
    if len(shape) == 2:
        return x.unsqueeze(1)
    if len(shape) == 3 and shape[0] >= shape[2]:
        return x.permute(0, 3, 1, 2)
    return x


def case(described, rng):
    space, policy = described["space"], described["policy"]
    rows = STEPS * COLUMNS
    numbers = rows * int(np.prod(space["shape"]))
    if space["dtype"] == "u8":
        observations = torch.tensor(rng.integers(0, space["high"] + 1, numbers)).double()
    else:
        observations = single(rng.uniform(-1, 1, numbers))
    network = Network(policy, rng)
    distribution, values = network(images(observations, space))
    row_weights, value_weights = single(rng.normal(0, 1, (rows, ACTIONS))), single(rng.normal(0, 1, rows))
    ((distribution * row_weights).sum() + (values * value_weights).sum()).backward()
    return {
        **described,
        "observations": observations.long() if space["dtype"] == "u8" else observations,
        "parameters": {
            name: {"shape": list(p.shape), "data": p.detach().flatten(), "gradient": p.grad.flatten()}
            for name, p in network.parameters.items()
        },
        "row_weights": row_weights.flatten(),
        "value_weights": value_weights,
        "distribution": distribution.detach().flatten(),
        "values": values.detach(),
    }


if __name__ == "__main__":
    rng = np.random.default_rng(2018)
    write(FIXTURE, {"steps": STEPS, "columns": COLUMNS, "actions": ACTIONS, "cases": [case(c, rng) for c in CASES]})
