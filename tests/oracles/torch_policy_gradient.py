"""Writes learner/tests/fixtures/torch_policy_gradient.json: whole updates of A2C, IMPALA, REINFORCE, PPO and APPO as
PyTorch computes them.

From one batch and given weights, for discrete and for continuous actions: what each update reports, and the
weights after two updates with torch.optim.Adam, gradients clipped as torch.nn.utils.clip_grad_norm_ does. To make
it anew, from the repository root (Python 3.11 or later):

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 numpy==2.4.6
    venv/bin/python tests/oracles/torch_policy_gradient.py

Inputs are exact in float32; everything is computed in float64. Adam's epsilon is large, so that the weights
tell the size of the gradients and not their sign alone.

Network, batch and the ends of episodes: torch_support.py. The losses, with V_t from observations[t]:

    a2c         advantages by GAE, targets = advantages + V
                reduce(-A log pi + baseline_cost 0.5 (target - V)^2 - entropy_cost H)
    reinforce   over the steps whose episode ends within the batch, G the sum of discounted rewards:
                mean(-(G - V) log pi + baseline_cost 0.5 (G - V)^2 - entropy_cost H); without a baseline
                mean(-G log pi - entropy_cost H), and nothing follows a truncated episode
    ppo         advantages and targets by GAE from V before the update; passes of minibatches over
                mean(-min(r A, clip(r) A) + baseline_cost 0.5 E - entropy_cost H), r = pi / mu, and
                E = (target - V)^2, or with value_clip max(that, (target - V_clipped)^2)
    appo        the same with V-trace's vs as targets, A = r_t + discount (lambda vs' + (1 - lambda) V') - V

With normalised values (PopArt, van Hasselt et al. 2016) the network's value is a number n and V = deviation n + mean. Once
the targets of an update are known, the moments of all targets so far go towards theirs by the share `value_statistics_step`,

    first = (1 - step) first + step mean(target), second likewise of target^2, mass = 1 - (1 - step)^updates
    mean = first / mass, deviation = sqrt(second / mass - mean^2) within its bounds,

and the head's weight and bias change so that every V stays. Then the loss has n for V, (target - mean) / deviation for the
target, and A / deviation for A (before advantages are normalised). The moments of Adam stay as they are.

An order of n steps t * B + b is dealt to m minibatches, of which the i-th (from 0) gets entries from i n / m to
(i + 1) n / m, rounded down. With target_kl an update ends before the minibatch whose mean of (r - 1) - log r
exceeds 1.5 times that.

Layout (arrays nested, C order):

    torch, numpy        versions that wrote the file
    worlds              discrete and continuous: parameter_names, parameters, batch as in torch_impala.json
                        (actions [T, B, 2] where they are continuous)
    cases[]
      name, world       what the case is about
      algorithm         the method and its knobs, by the names of our configuration
      optimizer         learning_rate, beta1, beta2, epsilon, max_grad_norm
      run_steps, env_steps   the run's length and how much of it is over: schedules depend on them
      orders            [update][pass]: the order in which steps are dealt; empty for methods of one pass
      updates[2]        what is reported: means over the minibatches of an update; approx_kl, mean_rho and
                        clip_fraction over those of the last pass
      parameters_after  name -> {shape, data}, after the second update
"""

import pathlib

import numpy as np
import torch
from torch import nn

from torch_support import B, Network, T, cut_episodes, flat, make_batch, make_network, vtrace, world, write

FIXTURE = pathlib.Path(__file__).parents[2] / "learner/tests/fixtures/torch_policy_gradient.json"

