"""Writes what PyTorch computes for the policy's numerics, to check ours against.

Covers `torch.distributions` (categorical, independent categoricals, the same with masked logits, diagonal normal, the
same squashed by a hyperbolic tangent, the marginal normal of generalised state-dependent exploration): log-probability, entropy, KL divergence and the gradient of a weighted sum; dense layers forward and
backward; RMSprop and Adam steps.

    pip install torch==2.15.0 "numpy<2.3"
    python tests/oracles/torch_distributions.py

The result, `common/tests/fixtures/torch_distributions.json`, is read by `common/tests/torch_oracle.rs`.
PyTorch computes in float64 here, from inputs that are exact in float32: the fixture is the truth to which
float32 kernels are compared.
"""

import json
import pathlib

import torch
from torch.distributions import (
    Categorical,
    Independent,
    Normal,
    TanhTransform,
    TransformedDistribution,
    kl_divergence,
)

torch.manual_seed(20_240_607)
FIXTURE = pathlib.Path(__file__).parents[2] / "common" / "tests" / "fixtures" / "torch_distributions.json"


def random(*shape, scale=1.0):
    """Normal numbers that float32 holds exactly, as float64."""
    return (torch.randn(*shape) * scale).to(torch.float32).to(torch.float64)


def numbers(tensor):
    return [float(f"{x:.12g}") for x in tensor.detach().reshape(-1).tolist()]


def weighted_gradient(params, log_prob, entropy, weights):
    loss = (torch.stack([log_prob, entropy], dim=1) * weights).sum()
    return torch.autograd.grad(loss, params)[0]


def categorical(nvec, rows, scale):
    params = random(rows, sum(nvec), scale=scale).requires_grad_()
    other = random(rows, sum(nvec), scale=scale)
    split = [Categorical(logits=logits) for logits in params.split(nvec, dim=1)]
    others = [Categorical(logits=logits) for logits in other.split(nvec, dim=1)]
    actions = torch.stack([torch.randint(n, (rows,)) for n in nvec], dim=1)
    log_prob = sum(d.log_prob(actions[:, i]) for i, d in enumerate(split))
    entropy = sum(d.entropy() for d in split)
    weights = random(rows, 2)
    return {
        "nvec": nvec,
        "params": numbers(params),
        "other": numbers(other),
        "actions": actions.reshape(-1).tolist(),
        "weights": numbers(weights),
        "log_prob": numbers(log_prob),
        "entropy": numbers(entropy),
        "kl": numbers(sum(kl_divergence(p, q) for p, q in zip(split, others))),
        "gradient": numbers(weighted_gradient(params, log_prob, entropy, weights)),
    }


def masked(nvec, rows):
    """A categorical over the legal alternatives alone: the illegal ones are not there, rather than at -inf."""
    params = random(rows, sum(nvec), scale=1.5).requires_grad_()
    masks = torch.stack([torch.cat([one_legal(n) for n in nvec]) for _ in range(rows)])
    log_probs, entropies, actions = [], [], []
    for row, mask in zip(params, masks):
        log_prob, entropy, action = 0, 0, []
        for logits, legal in zip(row.split(nvec), mask.split(nvec)):
            distribution = Categorical(logits=logits[legal.bool()])
            among_legal = torch.randint(int(legal.sum()), ())
            log_prob = log_prob + distribution.log_prob(among_legal)
            entropy = entropy + distribution.entropy()
            action.append(int(legal.nonzero()[among_legal]))
        log_probs.append(log_prob)
        entropies.append(entropy)
        actions += action
    log_prob, entropy = torch.stack(log_probs), torch.stack(entropies)
    weights = random(rows, 2)
    return {
        "nvec": nvec,
        "params": numbers(params),
        "masks": masks.reshape(-1).tolist(),
        "actions": actions,
        "weights": numbers(weights),
        "log_prob": numbers(log_prob),
        "entropy": numbers(entropy),
        "gradient": numbers(weighted_gradient(params, log_prob, entropy, weights)),
    }


def one_legal(n):
    """Random flags of which at least one is 1."""
    mask = torch.randint(2, (n,))
    mask[torch.randint(n, ())] = 1
    return mask


