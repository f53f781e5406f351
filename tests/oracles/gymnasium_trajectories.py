"""Records what Gymnasium's classic-control environments do, for the native ones to be held against.

Writes `actor/tests/fixtures/gymnasium_trajectories.json`, which `actor/tests/environments.rs` reads.
Everything goes through `gym.make`, time limits included. Running it again gives the same file:

    python3 -m venv VENV && VENV/bin/pip install 'gymnasium[classic-control]==1.4.0' numpy==2.4.6
    VENV/bin/python tests/oracles/gymnasium_trajectories.py

Floats are stored bit for bit as little-endian hex, since few JSON parsers read decimals exactly; initial
states are also given in decimals, for people to read.
"""

import json
import math
import platform
from pathlib import Path

import gymnasium as gym
import numpy as np

FIXTURE = Path(__file__).parents[2] / "actor/tests/fixtures/gymnasium_trajectories.json"

# Every so many steps the state is stored: unstable dynamics amplify the last bit of another libm's sine,
# so a comparison may start afresh from here.
CHECKPOINT_INTERVAL = 25


def hexed(values, dtype):
    return np.asarray(values, dtype=dtype).tobytes().hex()


def record(env_id, name, policy, seed=0, state=None):
    """One episode. `policy(step, state, rng)` acts on the environment's own state; the initial state is
    drawn by `reset(seed)` unless `state` is given."""
    env = gym.make(env_id)
    rng = np.random.default_rng(seed)
    first, _ = env.reset(seed=seed)
    if state is not None:
        env.unwrapped.state = np.array(state, dtype=np.float64)
        first = None
    initial = np.array(env.unwrapped.state, dtype=np.float64)
    discrete = isinstance(env.action_space, gym.spaces.Discrete)
    actions, observations, rewards, checkpoints = [], [], [], []
    terminated = truncated = False
    while not (terminated or truncated):
        action = policy(len(actions), env.unwrapped.state, rng)
        action = int(action) if discrete else np.array([action], dtype=np.float32)
        observation, reward, terminated, truncated, _ = env.step(action)
        assert observation.dtype == np.float32
        actions.append(action)
        observations.append(observation.copy())
        rewards.append(float(reward))
        if len(actions) % CHECKPOINT_INTERVAL == 0:
            checkpoints.append(np.array(env.unwrapped.state, dtype=np.float64))
    env.close()
    constant = len(set(rewards)) == 1
    print(f"{env_id:26} {name:34} {len(actions):4} steps  terminated={terminated} truncated={truncated}")
    return {
        "name": name,
        "initial_state_decimal": [repr(float(value)) for value in initial],
        "initial_state": hexed(initial, "<f8"),
        "first_observation": None if first is None else hexed(first, "<f4"),
        "actions": "".join(map(str, actions)) if discrete else hexed(actions, "<f4"),
        "observations": hexed(observations, "<f4"),
        # A single reward stands for all of them.
        "rewards": hexed(rewards[:1] if constant else rewards, "<f8"),
        "checkpoints": hexed(checkpoints, "<f8"),
        "terminated": bool(terminated),
        "truncated": bool(truncated),
    }


def describe(env_id, episodes):
    spec = gym.spec(env_id)
    env = gym.make(env_id)
    action = env.action_space
    return {
        "id": env_id,
        "max_episode_steps": spec.max_episode_steps,
        "reward_threshold": spec.reward_threshold,
        "observation_low": hexed(env.observation_space.low, "<f4"),
        "observation_high": hexed(env.observation_space.high, "<f4"),
        "action_n": int(action.n) if isinstance(action, gym.spaces.Discrete) else None,
        "action_low": None if isinstance(action, gym.spaces.Discrete) else hexed(action.low, "<f4"),
        "action_high": None if isinstance(action, gym.spaces.Discrete) else hexed(action.high, "<f4"),
        "checkpoint_interval": CHECKPOINT_INTERVAL,
        "episodes": episodes,
    }


def constantly(action):
    return lambda step, state, rng: action


def choosing(n):
    return lambda step, state, rng: rng.integers(n)


def uniformly(bound):
    return lambda step, state, rng: rng.uniform(-bound, bound)


