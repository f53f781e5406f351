"""Writes how Gymnasium flattens composite spaces and their elements, to check ours against.

    pip install gymnasium "numpy<2.5"
    python tests/oracles/gymnasium_flatten.py

The result, `common/tests/fixtures/gymnasium_flatten.json`, is read by `common/tests/flatten_oracle.rs`.
"""

import json
import pathlib

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Tuple
from gymnasium.spaces.utils import flatten, flatten_space

FIXTURE = pathlib.Path(__file__).parents[2] / "common" / "tests" / "fixtures" / "gymnasium_flatten.json"

SPACES = [
    Dict({"position": Box(-1, 2, (3,), np.float32), "goal": Discrete(4), "arm": MultiDiscrete([2, 3])}),
    Tuple((Discrete(3), Box(0, 1, (2, 2), np.float32), Discrete(2))),
    Dict({
        "camera": Tuple((Box(0, 255, (2, 3), np.uint8), Discrete(2))),
        "body": Dict({"speed": Box(np.float32([-5, -np.inf]), np.float32([5, np.inf]), dtype=np.float32), "gear": Discrete(6)}),
    }),
]


def description(space):
    """The space as the test builds it."""
    if isinstance(space, Dict):
        return {"dict": {name: description(part) for name, part in space.spaces.items()}}
    if isinstance(space, Tuple):
        return {"tuple": [description(part) for part in space.spaces]}
    if isinstance(space, Discrete):
        return {"choices": [int(space.n)], "discrete": True}
    if isinstance(space, MultiDiscrete):
        return {"choices": space.nvec.tolist(), "discrete": False}
    low, high = (list(map(str, bound.reshape(-1).tolist())) for bound in (space.low, space.high))
    return {"low": low, "high": high, "shape": list(space.shape), "bytes": space.dtype == np.uint8}


def leaves(space, element, path=""):
    """Paths and values of the parts without parts."""
    inner = lambda name: f"{path}.{name}" if path else str(name)
    if isinstance(space, Dict):
        return [leaf for name, part in space.spaces.items() for leaf in leaves(part, element[name], inner(name))]
    if isinstance(space, Tuple):
        return [leaf for i, part in enumerate(space.spaces) for leaf in leaves(part, element[i], inner(i))]
    return [[path, np.asarray(element).reshape(-1).tolist()]]


def main():
    cases = []
    for seed, space in enumerate(SPACES):
        space.seed(seed)
        flat = flatten_space(space)
        elements = [space.sample() for _ in range(4)]
        cases.append({
            "space": description(space),
            "low": list(map(str, flat.low.tolist())),
            "high": list(map(str, flat.high.tolist())),
            "elements": [leaves(space, element) for element in elements],
            "flat": [flatten(space, element).astype(float).tolist() for element in elements],
        })
    versions = {"gymnasium": gymnasium.__version__, "numpy": np.__version__}
    FIXTURE.write_text(json.dumps({"versions": versions, "cases": cases}, separators=(",", ":")) + "\n")
    print(FIXTURE.name, versions)


if __name__ == "__main__":
    main()
