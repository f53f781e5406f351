"""The loop that the bridge is measured against: copies of an environment stepped with random actions in plain Python.

Reads the number of vector steps from standard input, a line at a time, and answers with the seconds that they took.
"""

import importlib
import sys
import time

import gymnasium as gym
import numpy as np

name, count = sys.argv[1], int(sys.argv[2])
random = np.random.default_rng(0)


def atari():
    gym.register_envs(importlib.import_module("ale_py"))
    vector = gym.make_vec(
        name,
        count,
        autoreset_mode=gym.vector.AutoresetMode.SAME_STEP,
        stack_num=1,
        num_threads=1,
        noop_max=30,
        reward_clipping=False,
        use_fire_reset=False,
        repeat_action_probability=0.0,
    )
    vector.reset(seed=1)
    actions = random.integers(0, vector.single_action_space.n, (1000, count))
    return lambda number: vector.step(actions[number % 1000])


def loop():
    envs = [gym.make(name, disable_env_checker=True) for _ in range(count)]
    for seed, env in enumerate(envs):
        env.reset(seed=seed)
    actions = random.integers(0, envs[0].action_space.n, (1000, count)).tolist()

    def step(number):
        for env, action in zip(envs, actions[number % 1000]):
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()

    return step


step = atari() if name.startswith("ALE/") else loop()
for line in sys.stdin:
    start = time.perf_counter()
    for number in range(int(line)):
        step(number)
    print(time.perf_counter() - start, flush=True)
