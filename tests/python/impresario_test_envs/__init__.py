"""Environments that tests of the bridge to Gymnasium are made of: odd spaces, vectors of every kind, failures."""

import copy
import importlib
import os
import time

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space


class Echo(gym.Env):
    """Shows the action taken last, in numbers, and ends after `length` steps, by truncation if `truncates`."""

    def __init__(self, observation="box", action="discrete", length=3, truncates=False):
        # Spaces hold the generator that they sample with: each copy needs its own.
        self.observation_space, self.action_space = copy.deepcopy((SPACES[observation], SPACES[action]))
        self.length, self.truncates = length, truncates

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        self.observation_space.seed(int(self.np_random.integers(1 << 30)))
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.steps += 1
        over = self.steps >= self.length
        reward = float(np.sum(spaces.flatten(self.action_space, action) * np.arange(1, 1 + self.size())))
        return self.observation_space.sample(), reward, over and not self.truncates, over and self.truncates, {}

    def size(self):
        return spaces.flatdim(self.action_space)


SPACES = {
    "box": spaces.Box(-1, 1, (2,), np.float32),
    "double": spaces.Box(-np.inf, 3, (2, 2), np.float64),
    "bytes": spaces.Box(0, 255, (3, 2), np.uint8),
    "whole": spaces.Box(-5, 5, (3,), np.int64),
    "scalar": spaces.Box(0, 1, (), np.float32),
    "flags": spaces.Box(0, 1, (4,), np.bool_),
    "discrete": spaces.Discrete(3),
    "shifted": spaces.Discrete(3, start=-1),
    "choices": spaces.MultiDiscrete([3, 2, 4]),
    "shifted choices": spaces.MultiDiscrete([[3, 2], [4, 5]], start=[[1, 0], [-2, 7]]),
    "bits": spaces.MultiBinary(3),
    "bit field": spaces.MultiBinary((2, 2)),
    "dict": spaces.Dict(
        {
            "speed": spaces.Box(-1, 1, (2,), np.float64),
            "gear": spaces.Discrete(4, start=1),
            "camera": spaces.Tuple((spaces.Box(0, 255, (2, 2), np.uint8), spaces.MultiBinary(2))),
            "arm": spaces.Dict({"joints": spaces.MultiDiscrete([2, 3])}),
        }
    ),
    "tuple": spaces.Tuple((spaces.Discrete(2), spaces.Box(-2, 2, (1,), np.float32))),
    "choice dict": spaces.Dict({"turn": spaces.Discrete(3, start=2), "aim": spaces.MultiDiscrete([2, 2]), "fire": spaces.MultiBinary(1)}),
    "box tuple": spaces.Tuple((spaces.Box(-1, 1, (2,), np.float32), spaces.Box(0, 10, (1, 2), np.float64))),
    "mixed": spaces.Tuple((spaces.Discrete(2), spaces.Box(-1, 1, (1,), np.float32))),
    "text": spaces.Text(5),
}


class Counter(gym.Env):
    """Counts its steps from a number that its seed chooses; episodes last 3 + copy-dependent steps."""

    observation_space = spaces.Box(0, 1e9, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, cuts=True):
        self.cuts = cuts

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.start = int(self.np_random.integers(1000))
        self.steps, self.length = 0, 2 + self.start % 5
        return self.observation(), {}

    def observation(self):
        return np.array([self.start, self.steps], np.float32)

    def step(self, action):
        self.steps += 1
        over = self.steps == self.length
        cut = over and self.cuts and self.start % 2 == 0
        return self.observation(), float(action) + self.steps, over and not cut, cut, {}


class CounterVector(VectorEnv):
    """Counters as a vector of its own, in any autoreset mode."""

    def __init__(self, num_envs, mode):
        self.num_envs, self.mode = num_envs, mode
        self.envs = [Counter() for _ in range(num_envs)]
        self.single_observation_space, self.single_action_space = Counter.observation_space, Counter.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.metadata = {"autoreset_mode": mode}
        self.over = np.zeros(num_envs, bool)

    def reset(self, *, seed=None, options=None):
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        assert mask.all() or self.mode is AutoresetMode.DISABLED, "only a vector that is told to resets single copies"
        seeds = [None] * self.num_envs if seed is None else [int(s) for s in seed]
        for env, one, chosen in zip(self.envs, seeds, mask):
            if chosen:
                env.reset(seed=one)
        self.over &= ~mask
        return self.observations(), {}

    def observations(self):
        return np.stack([env.observation() for env in self.envs])

    def step(self, actions):
        assert not (self.mode is AutoresetMode.DISABLED and self.over.any()), "stepped beyond an end"
        rewards, terminated, truncated = np.zeros(self.num_envs), self.over & False, self.over & False
        finals, info = np.full(self.num_envs, None, object), {}
        for i, (env, action) in enumerate(zip(self.envs, actions)):
            if self.mode is AutoresetMode.NEXT_STEP and self.over[i]:
                env.reset()
                continue
            observation, rewards[i], terminated[i], truncated[i], _ = env.step(action)
            if self.mode is AutoresetMode.SAME_STEP and (terminated[i] or truncated[i]):
                finals[i] = observation
                env.reset()
        self.over = terminated | truncated
        if self.mode is AutoresetMode.SAME_STEP and self.over.any():
            info = {"final_obs": finals, "_final_obs": self.over.copy()}
        return self.observations(), rewards, terminated, truncated, info


def chosen_mode(num_envs, autoreset_mode=AutoresetMode.NEXT_STEP):
    return CounterVector(num_envs, AutoresetMode(autoreset_mode))


class Trouble(Counter):
    """Fails in its step number `at`, counted over all episodes, in one of several ways; where `mark` names a file, only once."""

    def __init__(self, how, at=5, mark=None):
        super().__init__()
        self.how, self.at, self.mark, self.taken = how, at, mark, 0

    def step(self, action):
        self.taken += 1
        if self.taken == self.at and not (self.mark and os.path.exists(self.mark)):
            if self.mark:
                open(self.mark, "w").close()
            print("about to fail:", self.how)
            if self.how == "raise":
                raise RuntimeError("the wheel came off")
            if self.how == "hang":
                time.sleep(3600)
            if self.how == "exit":
                os._exit(7)
            if self.how == "crash":
                os.abort()
        return super().step(action)


class Telltale(Counter):
    """Tells which variables its process has, and the values of those that are Impresario's, and fails."""

    def reset(self, *, seed=None, options=None):
        values = {name: value for name, value in os.environ.items() if name.startswith("IMPRESARIO")}
        raise RuntimeError(f"variables: {sorted(os.environ)}; values: {values}")


class Missing(gym.Env):
    """Needs a package that nobody has."""

    def __init__(self, package):
        importlib.import_module(package)


class Scaled(gym.RewardWrapper):
    """Multiplies rewards by ten."""

    def reward(self, reward):
        return 10 * reward


def registered(name, entry, **more):
    gym.register(f"impresario_test/{name}-v0", entry_point=entry, **more)


registered("Echo", Echo)
registered("Counter", Counter)
registered("Limited", Counter, max_episode_steps=2, reward_threshold=12.5)
registered("Trouble", Trouble)
registered("Missing", Missing)
registered("Telltale", Telltale)
for mode in AutoresetMode:
    registered(f"Vector{mode.name}", None, vector_entry_point=lambda num_envs, mode=mode: CounterVector(num_envs, mode))
registered("VectorChosen", Counter, vector_entry_point=chosen_mode)