UPDATES = 2
RUN_STEPS = 1000
OPTIMIZER = {"learning_rate": 0.05, "beta1": 0.9, "beta2": 0.999, "epsilon": 0.1, "max_grad_norm": 0.5}
COMMON = {
    "gamma": 0.99,
    "baseline_cost": 0.5,
    "entropy_cost": 0.01,
    "entropy_schedule": "constant",
    "final_entropy_cost": 0.0,
    "reward_scale": 1.0,
    "reward_clip": 0.0,
}
A2C = {"name": "a2c", **COMMON, "lambda": 1.0, "normalize_advantages": False, "loss_reduction": "mean"}
REINFORCE = {"name": "reinforce", **COMMON, "baseline": True, "normalize_advantages": False}
SURROGATE = {
    **COMMON,
    "lambda": 0.95,
    "epochs": 1,
    "minibatches": 1,
    "clip_range": 0.2,
    "clip_schedule": "constant",
    "value_clip": 0.0,
    "normalize_advantages": True,
}
IMPALA = {"name": "impala", **COMMON, "lambda": 0.9, "clip_rho": 1.2, "clip_pg_rho": 1.1, "clip_c": 0.9}
IMPALA["loss_reduction"] = "mean"
POPART = {"value_statistics_step": 0.3, "min_value_deviation": 1e-4, "max_value_deviation": 1e6}
LARGE = {"reward_scale": 30.0}
PPO = {"name": "ppo", **SURROGATE, "target_kl": 0.0}
APPO = {"name": "appo", **SURROGATE, "clip_rho": 1.0, "clip_c": 1.0}
FALLING = {"entropy_cost": 0.5, "entropy_schedule": "linear", "final_entropy_cost": 0.1}
MANY = {"epochs": 3, "minibatches": 3}

CASES = [
    ("a2c", "discrete", A2C, {}),
    ("a2c, GAE, normalised", "discrete", A2C, {"lambda": 0.9, "normalize_advantages": True}),
    ("a2c, summed", "continuous", A2C, {"loss_reduction": "sum", "lambda": 0.95, "entropy_cost": 0.1}),
    ("reinforce", "discrete", REINFORCE, {}),
    ("reinforce, normalised", "continuous", REINFORCE, {"normalize_advantages": True, "baseline_cost": 0.25}),
    ("reinforce without a baseline", "discrete", REINFORCE, {"baseline": False, "entropy_cost": 0.1}),
    ("ppo, one step", "discrete", PPO, {"normalize_advantages": False}),
    ("ppo, one step", "continuous", PPO, {"normalize_advantages": False}),
    ("ppo, many steps", "discrete", PPO, {**MANY, "reward_scale": 0.5, "reward_clip": 0.6}),
    ("ppo, clipped values", "discrete", PPO, {**MANY, "value_clip": 0.12, "baseline_cost": 1.0}),
    ("ppo, clipped values", "continuous", PPO, {**MANY, "value_clip": 0.06, "normalize_advantages": False}),
    ("ppo, narrowing clip", "discrete", PPO, {**MANY, "clip_schedule": "linear", "clip_range": 0.6}),
    ("ppo, stopped by divergence", "discrete", PPO, {**MANY, "target_kl": 0.3}),
    ("appo, one step", "discrete", APPO, {}),
    ("appo, one step", "continuous", APPO, {"normalize_advantages": False}),
    ("appo, many steps", "discrete", APPO, {**MANY, "lambda": 0.9, "clip_rho": 1.2, "clip_c": 0.9, "value_clip": 0.1}),
    *(("falling entropy", "discrete", knobs, FALLING) for knobs in (A2C, REINFORCE, PPO, APPO)),
]
# Name, world, method, changes, PopArt's knobs.
POPART_CASES = [
    ("a2c, normalised values", "discrete", A2C, {**LARGE, "lambda": 0.95}, {}),
    ("a2c, bounded deviation", "continuous", A2C, LARGE, {"min_value_deviation": 70.0}),
    ("a2c, bounded deviation", "discrete", A2C, LARGE, {"max_value_deviation": 5.0}),
    ("impala, normalised values", "discrete", IMPALA, LARGE, {}),
    ("impala, normalised values", "continuous", IMPALA, {**LARGE, "loss_reduction": "sum"}, {}),
    ("reinforce, normalised values", "discrete", REINFORCE, LARGE, {}),
    ("ppo, normalised values", "discrete", PPO, {**MANY, **LARGE}, {"value_statistics_step": 0.05}),
    ("ppo, clipped normalised values", "continuous", PPO, {**MANY, **LARGE, "value_clip": 0.06}, {}),
    ("appo, normalised values", "discrete", APPO, {**MANY, **LARGE, "normalize_advantages": False}, {}),
]
POPART_UPDATES = 4
ENV_STEPS = {"ppo, narrowing clip": 400, "falling entropy": 400}


def gae(discounts, rewards, values, lambda_):
    advantages = [torch.zeros(B).double()]
    for t in reversed(range(T)):
        delta = rewards[t] + discounts[t] * values[t + 1] - values[t]
        advantages.insert(0, delta + discounts[t] * lambda_ * advantages[0])
    return torch.stack(advantages[:-1])


