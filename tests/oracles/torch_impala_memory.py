"""Writes whole IMPALA updates of policies with memory: learner/tests/fixtures/torch_impala_lstm.json and _gru.json.

What torch_impala.py does, whose loss, updates and file these are, with a core (nn.LSTM or nn.GRU with 5 outputs)
between the encoder and the heads. It is stepped through t = 0..T from core_states, and its state is multiplied by 0
behind each step that ended an episode. A final observation is looked at from the state after the step that ended
its episode. To make them anew, from the repository root:

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 "numpy<2.3"
    venv/bin/python tests/oracles/torch_impala_memory.py

The batch of the file has one more entry: core_states [B, S], h and, for an LSTM, c after it.
"""

import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical

from torch_impala import CASES, DEFAULTS, FIXTURE, case
from torch_support import ACTIONS, B, HIDDEN, Network, T, make_batch, single, world, write

CORE = 5
NAMES = ["sum over the batch", "lambda, clips and costs apart"]


class Remembering(Network):
    """Takes the batch's observations, then its final observations, as `torch_impala.loss` asks."""

    def __init__(self, core, batch):
        super().__init__()
        self.policy, self.value = nn.Linear(CORE, ACTIONS), nn.Linear(CORE, 1)
        self.core = core(HIDDEN, CORE)
        self.batch, self.states = batch, None

    def step(self, x, state):
        """The core's states [N, S] after a step from `state` that saw x [N, 8]."""
        halves = tuple(half.contiguous().unsqueeze(0) for half in state.split(CORE, 1))
        _, after = self.core(x.unsqueeze(0), halves if len(halves) == 2 else halves[0])
        return torch.cat(after if len(halves) == 2 else [after], -1).squeeze(0)

    def forward(self, observations):
        x = observations
        for layer in self.encoder:
            x = torch.tanh(layer(x))
        if observations.dim() == 2:  # final observations, not steps
            states = self.step(x, self.states[:-1][self.batch["bootstrapped"]])
        else:
            ended = self.batch["terminated"] | self.batch["truncated"]
            state, states = self.batch["core_states"], []
            for t in range(T + 1):
                keep = (~ended[t - 1]).double()[:, None] if t > 0 else 1.0
                state = self.step(x[t], state * keep)
                states.append(state)
            states = torch.stack(states)
            self.states = states.detach()
        outputs = states[..., :CORE]
        return Categorical(logits=self.policy(outputs)), self.value(outputs).squeeze(-1)


def main():
    for name, core, halves in [("lstm", nn.LSTM, 2), ("gru", nn.GRU, 1)]:
        rng = np.random.default_rng(1997)
        batch = make_batch(rng)
        batch["core_states"] = single(rng.uniform(-0.5, 0.5, (B, halves * CORE)))
        network = Remembering(core, batch).double()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.copy_(single(rng.normal(0.0, 0.5, parameter.shape)))
        cases = [case(n, network, batch, {**DEFAULTS, **CASES[n]}) for n in NAMES]
        write(FIXTURE.with_name(f"torch_impala_{name}.json"), {**world(network, batch), "cases": cases})


if __name__ == "__main__":
    main()