def cartpole():
    env_id = "CartPole-v1"

    def balance(target=0.0):
        def policy(step, state, rng):
            x, x_dot, theta, theta_dot = state
            return theta + 0.3 * theta_dot + 0.02 * (x - target) + 0.04 * x_dot > 0

        return policy

    def balance_then_push(last_balanced):
        hold, push = balance(), constantly(1)
        return lambda step, state, rng: (hold if step < last_balanced else push)(step, state, rng)

    def episode_length(policy):
        env = gym.make(env_id)
        env.reset(seed=4)
        step, over = 0, False
        while not over:
            _, _, terminated, truncated, _ = env.step(int(policy(step, env.unwrapped.state, None)))
            step, over = step + 1, terminated or truncated
        return step, terminated

    # Push so late that the pole falls in the very step that the time limit is reached.
    both = next(k for k in range(470, 500) if episode_length(balance_then_push(k)) == (500, True))
    return describe(
        env_id,
        [record(env_id, f"random {seed}", choosing(2), seed) for seed in range(3)]
        + [
            record(env_id, "pushed left", constantly(0), 3),
            record(env_id, "kept upright", balance(), 5),
            record(env_id, "falls in the last allowed step", balance_then_push(both), 4),
            record(env_id, "leaves the track", balance(target=3.0), 6),
            record(env_id, "starts fast", choosing(2), 7, [-2.0, 1.5, -0.15, 1.0]),
        ],
    )


def acrobot():
    env_id = "Acrobot-v1"

    def pump(step, state, rng):
        return 2 if state[2] < 0 else 0

    return describe(
        env_id,
        [record(env_id, f"pumping energy {seed}", pump, seed) for seed in range(2)]
        + [
            record(env_id, "random", choosing(3), 2),
            record(env_id, "no torque", constantly(1), 3),
            record(env_id, "starts faster than allowed", choosing(3), 4, [3.1, -3.1, 13.0, -30.0]),
            record(env_id, "starts near the height", choosing(3), 5, [1.5, 0.3, -0.5, 4.0]),
        ],
    )


def mountain_car():
    env_id = "MountainCar-v0"

    def pump(step, state, rng):
        return 2 if state[1] >= 0 else 0

    return describe(
        env_id,
        [record(env_id, f"pumping energy {seed}", pump, seed) for seed in range(2)]
        + [
            record(env_id, "random", choosing(3), 2),
            record(env_id, "random again", choosing(3), 3),
            record(env_id, "runs into the wall", constantly(0), 4, [-1.1, -0.06]),
            record(env_id, "rolls down at full speed", constantly(2), 5, [-1.19, 0.05]),
        ],
    )


def mountain_car_continuous():
    env_id = "MountainCarContinuous-v0"

    def pump(force):
        return lambda step, state, rng: force if state[1] >= 0 else -force

    return describe(
        env_id,
        [
            record(env_id, "pumping energy", pump(1.0), 0),
            record(env_id, "pumping energy gently", pump(0.4), 1),
            record(env_id, "pumping energy out of bounds", pump(2.5), 2),
            record(env_id, "random", uniformly(1.0), 3),
            record(env_id, "random out of bounds", uniformly(2.0), 4),
            record(env_id, "runs into the wall", constantly(-3.0), 5, [-1.1, -0.06]),
            record(env_id, "rolls down at full speed", constantly(0.9), 6, [-1.19, 0.05]),
            record(env_id, "starts before the goal", uniformly(3.0), 7, [0.4, 0.069]),
        ],
    )


def pendulum():
    env_id = "Pendulum-v1"

    def pump(step, state, rng):
        return math.copysign(2.0, state[1])

    return describe(
        env_id,
        [
            record(env_id, "random", uniformly(2.0), 0),
            record(env_id, "random out of bounds", uniformly(6.0), 1),
            record(env_id, "pumping energy", pump, 2),
            record(env_id, "spun to full speed", constantly(2.0), 3, [0.1, 7.5]),
            record(env_id, "starts many turns away", uniformly(2.0), 4, [-50.0, -3.0]),
        ],
    )


def main():
    fixture = {
        "gymnasium": gym.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "environments": [cartpole(), acrobot(), mountain_car(), mountain_car_continuous(), pendulum()],
    }
    FIXTURE.parent.mkdir(parents=True, exist_ok=True)
    FIXTURE.write_text(json.dumps(fixture, indent=1) + "\n")
    print(f"{FIXTURE.stat().st_size} bytes, gymnasium {gym.__version__}, numpy {np.__version__}")


if __name__ == "__main__":
    main()