def normalized(x):
    return (x - x.mean()) / (x.std() + 1e-8)


def explained_variance(values, targets):
    return 1 - (targets - values).var(unbiased=False) / targets.var(unbiased=False)


def distances(ratios, clip):
    return {
        "mean_rho": ratios.mean(),
        "clip_fraction": ((ratios - 1).abs() > clip).double().mean(),
        "approx_kl": (ratios - 1 - ratios.log()).mean(),
    }


def parts(policy_loss, value_loss, entropies, config, reduce=torch.mean):
    entropy_loss = -config["entropy_cost"] * reduce(entropies)
    return {
        "entropy_cost": torch.tensor(config["entropy_cost"]),
        "loss": policy_loss + config["baseline_cost"] * value_loss + entropy_loss,
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy_loss": entropy_loss,
        "entropy": entropies.mean(),
    }


class Scale:
    """What the numbers of the network's value head stand for; themselves without PopArt's knobs."""

    def __init__(self, network, knobs):
        self.head, self.knobs = network.value, knobs
        self.mean, self.deviation, self.variance = 0.0, 1.0, 1.0
        self.first = self.second = self.mass = 0.0

    @torch.no_grad()
    def absorb(self, targets):
        if self.knobs is None:
            return
        before = self.mean, self.deviation
        step = self.knobs["value_statistics_step"]
        self.first = (1 - step) * self.first + step * float(targets.mean())
        self.second = (1 - step) * self.second + step * float((targets**2).mean())
        self.mass = (1 - step) * self.mass + step
        self.mean = self.first / self.mass
        self.variance = self.second / self.mass - self.mean**2
        bounds = self.knobs["min_value_deviation"], self.knobs["max_value_deviation"]
        self.deviation = float(np.clip(self.variance**0.5, *bounds))
        self.head.weight.mul_(before[1] / self.deviation)
        self.head.bias.mul_(before[1]).add_(before[0] - self.mean).div_(self.deviation)

    def values(self, numbers):
        return self.deviation * numbers + self.mean

    def numbers(self, values):
        return (values - self.mean) / self.deviation

    def report(self):
        return {} if self.knobs is None else {"value_target_mean": self.mean, "value_target_deviation": self.deviation}

    def statistics(self):
        if self.knobs is None:
            return {}
        named = {"mean": self.mean, "variance": self.variance, "mass": self.mass}
        return {f"value_target.{name}": torch.tensor([value]).double() for name, value in named.items()}


