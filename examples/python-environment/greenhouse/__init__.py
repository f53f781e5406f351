"""Registers the environment, so that `--env greenhouse:Greenhouse-v0` finds it."""

import gymnasium

gymnasium.register("Greenhouse-v0", entry_point="greenhouse.environment:Greenhouse", max_episode_steps=96, reward_threshold=-40.0)
