"""What the scripts share that compute whole updates with PyTorch: the network, the batch, V-trace, the file.

The network: observation [4] -> encoder.0 [8] -> tanh -> encoder.1 [8] -> tanh -> policy and value [1]. The policy
head gives the logits of a categorical distribution over 3 actions, or the means of 2 normal ones whose log
standard deviations are the free parameter policy.log_std.

Episode ends, at step t of column b, with r_t scaled and clipped first where the case says so:

    running                     reward r_t                              discount gamma
    terminated                  reward r_t                              discount 0
    truncated, not terminated   reward r_t + gamma * V(final_obs)       discount 0

V(final_obs) is taken under the current parameters, without a gradient. `observations[t + 1]` behind either
end is the first observation of the next episode. A step that is both counts as terminated.
"""

import json
import re

import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical, Independent, Normal

T, B, OBSERVATION, HIDDEN, ACTIONS, DIMENSIONS = 5, 4, 4, 8, 3, 2
TERMINATED = [(1, 0), (3, 2), (4, 3)]
TRUNCATED = [(2, 1), (0, 2), (4, 2), (3, 2)]  # (3, 2) is both; (4, 2) ends the unroll


class Network(nn.Module):
    def __init__(self, continuous=False):
        super().__init__()
        self.encoder = nn.ModuleList([nn.Linear(OBSERVATION, HIDDEN), nn.Linear(HIDDEN, HIDDEN)])
        self.policy = nn.Linear(HIDDEN, DIMENSIONS if continuous else ACTIONS)
        self.value = nn.Linear(HIDDEN, 1)
        if continuous:
            self.policy.log_std = nn.Parameter(torch.zeros(DIMENSIONS))

    def forward(self, observations):
        """[..., 4] -> the distribution over actions and values [...]."""
        x = observations
        for layer in self.encoder:
            x = torch.tanh(layer(x))
        row = self.policy(x)
        if hasattr(self.policy, "log_std"):
            distribution = Independent(Normal(row, self.policy.log_std.exp()), 1)
        else:
            distribution = Categorical(logits=row)
        return distribution, self.value(x).squeeze(-1)


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


def make_network(rng, continuous=False):
    network = Network(continuous).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(single(rng.normal(0.0, 0.5, parameter.shape)))
    return network


def make_batch(rng, continuous=False):
    # The behaviour policy is not the network: the ratios lie on both sides of the clips.
    if continuous:
        behaviour = Independent(Normal(torch.tensor(rng.normal(0.0, 1.0, (T, B, DIMENSIONS))), 1.0), 1)
        actions = behaviour.mean + torch.tensor(rng.normal(0.0, 1.0, (T, B, DIMENSIONS)))
        actions = single(actions)
    else:
        behaviour = Categorical(logits=torch.tensor(rng.normal(0.0, 1.0, (T, B, ACTIONS))))
        actions = torch.tensor(rng.integers(0, ACTIONS, (T, B)))
    log_probs = behaviour.log_prob(actions)
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


def cut_episodes(network, batch, config):
    """Rewards and discounts [T, B] with episodes cut, and the values of the final observations."""
    _, final_values = network(batch["final_observations"])
    rewards = batch["rewards"] * (config.get("reward_scale") or 1.0)
    if config["reward_clip"]:
        rewards = rewards.clamp(-config["reward_clip"], config["reward_clip"])
    rewards = rewards.clone()
    rewards[batch["bootstrapped"]] += config["gamma"] * final_values
    ended = batch["terminated"] | batch["truncated"]
    return rewards, torch.where(ended, 0.0, config["gamma"]).double(), final_values


def world(network, batch):
    """Parameters and batch as the fixture holds them."""
    at = batch["bootstrapped"].nonzero().tolist()
    finals = [{"t": t, "b": b, "observation": o} for (t, b), o in zip(at, batch["final_observations"])]
    inputs = {key: value for key, value in batch.items() if key != "bootstrapped"}
    parameters = dict(network.named_parameters())
    return {
        "parameter_names": list(flat(parameters)),
        "parameters": flat(parameters),
        "batch": {"time": T, "batch": B, **inputs, "final_observations": finals},
    }


def flat(tensors):
    """Recurrent layers have one level here, so that its number is left out of their parameters' names."""
    return {
        name.removesuffix("_l0"): {"shape": list(tensor.shape), "data": tensor.detach().flatten()}
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


def write(path, fixture):
    """One array of numbers a line: a change of the file can be read."""
    versions = {"torch": torch.__version__.split("+")[0], "numpy": np.__version__}
    text = json.dumps(plain({**versions, **fixture}), indent=1)
    text = re.sub(r"\[[^][{}]*\]", lambda array: " ".join(array[0].split()), text)
    path.write_text(text + "\n")