def normal(dimensions, rows):
    params = random(rows, 2 * dimensions, scale=0.8).requires_grad_()
    other = random(rows, 2 * dimensions, scale=0.8)

    def distribution(row):
        return Independent(Normal(row[:, :dimensions], row[:, dimensions:].exp()), 1)

    actions, weights = random(rows, dimensions, scale=1.5), random(rows, 2)
    log_prob, entropy = distribution(params).log_prob(actions), distribution(params).entropy()
    return {
        "dimensions": dimensions,
        "params": numbers(params),
        "other": numbers(other),
        "actions": numbers(actions),
        "weights": numbers(weights),
        "log_prob": numbers(log_prob),
        "entropy": numbers(entropy),
        "kl": numbers(kl_divergence(distribution(params), distribution(other))),
        "gradient": numbers(weighted_gradient(params, log_prob, entropy, weights)),
    }


def squashed(dimensions, rows, scale):
    """`actions` are those before the tangent. Entropy by numerical integration: torch has no form for it either."""
    params = random(rows, 2 * dimensions, scale=0.25).requires_grad_()
    other = random(rows, 2 * dimensions, scale=0.25)

    def base(row):
        return Independent(Normal(row[:, :dimensions], row[:, dimensions:].exp()), 1)

    def log_slope(u):
        return -2 * (torch.logaddexp(u, -u) - torch.log(torch.tensor(2.0, dtype=u.dtype)))

    actions, weights = random(rows, dimensions, scale=scale), random(rows, 2)
    log_prob = base(params).log_prob(actions) - log_slope(actions).sum(1)
    if scale < 3:  # beyond that tanh has lost what atanh would need
        squash = TransformedDistribution(base(params), [TanhTransform()])
        torch.testing.assert_close(squash.log_prob(actions.tanh()), log_prob)
    grid = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    weight = Normal(0.0, 1.0).log_prob(grid).exp()
    mean, std = params[:, :dimensions, None], params[:, dimensions:, None].exp()
    mean_log_slope = torch.trapezoid(log_slope(mean + std * grid) * weight, grid)
    entropy = base(params).entropy() + mean_log_slope.sum(1)
    return {
        "dimensions": dimensions,
        "params": numbers(params),
        "other": numbers(other),
        "actions": numbers(actions),
        "weights": numbers(weights),
        "log_prob": numbers(log_prob),
        "entropy": numbers(entropy),
        "kl": numbers(kl_divergence(base(params), base(other))),
        "gradient": numbers(weighted_gradient(params, log_prob, entropy, weights)),
    }


def gsde(rows, features, dimensions):
    """A policy without hidden layers: the observations are the features, and the means are linear in them."""
    phi = random(rows, features)
    weight = random(dimensions, features, scale=0.5).requires_grad_()
    log_std = random(features, dimensions, scale=0.7).requires_grad_()
    actions, weights = random(rows, dimensions, scale=1.5), random(rows, 2)
    # The noise phi @ (E * exp(log_std)) with standard normal E has this covariance, all of it on the diagonal.
    variance = torch.einsum("nh,hd->nd", phi**2, torch.exp(2 * log_std)) + 1e-6
    distribution = Independent(Normal(phi @ weight.T, variance.sqrt()), 1)
    log_prob, entropy = distribution.log_prob(actions), distribution.entropy()
    loss = (torch.stack([log_prob, entropy], dim=1) * weights).sum()
    of_weight, of_log_std = torch.autograd.grad(loss, (weight, log_std))
    return {
        "features": features,
        "dimensions": dimensions,
        "phi": numbers(phi),
        "weight": numbers(weight),
        "log_std": numbers(log_std),
        "actions": numbers(actions),
        "weights": numbers(weights),
        "log_prob": numbers(log_prob),
        "entropy": numbers(entropy),
        "of_weight": numbers(of_weight),
        "of_log_std": numbers(of_log_std),
    }


