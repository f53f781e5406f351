"""Writes learner/tests/fixtures/torch_impala.json: whole IMPALA updates as PyTorch computes them.

From one batch and given weights: losses, the gradient of every parameter, and the weights after three
updates. To make it anew, from the repository root (Python 3.11):

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 "numpy<2.3"
    venv/bin/python tests/oracles/torch_impala.py

Inputs are exact in float32; everything is computed in float64.

The network: observation [4] -> encoder.0 [8] -> tanh -> encoder.1 [8] -> tanh -> policy [3] (logits of a
categorical distribution) and value [1].

Episode ends, at step t of column b, with r_t clipped to [-1, 1] first where the case says so:

    running                     reward r_t                              discount gamma
    terminated                  reward r_t                              discount 0
    truncated, not terminated   reward r_t + gamma * V(final_obs)       discount 0

V(final_obs) is taken under the current parameters, without a gradient. `observations[t + 1]` behind either
end is the first observation of the next episode. A step that is both counts as terminated.

The loss, V-trace (rlax's, see `vtrace` below) without a gradient, pi_t and V_t from observations[t]:

    policy_loss   = reduce(-pg_advantages * log pi_t(action_t))
    baseline_loss = reduce(0.5 * (vs - V_t)^2)
    entropy       = reduce(-sum_a pi_t(a) * log pi_t(a))
    total_loss    = policy_loss + baseline_cost * baseline_loss - entropy_cost * entropy

where reduce sums over [T, B], or averages over T * B. An update clips the gradients as
torch.nn.utils.clip_grad_norm_ does (times min(1, max_norm / (norm + 1e-6))) and applies torch.optim.RMSprop
(s = alpha * s + (1 - alpha) * g^2, w -= lr * g / (sqrt(s) + eps), no momentum, not centered). The three
updates use the same batch; V-trace and V(final_obs) are computed anew before each.

Layout (arrays nested, C order):

    torch, numpy        versions that wrote the file
    parameter_names     the order of the parameters
    parameters          name -> {shape, data}: weights [out, in] and biases [out], data flat
    batch
      time, batch       T, B
      observations      [T + 1, B, 4]
      actions           [T, B], 0..2
      rewards           [T, B]
      behaviour_log_probs [T, B], log mu(action)
      terminated        [T, B], booleans
      truncated         [T, B], booleans
      final_observations  list of {t, b, observation [4]}: one for each step that is truncated and not
                        terminated, ordered by t, then b
    cases[]
      name              what the case is about
      config            reduction ("sum" | "mean"), gamma, baseline_cost, entropy_cost, reward_clip (null or
                        1.0), lambda, clip_rho, clip_pg_rho, clip_c, learning_rate, alpha, eps, max_grad_norm
      values            [T + 1, B], V under the given parameters
      final_values      V of the final observations, in their order
      log_probs         [T, B], log pi_t(action_t)
      rewards           [T, B], as V-trace gets them (clipped, bootstrapped)
      discounts         [T, B]
      vs, pg_advantages [T, B]
      gradients         name -> {shape, data}, before clipping, of the first update
      updates[3]        policy_loss, baseline_loss, entropy, total_loss, grad_norm (global, before
                        clipping), each before the update it belongs to
      parameters_after  name -> {shape, data}, after the third update
"""

import json
import pathlib
import re

import numpy as np
import torch
from torch import nn

FIXTURE = pathlib.Path(__file__).parents[2] / "learner/tests/fixtures/torch_impala.json"

T, B, OBSERVATION, HIDDEN, ACTIONS = 5, 4, 4, 8, 3
TERMINATED = [(1, 0), (3, 2), (4, 3)]
TRUNCATED = [(2, 1), (0, 2), (4, 2), (3, 2)]  # (3, 2) is both; (4, 2) ends the unroll
UPDATES = 3

