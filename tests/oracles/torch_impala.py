"""Writes learner/tests/fixtures/torch_impala.json: whole IMPALA updates as PyTorch computes them.

From one batch and given weights: losses, the gradient of every parameter, and the weights after three
updates. To make it anew, from the repository root (Python 3.11):

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 "numpy<2.3"
    venv/bin/python tests/oracles/torch_impala.py

Inputs are exact in float32; everything is computed in float64.

Network, batch and the ends of episodes: torch_support.py.

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

import copy
import pathlib

import numpy as np
import torch
from torch import nn

from torch_support import cut_episodes, flat, make_batch, make_network, vtrace, world, write

FIXTURE = pathlib.Path(__file__).parents[2] / "learner/tests/fixtures/torch_impala.json"

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


def loss(network, batch, config):
    """The loss and its parts, and what they were made of."""
    policy, values = network(batch["observations"])
    baseline = values[:-1]
    log_policy = policy.logits[:-1]
    log_probs = log_policy.gather(-1, batch["actions"][..., None]).squeeze(-1)

    with torch.no_grad():
        rewards, discounts, final_values = cut_episodes(network, batch, config)
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


def case(name, network, batch, config):
    """Three updates of a copy of `network`."""
    network = copy.deepcopy(network)
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


def main():
    rng = np.random.default_rng(1802_01561)
    network, batch = make_network(rng), make_batch(rng)
    cases = [case(name, network, batch, {**DEFAULTS, **changes}) for name, changes in CASES.items()]
    write(FIXTURE, {**world(network, batch), "cases": cases})


if __name__ == "__main__":
    main()
