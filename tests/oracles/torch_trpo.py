"""Writes learner/tests/fixtures/torch_trpo.json: whole updates of TRPO as PyTorch computes them.

From one batch and given weights, for discrete and for continuous actions: what each of two updates reports, and the
weights after them. To make it anew, from the repository root (Python 3.11 or later):

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 numpy==2.2.6
    venv/bin/python tests/oracles/torch_trpo.py

Inputs are exact in float32; everything is computed in float64. Batch and ends of episodes: torch_support.py; its network,
with two hidden layers of the value's own. An update, with advantages and targets by GAE from V before it:

    policy      maximises L = mean(pi(a|x) / mu(a|x) A): x = (F + damping I)^-1 dL/dtheta by conjugate gradients, where F v
                is the second derivative of mean KL(pi_old, pi) at pi_old, by differentiating twice, times v;
                theta += s x, the first s of sqrt(2 max_kl / (x (F + damping I) x)) decay^i for which L has risen and
                mean KL(pi_old, pi) <= max_kl; none if there is none
    value       value_steps steps of torch.optim.Adam against mean(0.5 (target - V)^2)

Layout (arrays nested, C order): as torch_policy_gradient.json, without orders; `updates` has what is reported.
"""

import pathlib

import numpy as np
import torch
from torch import nn
from torch.distributions import kl_divergence

from torch_policy_gradient import explained_variance, gae, normalized
from torch_support import HIDDEN, OBSERVATION, Network, cut_episodes, flat, make_batch, single, world, write

FIXTURE = pathlib.Path(__file__).parents[2] / "learner/tests/fixtures/torch_trpo.json"

UPDATES = 2
OPTIMIZER = {"learning_rate": 0.05, "beta1": 0.9, "beta2": 0.999, "epsilon": 0.1, "max_grad_norm": 0.0}
TRPO = {
    "name": "trpo",
    "gamma": 0.99,
    "lambda": 0.95,
    "max_kl": 0.02,
    "cg_iterations": 4,
    "cg_damping": 0.1,
    "line_search_steps": 10,
    "line_search_decay": 0.8,
    "value_steps": 5,
    "normalize_advantages": True,
    "reward_scale": 1.0,
    "reward_clip": 0.0,
}
CASES = [
    ("small step", "discrete", {}),
    ("small step", "continuous", {}),
    ("long step, shortened", "discrete", {"max_kl": 0.5, "normalize_advantages": False}),
    ("long step, shortened", "continuous", {"max_kl": 0.5, "line_search_decay": 0.5}),
    ("one iteration", "discrete", {"cg_iterations": 1, "cg_damping": 0.5, "lambda": 1.0}),
    ("one try", "discrete", {"max_kl": 2.0, "line_search_steps": 1, "reward_clip": 0.5}),
]


class Apart(Network):
    """Its value has hidden layers of its own."""

    def __init__(self, continuous):
        super().__init__(continuous)
        self.value_encoder = nn.ModuleList([nn.Linear(OBSERVATION, HIDDEN), nn.Linear(HIDDEN, HIDDEN)])

    def forward(self, observations):
        distribution, _ = super().forward(observations)
        x = observations
        for layer in self.value_encoder:
            x = torch.tanh(layer(x))
        return distribution, self.value(x).squeeze(-1)