def linear(rows, inputs, outputs, activation):
    x, weight, bias = random(rows, inputs), random(outputs, inputs, scale=0.4), random(outputs, scale=0.4)
    leaves = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    y = torch.nn.functional.linear(x, weight, bias)
    y = {"identity": lambda z: z, "tanh": torch.tanh, "relu": torch.relu}[activation](y)
    grad = random(rows, outputs)
    dx, dw, db = torch.autograd.grad((y * grad).sum(), leaves)
    return {
        "rows": rows,
        "activation": activation,
        "x": numbers(x),
        "weight": numbers(weight),
        "bias": numbers(bias),
        "y": numbers(y),
        "grad": numbers(grad),
        "dx": numbers(dx),
        "dw": numbers(dw),
        "db": numbers(db),
    }


def optimizer(name, settings, count=21, steps=6):
    """Parameters after each of a few steps on given gradients."""
    start = random(count)
    params = torch.nn.Parameter(start.clone())
    method = getattr(torch.optim, name)([params], **settings)
    gradients = [random(count, scale=0.7) for _ in range(steps)]
    after = []
    for gradient in gradients:
        params.grad = gradient.clone()
        method.step()
        after.append(numbers(params))
    return {
        "settings": settings,
        "start": numbers(start),
        "gradients": [numbers(gradient) for gradient in gradients],
        "after": after,
    }


def rmsprop_tensorflow(settings, count=21, steps=6):
    """TensorFlow's RMSprop (epsilon inside the root), which PyTorch lacks: its documented formula, in torch."""
    start = random(count)
    params, square, buffer = start.clone(), torch.zeros(count).double(), torch.zeros(count).double()
    gradients = [random(count, scale=0.7) for _ in range(steps)]
    after = []
    for gradient in gradients:
        square = settings["alpha"] * square + (1 - settings["alpha"]) * gradient.square()
        buffer = settings["momentum"] * buffer + gradient / (square + settings["eps"]).sqrt()
        params = params - settings["lr"] * buffer
        after.append(numbers(params))
    return {
        "settings": settings,
        "start": numbers(start),
        "gradients": [numbers(gradient) for gradient in gradients],
        "after": after,
    }


def main():
    fixture = {
        "torch": torch.__version__,
        "categorical": [
            categorical([2], 5, 1.0),
            categorical([18], 4, 2.0),
            categorical([3, 1, 5], 6, 1.5),
            categorical([4], 3, 30.0),
        ],
        "normal": [normal(1, 5), normal(6, 4)],
        "linear": [
            linear(rows, inputs, outputs, activation)
            for activation in ("identity", "tanh", "relu")
            for rows, inputs, outputs in ((1, 4, 3), (7, 5, 20), (9, 17, 1))
        ],
        "rmsprop": [
            optimizer("RMSprop", {"lr": 0.01, "alpha": 0.99, "eps": 1e-8, "momentum": 0.0}),
            optimizer("RMSprop", {"lr": 0.003, "alpha": 0.9, "eps": 0.1, "momentum": 0.9}),
        ],
        "rmsprop_tensorflow": [
            rmsprop_tensorflow({"lr": 0.01, "alpha": 0.99, "eps": 0.1, "momentum": 0.0}),
            rmsprop_tensorflow({"lr": 0.003, "alpha": 0.9, "eps": 0.01, "momentum": 0.9}),
        ],
        "adam": [
            optimizer("Adam", {"lr": 0.01, "betas": [0.9, 0.999], "eps": 1e-8}),
            optimizer("Adam", {"lr": 0.001, "betas": [0.5, 0.9], "eps": 1e-3}),
        ],
        "squashed": [squashed(1, 6, 1.0), squashed(4, 5, 1.0), squashed(3, 5, 40.0)],
        "masked": [masked([6], 7), masked([3, 1, 5], 6)],
        "gsde": [gsde(5, 3, 1), gsde(6, 7, 3)],
    }
    FIXTURE.parent.mkdir(parents=True, exist_ok=True)
    FIXTURE.write_text(json.dumps(fixture, indent=None, separators=(",", ":")) + "\n")
    print(f"{FIXTURE.name}: torch {torch.__version__}")


if __name__ == "__main__":
    main()