DEFAULTS = {
    "reduction": "sum",
    "gamma": 0.99,
    "baseline_cost": 0.5,
    "entropy_cost": 0.01,
    "reward_clip": None,
    "lambda": 1.0,
    "clip_rho": 1.0,
    "clip_pg_rho": 1.0,
    "clip_c": 1.0,
    "learning_rate": 0.0006,
    "alpha": 0.99,
    "eps": 0.01,
    "max_grad_norm": 40.0,
}
CASES = {
    "sum over the batch": {},
    "mean over the batch": {"reduction": "mean", "learning_rate": 0.01},
    "clipped rewards": {"reward_clip": 1.0},
    "a gradient norm that bites": {"max_grad_norm": 0.5, "learning_rate": 0.005},
    "lambda, clips and costs apart": {
        "gamma": 0.9,
        "baseline_cost": 0.25,
        "entropy_cost": 0.1,
        "lambda": 0.9,
        "clip_rho": 1.2,
        "clip_pg_rho": 0.8,
        "clip_c": 0.9,
    },
}


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.ModuleList([nn.Linear(OBSERVATION, HIDDEN), nn.Linear(HIDDEN, HIDDEN)])
        self.policy = nn.Linear(HIDDEN, ACTIONS)
        self.value = nn.Linear(HIDDEN, 1)

    def forward(self, observations):
        """[..., 4] -> log-probabilities of the actions [..., 3] and values [...]."""
        x = observations
        for layer in self.encoder:
            x = torch.tanh(layer(x))
        return torch.log_softmax(self.policy(x), -1), self.value(x).squeeze(-1)


def vtrace(log_rhos, discounts, rewards, values, config):
    """Targets and advantages [T, B]; `values` is [T + 1, B]."""
    rhos = log_rhos.exp()
    cs = config["lambda"] * rhos.clamp(max=config["clip_c"])
    deltas = rhos.clamp(max=config["clip_rho"]) * (rewards + discounts * values[1:] - values[:-1])
    vs = [values[-1]]
    for t in reversed(range(T)):
        vs.insert(0, values[t] + deltas[t] + discounts[t] * cs[t] * (vs[0] - values[t + 1]))
    vs = torch.stack(vs)
    q = rewards + discounts * (config["lambda"] * vs[1:] + (1 - config["lambda"]) * values[1:])
    return vs[:-1], rhos.clamp(max=config["clip_pg_rho"]) * (q - values[:-1])


def single(x):
    """Rounds to float32 and returns to float64, so that a reader in float32 has the same input."""
    return torch.tensor(np.asarray(x), dtype=torch.float32).double()


def flags(at):
    result = torch.zeros(T, B, dtype=torch.bool)
    for t, b in at:
        result[t, b] = True
    return result


def make_network(rng):
    network = Network().double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(single(rng.normal(0.0, 0.5, parameter.shape)))
    return network


def make_batch(rng):
    # The behaviour policy is not the network: the ratios lie on both sides of the clips.
    logits = torch.tensor(rng.normal(0.0, 1.0, (T, B, ACTIONS)))
    actions = torch.tensor(rng.integers(0, ACTIONS, (T, B)))
    log_probs = torch.log_softmax(logits, -1).gather(-1, actions[..., None]).squeeze(-1)
    terminated, truncated = flags(TERMINATED), flags(TRUNCATED)
    bootstrapped = truncated & ~terminated
    return {
        "observations": single(rng.normal(0.0, 1.0, (T + 1, B, OBSERVATION))),
        "actions": actions,
        "rewards": single(rng.normal(0.0, 1.5, (T, B))),
        "behaviour_log_probs": single(log_probs),
        "terminated": terminated,
        "truncated": truncated,
        "bootstrapped": bootstrapped,
        "final_observations": single(rng.normal(0.0, 1.0, (int(bootstrapped.sum()), OBSERVATION))),
    }