class Learner:
    def __init__(self, parameters, continuous, config):
        self.network = Apart(continuous).double()
        self.network.load_state_dict(parameters)
        self.config = config
        named = self.network.named_parameters()
        self.policy = [parameter for name, parameter in named if not name.startswith("value")]
        betas = (OPTIMIZER["beta1"], OPTIMIZER["beta2"])
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=OPTIMIZER["learning_rate"], betas=betas, eps=OPTIMIZER["epsilon"]
        )

    def distribution(self, batch):
        return self.network(batch["observations"][:-1])[0]

    def surrogate(self, batch, advantages):
        log_probs = self.distribution(batch).log_prob(batch["actions"])
        return ((log_probs - batch["behaviour_log_probs"]).exp() * advantages).mean()

    def gradient(self, of, **how):
        return torch.cat([g.flatten() for g in torch.autograd.grad(of, self.policy, **how)])

    def fisher_product(self, batch, v):
        now = self.distribution(batch)
        fixed = [tensor.detach() for tensor in (now.logits,)] if hasattr(now, "logits") else None
        if fixed:
            old = torch.distributions.Categorical(logits=fixed[0])
        else:
            normal = torch.distributions.Normal(now.mean.detach(), now.stddev.detach())
            old = torch.distributions.Independent(normal, 1)
        slope = self.gradient(kl_divergence(old, now).mean(), create_graph=True)
        return self.gradient(slope @ v) + self.config["cg_damping"] * v

    def solve(self, batch, b):
        x, residual, direction = torch.zeros_like(b), b.clone(), b.clone()
        squared = start = b @ b
        for _ in range(self.config["cg_iterations"]):
            if squared <= start * 1e-10:
                break
            along = self.fisher_product(batch, direction)
            step = squared / (direction @ along)
            x, residual = x + step * direction, residual - step * along
            squared, before = residual @ residual, squared
            direction = residual + squared / before * direction
        return x, (squared / start).sqrt()

    @torch.no_grad()
    def move(self, start, direction, step):
        moved, at = start + step * direction, 0
        for parameter in self.policy:
            parameter.copy_(moved[at : at + parameter.numel()].view_as(parameter))
            at += parameter.numel()

    def improve(self, batch, advantages):
        config = self.config
        with torch.no_grad():
            old, before = self.distribution(batch), self.surrogate(batch, advantages)
        slope = self.gradient(self.surrogate(batch, advantages))
        x, residual = self.solve(batch, slope)
        longest = float((2 * config["max_kl"] / (x @ self.fisher_product(batch, x))).sqrt())
        start = torch.cat([parameter.detach().flatten() for parameter in self.policy])
        taken = kl = 0.0
        for tries in range(1, config["line_search_steps"] + 1):
            step = longest * config["line_search_decay"] ** (tries - 1)
            self.move(start, x, step)
            with torch.no_grad():
                kl = float(kl_divergence(old, self.distribution(batch)).mean())
                if kl <= config["max_kl"] and self.surrogate(batch, advantages) > before:
                    taken = step
                    break
        else:
            self.move(start, x, 0.0)
            kl = 0.0
        with torch.no_grad():
            return {
                "grad_norm": float(slope.norm()),
                "cg_residual": float(residual),
                "line_search_steps": tries,
                "step_size": taken,
                "kl": kl,
                "entropy": float(self.distribution(batch).entropy().mean()),
                "policy_loss": -float(self.surrogate(batch, advantages)),
            }

    def fit_values(self, batch, returns):
        report = {}
        for _ in range(self.config["value_steps"]):
            self.optimizer.zero_grad()
            _, values = self.network(batch["observations"][:-1])
            loss = (0.5 * (returns - values) ** 2).mean()
            report = report or {
                "value_loss": float(loss.detach()),
                "mean_value": float(values.detach().mean()),
                "explained_variance": float(explained_variance(values.detach(), returns)),
            }
            loss.backward()
            self.optimizer.step()
        return report

    def update(self, batch):
        with torch.no_grad():
            _, values = self.network(batch["observations"])
            rewards, discounts, _ = cut_episodes(self.network, batch, self.config)
            advantages = gae(discounts, rewards, values, self.config["lambda"])
        returns = advantages + values[:-1]
        if self.config["normalize_advantages"]:
            advantages = normalized(advantages)
        return {**self.improve(batch, advantages), **self.fit_values(batch, returns)}


def main():
    worlds, cases = {}, []
    inputs = {}
    for name, seed in [("discrete", 11), ("continuous", 12)]:
        rng = np.random.default_rng(seed)
        network = Apart(name == "continuous").double()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.copy_(single(rng.normal(0.0, 0.5, parameter.shape)))
        batch = make_batch(rng, name == "continuous")
        inputs[name] = (network.state_dict(), batch)
        worlds[name] = world(network, batch)
    for name, where, changes in CASES:
        parameters, batch = inputs[where]
        learner = Learner(parameters, where == "continuous", {**TRPO, **changes})
        updates = [learner.update(batch) for _ in range(UPDATES)]
        cases.append(
            {
                "name": name,
                "world": where,
                "algorithm": learner.config,
                "optimizer": OPTIMIZER,
                "updates": updates,
                "parameters_after": flat(dict(learner.network.named_parameters())),
            }
        )
    write(FIXTURE, {"worlds": worlds, "cases": cases})


if __name__ == "__main__":
    main()
