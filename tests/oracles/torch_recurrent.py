"""Writes what PyTorch's nn.LSTM and nn.GRU compute for sequences with resets and branches, to check ours against.

    pip install torch==2.15.0 "numpy<2.3"
    python tests/oracles/torch_recurrent.py

The result, `common/tests/fixtures/torch_recurrent.json`, is read by `common/tests/recurrent_oracle.rs`.
PyTorch computes in float64 here, from inputs that are exact in float32.

A layer is stepped through a sequence [L, B] one step at a time; before a step whose reset is 1 the state is
multiplied by 0. Branches are single steps after that, each from the state after one of the steps (before any
reset). The gradients are those of sum(outputs * weights), the initial state being a constant.

    cell, inputs, size, length, columns   what the layer is, I, H, L, B
    x                   [L * B + K, I]: inputs of the steps, then of the branches
    resets              [L, B]
    initial             [B, S]: h, for an LSTM followed by c
    branches            [K]: the step t * B + b that each goes on from
    weights             [L * B + K, H]
    parameters          weight_ih, weight_hh, bias_ih, bias_hh, flat
    outputs             [L * B + K, H]
    final_states        [B, S] after the last step
    gradients           x and the four parameters, flat
"""

import json
import pathlib
import re

import torch
from torch import nn

FIXTURE = pathlib.Path(__file__).parents[2] / "common" / "tests" / "fixtures" / "torch_recurrent.json"

torch.manual_seed(1997_1406)


def random(*shape, scale=1.0):
    """Normal numbers that float32 holds exactly, as float64."""
    return (torch.randn(*shape) * scale).to(torch.float32).to(torch.float64)


def numbers(tensor):
    return [float(f"{x:.10g}") for x in tensor.detach().reshape(-1).tolist()]


def case(cell, inputs, size, length, columns, branches):
    layer = (nn.LSTM if cell == "lstm" else nn.GRU)(inputs, size).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(random(*parameter.shape, scale=0.5))
    x = random(length * columns + len(branches), inputs).requires_grad_()
    resets = (torch.rand(length, columns) < 0.25).to(torch.int64)
    initial = random(columns, (2 if cell == "lstm" else 1) * size)

    def step(rows, state):
        """One step of `layer` for rows [N, I] from states [N, S]: the states after it."""
        halves = [half.contiguous().unsqueeze(0) for half in state.split(size, dim=1)]
        _, after = layer(rows.unsqueeze(0), tuple(halves) if cell == "lstm" else halves[0])
        return torch.cat([half.squeeze(0) for half in (after if cell == "lstm" else [after])], dim=1)

    states, state = [], initial
    for t in range(length):
        keep = (1 - resets[t]).to(torch.float64).unsqueeze(1)
        state = step(x[t * columns : (t + 1) * columns], state * keep)
        states.append(state)
    every = torch.cat(states)
    if branches:
        every = torch.cat([every, step(x[length * columns :], every[branches])])
    outputs = every[:, :size]
    weights = random(*outputs.shape)
    parameters = {name.removesuffix("_l0"): p for name, p in layer.named_parameters()}
    gradients = torch.autograd.grad((outputs * weights).sum(), [x, *parameters.values()])
    return {
        "cell": cell,
        "inputs": inputs,
        "size": size,
        "length": length,
        "columns": columns,
        "x": numbers(x),
        "resets": resets.reshape(-1).tolist(),
        "initial": numbers(initial),
        "branches": branches,
        "weights": numbers(weights),
        "parameters": {name: numbers(p) for name, p in parameters.items()},
        "outputs": numbers(outputs),
        "final_states": numbers(state),
        "gradients": {name: numbers(g) for name, g in zip(["x", *parameters], gradients)},
    }


def main():
    cases = [
        case(cell, inputs, size, length, columns, branches)
        for cell in ["lstm", "gru"]
        for inputs, size, length, columns, branches in [
            (1, 1, 3, 1, []),
            (3, 5, 6, 3, [2, 7, 7, 17]),
            (4, 17, 5, 4, [0, 19]),
        ]
    ]
    fixture = {"torch": torch.__version__.split("+")[0], "cases": cases}
    # One array of numbers a line: a change of the file can be read.
    text = json.dumps(fixture, indent=1)
    text = re.sub(r"\[[^][{}]*\]", lambda array: " ".join(array[0].split()), text)
    FIXTURE.write_text(text + "\n")


if __name__ == "__main__":
    main()