def loss(network, batch, config):
    """The loss and its parts, and what they were made of."""
    log_policy, values = network(batch["observations"])
    log_policy, baseline = log_policy[:-1], values[:-1]
    log_probs = log_policy.gather(-1, batch["actions"][..., None]).squeeze(-1)

    with torch.no_grad():
        _, final_values = network(batch["final_observations"])
        rewards = batch["rewards"].clone()
        if config["reward_clip"] is not None:
            rewards.clamp_(-config["reward_clip"], config["reward_clip"])
        rewards[batch["bootstrapped"]] += config["gamma"] * final_values
        ended = batch["terminated"] | batch["truncated"]
        discounts = torch.where(ended, 0.0, config["gamma"]).double()
        log_rhos = log_probs - batch["behaviour_log_probs"]
        vs, pg_advantages = vtrace(log_rhos, discounts, rewards, values, config)

    reduce = torch.sum if config["reduction"] == "sum" else torch.mean
    parts = {
        "policy_loss": reduce(-pg_advantages * log_probs),
        "baseline_loss": reduce(0.5 * (vs - baseline) ** 2),
        "entropy": reduce(-(log_policy.exp() * log_policy).sum(-1)),
    }
    parts["total_loss"] = (
        parts["policy_loss"]
        + config["baseline_cost"] * parts["baseline_loss"]
        - config["entropy_cost"] * parts["entropy"]
    )
    made_of = {
        "values": values,
        "final_values": final_values,
        "log_probs": log_probs,
        "rewards": rewards,
        "discounts": discounts,
        "vs": vs,
        "pg_advantages": pg_advantages,
    }
    return parts, made_of


def case(name, parameters, batch, config):
    network = Network().double()
    network.load_state_dict(parameters)
    optimizer = torch.optim.RMSprop(
        network.parameters(), lr=config["learning_rate"], alpha=config["alpha"], eps=config["eps"], momentum=0
    )
    first, gradients, updates = None, None, []
    for _ in range(UPDATES):
        parts, made_of = loss(network, batch, config)
        optimizer.zero_grad()
        parts["total_loss"].backward()
        if first is None:
            first = made_of
            gradients = {name: p.grad.clone() for name, p in network.named_parameters()}
        norm = nn.utils.clip_grad_norm_(network.parameters(), config["max_grad_norm"])
        optimizer.step()
        updates.append({**parts, "grad_norm": norm})
    return {
        "name": name,
        "config": config,
        **first,
        "gradients": flat(gradients),
        "updates": updates,
        "parameters_after": flat(dict(network.named_parameters())),
    }


def flat(tensors):
    return {
        name: {"shape": list(tensor.shape), "data": tensor.detach().flatten()}
        for name, tensor in tensors.items()
    }


def plain(x):
    """Numbers and tensors as JSON has them, nine digits each: enough to tell float32s apart."""
    if isinstance(x, dict):
        return {key: plain(value) for key, value in x.items()}
    if isinstance(x, list):
        return [plain(value) for value in x]
    if isinstance(x, torch.Tensor):
        assert x.dtype in (torch.float64, torch.int64, torch.bool) and x.isfinite().all(), x
        return plain(x.tolist())
    if isinstance(x, float):
        return float(f"{x:.9g}")
    return x


def main():
    rng = np.random.default_rng(1802_01561)
    network, batch = make_network(rng), make_batch(rng)
    parameters = {name: p.detach().clone() for name, p in network.named_parameters()}
    at = batch["bootstrapped"].nonzero().tolist()
    finals = [{"t": t, "b": b, "observation": o} for (t, b), o in zip(at, batch["final_observations"])]
    inputs = {key: value for key, value in batch.items() if key != "bootstrapped"}
    fixture = {
        "torch": torch.__version__.split("+")[0],
        "numpy": np.__version__,
        "parameter_names": list(parameters),
        "parameters": flat(parameters),
        "batch": {"time": T, "batch": B, **inputs, "final_observations": finals},
        "cases": [case(name, parameters, batch, {**DEFAULTS, **changes}) for name, changes in CASES.items()],
    }
    # One array of numbers a line: a change of the file can be read.
    text = json.dumps(plain(fixture), indent=1)
    text = re.sub(r"\[[^][{}]*\]", lambda array: " ".join(array[0].split()), text)
    FIXTURE.write_text(text + "\n")


if __name__ == "__main__":
    main()
