"""Records episodes as Gymnasium's FrameStackObservation shows them, to check ours against.

    pip install gymnasium "numpy<2.5"
    python tests/oracles/gymnasium_frame_stack.py

The result, `common/tests/fixtures/gymnasium_frame_stack.json`, is read by `common/tests/frame_stack_oracle.rs`.
"""

import json
import pathlib

import gymnasium
import numpy as np
from gymnasium.wrappers import FrameStackObservation, TimeLimit

FIXTURE = (
    pathlib.Path(__file__).parents[2] / "common" / "tests" / "fixtures" / "gymnasium_frame_stack.json"
)


class Pixels(gymnasium.Env):
    """Random pictures of 2 x 3 bytes; an episode terminates with probability 1/8 a step."""

    observation_space = gymnasium.spaces.Box(0, 255, (2, 3), np.uint8)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.picture(), {}

    def step(self, action):
        return self.picture(), 0.0, bool(self.np_random.integers(8) == 0), False, {}

    def picture(self):
        return self.np_random.integers(0, 256, (2, 3), dtype=np.uint8)


def record(env, stack, steps, seed):
    """Frames and stacks of `steps` steps, one list of observations an episode: the first one, then one a step."""
    env = FrameStackObservation(TimeLimit(env, 9), stack)
    env.action_space.seed(seed)
    episodes = []
    while steps > 0:
        stacked, _ = env.reset(seed=seed if not episodes else None)
        episode = {"frames": [], "stacks": []}
        terminated = truncated = False
        while True:
            episode["frames"].append(stacked[-1].reshape(-1).tolist())
            episode["stacks"].append(stacked.reshape(-1).tolist())
            if terminated or truncated or steps == 0:
                break
            stacked, _, terminated, truncated, _ = env.step(env.action_space.sample())
            steps -= 1
        episodes.append(episode | {"terminated": bool(terminated), "truncated": bool(truncated)})
    return episodes


def main():
    cases = []
    for seed, (name, make) in enumerate([("CartPole-v1", None), ("Pixels", Pixels)]):
        for stack in (2, 4, 5):
            env = make() if make else gymnasium.make(name).unwrapped
            space = FrameStackObservation(env, stack).observation_space
            cases.append({
                "environment": name,
                "bytes": bool(space.dtype == np.uint8),
                "stack": stack,
                "shape": list(space.shape),
                "episodes": record(env, stack, 60, seed),
            })
    versions = {"gymnasium": gymnasium.__version__, "numpy": np.__version__}
    FIXTURE.write_text(json.dumps({"versions": versions, "cases": cases}, separators=(",", ":")) + "\n")
    ends = [(sum(e["terminated"] for e in c["episodes"]), sum(e["truncated"] for e in c["episodes"])) for c in cases]
    print(FIXTURE.name, versions, "ends", ends)


if __name__ == "__main__":
    main()
