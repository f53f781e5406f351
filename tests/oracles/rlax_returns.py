"""Writes learner/tests/fixtures/rlax_returns.json: returns and advantages as rlax computes them.

`learner/tests/returns_oracle.rs` compares `impresario_learner::returns` with it. To make it anew, from
the repository root (Python 3.11):

    python3 -m venv venv && venv/bin/pip install rlax==0.1.9 "jax[cpu]"
    venv/bin/python tests/oracles/rlax_returns.py

Inputs are exact in float32; rlax runs in float64, so the expected values carry no rounding of their own.

Layout:

    rlax, jax, numpy   versions that wrote the file
    cases[]            random columns of T steps
      name             what the case stresses
      log_rhos         [T]
      discounts        [T]
      rewards          [T]
      values           [T + 1], the bootstrap last
      vtrace[]         lambda, clip_rho, clip_pg_rho, clip_c -> errors (vs - values), vs, pg_advantages: [T]
      gae[]            lambda -> advantages: [T]
      lambda_returns[] lambda -> returns: [T]
      n_step_returns[] n -> returns: [T]
      discounted_returns[] bootstrap -> returns: [T]

rlax names the clips `clip_rho_threshold` and `clip_pg_rho_threshold`, and fixes the clip of `c` at 1.
Another `clip_c` is put through rlax's per-step lambda: c = lambda_t * min(1, rho) equals
lambda * min(clip_c, rho) for lambda_t = lambda * min(clip_c, rho) / min(1, rho). The advantages of such a
case follow rlax's formula from the targets so found, with the plain lambda in it.
"""

import json
import pathlib
import re

import jax
import numpy as np
import rlax

jax.config.update("jax_enable_x64", True)

FIXTURE = pathlib.Path(__file__).parents[2] / "learner/tests/fixtures/rlax_returns.json"

LENGTHS = (1, 2, 5, 20, 50)
LAMBDAS = (0.0, 0.5, 0.95, 1.0)
STEPS = (1, 2, 3, 5, 19, 20, 21, 64)
CLIPS = (  # clip_rho, clip_pg_rho, clip_c
    (1.0, 1.0, 1.0),
    (2.0, 0.5, 1.0),
    (1e-6, 1e-6, 1.0),
    (1e6, 1e6, 1.0),
)
CLIPS_OF_C = ((1.0, 1.0, 0.3), (1.5, 0.7, 1.2), (1.0, 1.0, 1e-6))


def single(x):
    """Rounds to float32 and returns to float64, so that a reader in float32 has the same input."""
    return np.asarray(x, np.float32).astype(np.float64)


def inputs(rng, time, log_rho_scale, ends, reward_scale):
    discounts = np.where(rng.random(time) < ends, 0.0, rng.choice([0.9, 0.99, 1.0], time))
    if ends and time > 2:
        discounts[time // 2] = 0.0
    return {
        "log_rhos": single(rng.normal(0.0, log_rho_scale, time)),
        "discounts": single(discounts),
        "rewards": single(rng.normal(0.0, reward_scale, time)),
        "values": single(rng.normal(0.0, 3.0, time + 1)),
    }


def vtrace(x, lambda_, clip_rho, clip_pg_rho, clip_c):
    v_tm1, v_t = x["values"][:-1], x["values"][1:]
    r_t, discount_t, rho_tm1 = x["rewards"], x["discounts"], np.exp(x["log_rhos"])
    lambda_, clip_rho, clip_pg_rho, clip_c = map(float, single([lambda_, clip_rho, clip_pg_rho, clip_c]))
    if clip_c == 1.0:
        out = rlax.vtrace_td_error_and_advantage(
            v_tm1, v_t, r_t, discount_t, rho_tm1, lambda_, clip_rho, clip_pg_rho
        )
        errors, pg_advantages = out.errors, out.pg_advantage
    else:
        lambda_t = lambda_ * np.minimum(clip_c, rho_tm1) / np.minimum(1.0, rho_tm1)
        errors = rlax.vtrace(v_tm1, v_t, r_t, discount_t, rho_tm1, lambda_t, clip_rho)
        vs_t = np.append(np.asarray(errors + v_tm1)[1:], v_t[-1])
        q = r_t + discount_t * (lambda_ * vs_t + (1.0 - lambda_) * v_t)
        pg_advantages = np.minimum(clip_pg_rho, rho_tm1) * (q - v_tm1)
    return {
        "lambda": lambda_,
        "clip_rho": clip_rho,
        "clip_pg_rho": clip_pg_rho,
        "clip_c": clip_c,
        "errors": errors,
        "vs": errors + v_tm1,
        "pg_advantages": pg_advantages,
    }


def case(name, rng, x, clips):
    r_t, discount_t, values = x["rewards"], x["discounts"], x["values"]
    v_t = values[1:]
    lambdas = [float(single(l)) for l in LAMBDAS]
    bootstrap = float(single(rng.normal(0.0, 3.0)))
    return {
        "name": f"{name}, T = {len(r_t)}",
        **x,
        "vtrace": [vtrace(x, l, *c) for c, l in zip(clips, rng.choice(LAMBDAS, len(clips)))]
        + [vtrace(x, 1.0, 1.0, 1.0, 1.0)],
        "gae": [
            {
                "lambda": l,
                "advantages": rlax.truncated_generalized_advantage_estimation(r_t, discount_t, l, values),
            }
            for l in lambdas
        ],
        "lambda_returns": [
            {"lambda": l, "returns": rlax.lambda_returns(r_t, discount_t, v_t, l)} for l in lambdas
        ],
        "n_step_returns": [
            {"n": n, "returns": rlax.n_step_bootstrapped_returns(r_t, discount_t, v_t, n)} for n in STEPS
        ],
        "discounted_returns": [
            {"bootstrap": b, "returns": rlax.discounted_returns(r_t, discount_t, b)}
            for b in (0.0, bootstrap)
        ],
    }


def cases():
    rng = np.random.default_rng(1802_01561)
    for time in LENGTHS:
        on_policy = inputs(rng, time, 0.0, 0.0, 1.0)
        yield case("on policy, no episode end", rng, on_policy, CLIPS)
        near = inputs(rng, time, 0.5, 0.15, 1.0)
        yield case("near policy, episodes end", rng, near, CLIPS + CLIPS_OF_C)
        far = inputs(rng, time, 3.0, 0.15, 10.0)
        yield case("far from the policy, large rewards", rng, far, CLIPS + CLIPS_OF_C)
        # exp() of these overflows float32 to infinity and underflows to zero.
        extreme = inputs(rng, time, 150.0, 0.15, 1.0)
        yield case("extreme importance weights", rng, extreme, CLIPS)


def plain(x):
    """Numbers and arrays as JSON has them, nine digits each: enough to tell float32s apart."""
    if isinstance(x, dict):
        return {key: plain(value) for key, value in x.items()}
    if isinstance(x, list):
        return [plain(value) for value in x]
    if isinstance(x, (np.ndarray, jax.Array)):
        assert x.dtype == np.float64 and np.isfinite(x).all(), x
        return [plain(float(value)) for value in x]
    if isinstance(x, float):
        return float(f"{x:.9g}")
    return x


def main():
    fixture = {
        "rlax": rlax.__version__,
        "jax": jax.__version__,
        "numpy": np.__version__,
        "cases": [plain(c) for c in cases()],
    }
    # One array of numbers a line: a change of the file can be read.
    text = re.sub(r"\[[^][{}]*\]", lambda array: " ".join(array[0].split()), json.dumps(fixture, indent=1))
    FIXTURE.write_text(text + "\n")


if __name__ == "__main__":
    main()
