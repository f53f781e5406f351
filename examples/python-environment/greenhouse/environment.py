"""A greenhouse to be kept at the temperature that its plants like, over a day and a night."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces

LET_BE, HEAT, AIR = range(3)


class Greenhouse(gym.Env):
    """Each quarter of an hour: let it be, heat, or open the windows.

    The reward is minus the distance from the wanted temperature in degrees, minus `fuel_price` for heating. An episode is a day,
    which the time limit cuts off.
    """

    def __init__(self, wanted=20.0, fuel_price=0.1):
        self.wanted, self.fuel_price = wanted, fuel_price
        # Degrees beyond the wanted ones inside and outside, in tens, and the time of day as a point on a circle.
        self.observation_space = spaces.Box(-np.inf, np.inf, (4,), np.float32)
        self.action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.hour = self.np_random.uniform(0, 24)
        self.season = self.np_random.uniform(0, 15)
        self.inside = self.outside()
        return self.observe(), {}

    def outside(self):
        return self.season - 8 * np.cos(2 * np.pi * self.hour / 24)

    def observe(self):
        angle = 2 * np.pi * self.hour / 24
        degrees = [(self.inside - self.wanted) / 10, (self.outside() - self.wanted) / 10]
        return np.array([*degrees, np.cos(angle), np.sin(angle)], np.float32)

    def step(self, action):
        self.hour = (self.hour + 0.25) % 24
        sun = max(0.0, -np.cos(2 * np.pi * self.hour / 24))
        leak = 0.5 if action == AIR else 0.1
        self.inside += leak * (self.outside() - self.inside) + 2 * sun + (4 if action == HEAT else 0)
        reward = -abs(self.inside - self.wanted) / 10 - (self.fuel_price if action == HEAT else 0)
        return self.observe(), reward, False, False, {}
