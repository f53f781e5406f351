"""Writes learner/tests/fixtures/torch_sac.json: targets, losses and gradients of SAC, computed by PyTorch.

Run with PyTorch installed: python tests/oracles/torch_sac.py
"""

import json
import math
import pathlib

import torch
from torch.distributions import Categorical, Normal, TanhTransform, TransformedDistribution

OUT = pathlib.Path(__file__).parents[2] / "learner/tests/fixtures/torch_sac.json"
N, INPUTS, HIDDEN = 6, 3, [8, 7]
GAMMA, ALPHA, SCALE = 0.97, 0.3, 0.5


def f32(*shape):
    """Random numbers that single precision holds exactly, in double precision."""
    return torch.randn(*shape).to(torch.float32).to(torch.float64)


def critic(widths):
    layers = []
    for inputs, outputs in zip(widths, widths[1:]):
        layers.append((f32(outputs, inputs) / math.sqrt(inputs), f32(outputs) * 0.1))
    return [(w.to(torch.float32).to(torch.float64), b.to(torch.float32).to(torch.float64)) for w, b in layers]


def forward(layers, x):
    for index, (weight, bias) in enumerate(layers):
        x = x @ weight.T + bias
        if index + 1 < len(layers):
            x = torch.relu(x)
    return x


def named(name, layers):
    tensors = {}
    for index, (weight, bias) in enumerate(layers):
        tensors[f"{name}.{index}.weight"] = weight.flatten().tolist()
        tensors[f"{name}.{index}.bias"] = bias.flatten().tolist()
    return tensors


def squashed(params, dimensions):
    normal = Normal(params[:, :dimensions], params[:, dimensions:].exp())
    # cache_size=1: the density of an action drawn is that of the u it came from.
    return TransformedDistribution(normal, [TanhTransform(cache_size=1)])


def draw(params, noise, dimensions):
    """The action and its log-density, with the noise given."""
    distribution = squashed(params, dimensions)
    u = params[:, :dimensions] + params[:, dimensions:].exp() * noise
    transform = distribution.transforms[0]
    action = transform(u)
    return action, distribution.log_prob(action).sum(1)


def masks(nvec, rows):
    """Flags of legal alternatives, at least one of each choice."""
    flags = torch.rand(rows, sum(nvec)) < 0.6
    for start in [sum(nvec[:choice]) for choice in range(len(nvec))]:
        flags[:, start] = True
    return flags


class Choices:
    """Independent choices by the logits [N, sum(nvec)], of which only those with a flag are possible."""

    def __init__(self, logits, nvec, flags):
        logits = logits if flags is None else logits.masked_fill(~flags, -math.inf)
        self.parts = [Categorical(logits=part) for part in logits.split(nvec, 1)]
        self.actions = torch.cartesian_prod(*[torch.arange(n) for n in nvec]).view(-1, len(nvec))

    def log_probs(self):
        """[N, joint actions], the last choice fastest."""
        return sum(part.logits[:, chosen] for part, chosen in zip(self.parts, self.actions.T))

    def expectation(self, f):
        """Of f(log-probability) [N, joint actions]."""
        log_probs = self.log_probs()
        possible = log_probs > -math.inf
        safe = log_probs.masked_fill(~possible, 0.0)
        return (possible * safe.exp() * f(safe)).sum(1)

    def entropy(self):
        return self.expectation(lambda log_probs: -log_probs)