class Learner:
    """A network, its optimiser and the knobs."""

    def __init__(self, parameters, continuous, config, clip, popart):
        self.network = Network(continuous).double()
        self.network.load_state_dict(parameters)
        self.scale = Scale(self.network, popart)
        knobs = OPTIMIZER
        betas = (knobs["beta1"], knobs["beta2"])
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=knobs["learning_rate"], betas=betas, eps=knobs["epsilon"]
        )
        self.config, self.clip = config, clip

    def valued(self, observations):
        """As the network, but with values."""
        policy, numbers = self.network(observations)
        return policy, self.scale.values(numbers)

    def descend(self, losses):
        self.optimizer.zero_grad()
        losses["loss"].backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), OPTIMIZER["max_grad_norm"])
        self.optimizer.step()
        losses = {name: float(value.detach()) for name, value in losses.items()}
        return {**losses, "grad_norm": float(norm), "learning_rate": OPTIMIZER["learning_rate"]}

    def a2c(self, batch, _):
        config = self.config
        with torch.no_grad():
            _, values = self.valued(batch["observations"])
            rewards, discounts, _ = cut_episodes(self.valued, batch, config)
            advantages = gae(discounts, rewards, values, config["lambda"])
        return self.actor_critic(batch, values[:-1], advantages, advantages + values[:-1])

    def impala(self, batch, _):
        with torch.no_grad():
            _, values = self.valued(batch["observations"])
            rewards, discounts, _ = cut_episodes(self.valued, batch, self.config)
            policy, _ = self.network(batch["observations"][:-1])
            log_rhos = policy.log_prob(batch["actions"]) - batch["behaviour_log_probs"]
            vs, advantages = vtrace(log_rhos, discounts, rewards, values, self.config)
        return self.actor_critic(batch, values[:-1], advantages, vs)

    def actor_critic(self, batch, values, advantages, targets):
        config = self.config
        self.scale.absorb(targets)
        advantages = advantages / self.scale.deviation
        if config.get("normalize_advantages"):
            advantages = normalized(advantages)
        policy, numbers = self.network(batch["observations"][:-1])
        reduce = torch.sum if config["loss_reduction"] == "sum" else torch.mean
        log_probs = policy.log_prob(batch["actions"])
        value_loss = reduce(0.5 * (self.scale.numbers(targets) - numbers) ** 2)
        losses = parts(reduce(-advantages * log_probs), value_loss, policy.entropy(), config, reduce)
        ratios = (log_probs.detach() - batch["behaviour_log_probs"]).exp()
        report = {
            "explained_variance": float(explained_variance(values, targets)),
            "mean_value": float(values.mean()),
            "mean_rho": float(ratios.mean()),
            "approx_kl": float((ratios - 1 - ratios.log()).mean()),
            **self.scale.report(),
        }
        return {**self.descend(losses), **report}

    def reinforce(self, batch, _):
        config = self.config
        ended = batch["terminated"] | batch["truncated"]
        with torch.no_grad():
            _, values = self.valued(batch["observations"][:-1])
            rewards, _, _ = cut_episodes(self.valued, batch, config)
            if not config["baseline"]:
                rewards = batch["rewards"]
        returns, finished = torch.zeros(T, B).double(), torch.zeros(T, B, dtype=torch.bool)
        for b in range(B):
            for t in range(T):
                ends = [s for s in range(t, T) if ended[s, b]]
                if ends:
                    finished[t, b] = True
                    returns[t, b] = sum(config["gamma"] ** (s - t) * rewards[s, b] for s in range(t, ends[0] + 1))
        returns, values = returns[finished], values[finished]
        self.scale.absorb(returns)
        policy, numbers = self.network(batch["observations"][:-1])
        log_probs = policy.log_prob(batch["actions"])[finished]
        weights = (returns - values) / self.scale.deviation if config["baseline"] else returns
        if config["normalize_advantages"]:
            weights = normalized(weights)
        errors = self.scale.numbers(returns) - numbers[finished]
        value_loss = (0.5 * errors**2).mean() if config["baseline"] else torch.zeros(()).double()
        losses = parts((-weights * log_probs).mean(), value_loss, policy.entropy()[finished], config)
        report = {"unfinished_fraction": float(1 - finished.double().mean()), **self.scale.report()}
        if config["baseline"]:
            report["explained_variance"] = float(explained_variance(values, returns))
            report["mean_value"] = float(values.mean())
        else:
            del losses["value_loss"]
        return {**self.descend(losses), **report}

    def ppo(self, batch, orders):
        with torch.no_grad():
            _, values = self.valued(batch["observations"])
            rewards, discounts, _ = cut_episodes(self.valued, batch, self.config)
            advantages = gae(discounts, rewards, values, self.config["lambda"])
        return self.climb(batch, orders, values[:-1], advantages, advantages + values[:-1])

    def appo(self, batch, orders):
        lambda_ = self.config["lambda"]
        with torch.no_grad():
            policy, _ = self.network(batch["observations"][:-1])
            _, values = self.valued(batch["observations"])
            rewards, discounts, _ = cut_episodes(self.valued, batch, self.config)
            log_rhos = policy.log_prob(batch["actions"]) - batch["behaviour_log_probs"]
            vs, _ = vtrace(log_rhos, discounts, rewards, values, {**self.config, "clip_pg_rho": 1.0})
            vs_next = torch.cat([vs[1:], values[-1:]])
            advantages = rewards + discounts * (lambda_ * vs_next + (1 - lambda_) * values[1:]) - values[:-1]
        return self.climb(batch, orders, values[:-1], advantages, vs)

    def climb(self, batch, orders, old_values, advantages, targets):
        config, count = self.config, self.config["minibatches"]
        flat_of = {key: batch[key].flatten(0, 1) for key in ("actions", "behaviour_log_probs")}
        observations = batch["observations"][:-1].flatten(0, 1)
        old_values, advantages, targets = old_values.flatten(), advantages.flatten(), targets.flatten()
        of_values = {
            "mean_value": float(old_values.mean()),
            "explained_variance": float(explained_variance(old_values, targets)),
        }
        self.scale.absorb(targets)
        old_values, targets = self.scale.numbers(old_values), self.scale.numbers(targets)
        advantages = advantages / self.scale.deviation
        reports, stopped = [], False
        for order in orders:
            of_pass = []
            for part in range(count):
                at = order[part * len(order) // count : (part + 1) * len(order) // count]
                policy, values = self.network(observations[at])
                ratios = (policy.log_prob(flat_of["actions"][at]) - flat_of["behaviour_log_probs"][at]).exp()
                # A reader in float32 must see the same side of each edge.
                assert ((ratios - 1).abs() - self.clip).abs().min() > 1e-4
                of_pass.append({name: float(x.detach()) for name, x in distances(ratios, self.clip).items()})
                kl = of_pass[-1]["approx_kl"]
                stopped = 0 < config.get("target_kl", 0.0) * 1.5 < kl
                if stopped:
                    break
                a = normalized(advantages[at]) if config["normalize_advantages"] else advantages[at]
                clipped = ratios.clamp(1 - self.clip, 1 + self.clip)
                errors = (targets[at] - values) ** 2
                if config["value_clip"] > 0:
                    moved = values - old_values[at]
                    assert (moved.abs() - config["value_clip"]).abs().min() > 1e-4
                    kept = old_values[at] + moved.clamp(-config["value_clip"], config["value_clip"])
                    errors = torch.max(errors, (targets[at] - kept) ** 2)
                losses = parts(
                    -torch.min(ratios * a, clipped * a).mean(), 0.5 * errors.mean(), policy.entropy(), config
                )
                reports.append(self.descend(losses))
            if stopped:
                break
        mean = lambda reports: {name: float(np.mean([r[name] for r in reports])) for name in reports[0]}
        report = {
            **(mean(reports) if reports else {}),
            **mean(of_pass),
            **of_values,
            **self.scale.report(),
            "epochs_run": len(reports) / count,
        }
        if config.get("target_kl"):
            report["kl_stopped"] = float(stopped)
        return report


def case(name, of_world, worlds, config, rng, popart=None):
    network, batch = worlds[of_world]
    env_steps = ENV_STEPS.get(name, 0)
    clip = config.get("clip_range", 0.0)
    if config.get("clip_schedule") == "linear":
        clip *= 1 - env_steps / RUN_STEPS
    in_force = {**config}
    if config["entropy_schedule"] == "linear":
        course = config["entropy_cost"], config["final_entropy_cost"]
        in_force["entropy_cost"] = course[0] + (course[1] - course[0]) * env_steps / RUN_STEPS
    learner = Learner(network.state_dict(), of_world == "continuous", in_force, clip, popart)
    orders = [[rng.permutation(T * B) for _ in range(config.get("epochs", 0))] for _ in range(POPART_UPDATES if popart else UPDATES)]
    method = getattr(learner, config["name"])
    updates = [method(batch, passes) for passes in orders]
    if config.get("target_kl"):
        assert any(u["kl_stopped"] and 0 < u["epochs_run"] for u in updates), updates
    return {
        "name": name,
        "world": of_world,
        "algorithm": config,
        "popart": popart,
        "optimizer": OPTIMIZER,
        "run_steps": RUN_STEPS,
        "env_steps": env_steps,
        "orders": [[order.tolist() for order in passes] for passes in orders],
        "updates": updates,
        "parameters_after": flat({**dict(learner.network.named_parameters()), **learner.scale.statistics()}),
    }


def main():
    rng = np.random.default_rng(1707_06347)
    worlds = {}
    for name, continuous in [("discrete", False), ("continuous", True)]:
        worlds[name] = make_network(rng, continuous), make_batch(rng, continuous)
    fixture = {
        "worlds": {name: world(*of) for name, of in worlds.items()},
        "cases": [case(name, w, worlds, {**knobs, **changes}, rng) for name, w, knobs, changes in CASES],
    }
    for name, w, knobs, changes, popart in POPART_CASES:
        fixture["cases"].append(case(name, w, worlds, {**knobs, **changes}, rng, {**POPART, **popart}))
    write(FIXTURE, fixture)


if __name__ == "__main__":
    main()
