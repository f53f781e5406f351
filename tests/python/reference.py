"""Plays episodes with Gymnasium alone: what the bridge must give, one copy after another.

Reads a question in JSON from standard input and prints the answer in JSON. `actions` are `[steps, copies]`, `seeds` `[copies]`.
Episodes restart in the step in which they end. Observations are flat lists, and `finals` those in which episodes ended.
"""

import importlib
import json
import sys

import gymnasium as gym
import numpy as np


def flat(space, observation):
    """Numbers as they are; where there are several parts, choices as one-hot codes and bytes through the largest of their space."""
    if isinstance(space, gym.spaces.Dict):
        return np.concatenate([coded(space[name], observation[name]) for name in sorted(space.keys())])
    if isinstance(space, gym.spaces.Tuple):
        return np.concatenate([coded(part, of_part) for part, of_part in zip(space.spaces, observation)])
    if isinstance(space, (gym.spaces.Discrete, gym.spaces.MultiDiscrete)):
        return np.ravel(observation - space.start)
    return np.ravel(observation).astype(float)


def coded(space, observation):
    if isinstance(space, (gym.spaces.Dict, gym.spaces.Tuple)):
        return flat(space, observation)
    numbers = gym.spaces.flatten(space, observation).astype(np.float32)
    is_bytes = isinstance(space, gym.spaces.Box) and space.dtype == np.uint8
    return numbers / np.float32(space.high.max()) if is_bytes else numbers


def play(question, copy):
    if question["id"].startswith("ALE/"):
        gym.register_envs(importlib.import_module("ale_py"))
    env = gym.make(question["id"], **question["kwargs"])
    if question.get("atari"):
        env = gym.wrappers.AtariPreprocessing(env, **question["atari"])
    for asked in question.get("wrappers", []):
        asked = {"name": asked, "kwargs": {}} if isinstance(asked, str) else asked
        module, name = asked["name"].split(":")
        env = getattr(importlib.import_module(module), name)(env, **asked["kwargs"])
    observed, told = env.reset(seed=question["seeds"][copy]), []
    told.append({"observation": flat(env.observation_space, observed[0]).tolist()})
    for actions in question["actions"]:
        action = actions[copy]
        if isinstance(env.action_space, gym.spaces.Discrete):
            action = int(action + env.action_space.start)
        elif isinstance(env.action_space, gym.spaces.Box):
            action = np.clip(np.asarray(action, np.float32), env.action_space.low, env.action_space.high)
            action = action.astype(env.action_space.dtype).reshape(env.action_space.shape)
        observation, reward, terminated, truncated, _ = env.step(action)
        step = {"reward": float(np.float32(reward)), "terminated": bool(terminated), "truncated": bool(truncated)}
        if terminated or truncated:
            step["final"] = flat(env.observation_space, observation).tolist()
            observation, _ = env.reset()
        step["observation"] = flat(env.observation_space, observation).tolist()
        told.append(step)
    return told


question = json.load(sys.stdin)
json.dump([play(question, copy) for copy in range(len(question["seeds"]))], sys.stdout)