def case(kind, nvec=(4,), masked=False):
    dimensions = 2
    nvec = list(nvec)
    alternatives = math.prod(nvec)
    continuous = kind == "continuous"
    widths = [INPUTS + (dimensions if continuous else 0), *HIDDEN, 1 if continuous else alternatives]
    twins, slow = [critic(widths), critic(widths)], [critic(widths), critic(widths)]
    observations, next_observations = f32(N, INPUTS), f32(N, INPUTS)
    width = 2 * dimensions if continuous else sum(nvec)
    params, next_params = (f32(N, width) * 0.5).float().double(), (f32(N, width) * 0.5).float().double()
    noise, next_noise = f32(N, dimensions), f32(N, dimensions)
    rewards, terminated = f32(N), (torch.arange(N) % 3 == 1).double()
    actions = f32(N, dimensions) if continuous else torch.randint(0, alternatives, (N,))
    flags, next_flags = (masks(nvec, N), masks(nvec, N)) if masked else (None, None)

    # Targets.
    if continuous:
        action, log_prob = draw(next_params, next_noise, dimensions)
        x = torch.cat([next_observations, action], 1)
        value = torch.minimum(forward(slow[0], x), forward(slow[1], x)).squeeze(1) - ALPHA * log_prob
    else:
        policy = Choices(next_params, nvec, next_flags)
        q = torch.minimum(forward(slow[0], next_observations), forward(slow[1], next_observations))
        value = policy.expectation(lambda log_probs: q - ALPHA * log_probs)
    targets = SCALE * rewards + GAMMA * (1 - terminated) * value

    # Critics.
    leaves = [tensor.requires_grad_() for layers in twins for pair in layers for tensor in pair]
    if continuous:
        x = torch.cat([observations, torch.tanh(actions)], 1)
        q1, q2 = (forward(layers, x).squeeze(1) for layers in twins)
    else:
        q1, q2 = (forward(layers, observations).gather(1, actions[:, None]).squeeze(1) for layers in twins)
    critic_loss = 0.5 * ((q1 - targets) ** 2).mean() + 0.5 * ((q2 - targets) ** 2).mean()
    gradients = torch.autograd.grad(critic_loss, leaves)
    pairs = list(zip(gradients[::2], gradients[1::2]))
    layers = len(widths) - 1

    # Policy.
    params.requires_grad_()
    if continuous:
        action, log_prob = draw(params, noise, dimensions)
        x = torch.cat([observations, action], 1)
        q = torch.minimum(forward(twins[0], x), forward(twins[1], x)).squeeze(1)
        policy_loss = (ALPHA * log_prob - q).mean()
        entropy = -log_prob.mean()
    else:
        policy = Choices(params, nvec, flags)
        q = torch.minimum(forward(twins[0], observations), forward(twins[1], observations)).detach()
        policy_loss = policy.expectation(lambda log_probs: ALPHA * log_probs - q).mean()
        entropy = policy.entropy().mean()
    (d_params,) = torch.autograd.grad(policy_loss, params)

    flat = lambda tensor: tensor.detach().flatten().tolist()
    return {
        "kind": kind,
        "rows": N,
        "inputs": INPUTS,
        "hidden": HIDDEN,
        "actions_len": dimensions,
        "gamma": GAMMA,
        "alpha": ALPHA,
        "reward_scale": SCALE,
        "critics": {**named("critic.0", twins[0]), **named("critic.1", twins[1])},
        "slow": {**named("critic.0", slow[0]), **named("critic.1", slow[1])},
        "observations": flat(observations),
        "next_observations": flat(next_observations),
        "params": flat(params),
        "next_params": flat(next_params),
        "noise": flat(noise) if continuous else [],
        "next_noise": flat(next_noise) if continuous else [],
        "rewards": flat(rewards),
        "terminated": [int(x) for x in terminated],
        "nvec": [] if continuous else nvec,
        "masks": flat(flags.int()) if masked else [],
        "next_masks": flat(next_flags.int()) if masked else [],
        "actions": flat(actions.double() if continuous else policy.actions[actions].double()),
        "targets": flat(targets),
        "critic_loss": critic_loss.item(),
        "d_critics": {**named("critic.0", pairs[:layers]), **named("critic.1", pairs[layers:])},
        "policy_loss": policy_loss.item(),
        "entropy": entropy.item(),
        "d_params": flat(d_params),
    }


def main():
    torch.manual_seed(20)
    cases = [case("continuous"), case("discrete"), case("discrete", nvec=(2, 3))]
    cases += [case("discrete", masked=True), case("discrete", nvec=(3, 2, 2), masked=True)]
    OUT.write_text(json.dumps({"torch": torch.__version__, "cases": cases}, indent=1) + "\n")


main()
