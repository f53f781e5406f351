"""Writes frames of an Atari game as the policy sees them one at a time, for the benchmark of compression.

    pip install gymnasium ale-py
    python benchmarks/dump_frames.py pong /tmp/pong.frames
    IMPRESARIO_FRAMES=/tmp/pong.frames cargo bench -p impresario-common --bench compression

21 rows of 16 copies, 84 x 84 grey bytes each, after 60 random steps: every fourth frame, the larger of the last two.
"""

import pathlib
import sys

import ale_py
import numpy as np
from ale_py.vector_env import AtariVectorEnv

COPIES, WARM_UP, ROWS = 16, 60, 21


def main(game, path):
    envs = AtariVectorEnv(game=game, num_envs=COPIES, stack_num=1)
    envs.reset(seed=0)
    random = np.random.default_rng(0)
    rows = []
    for _ in range(WARM_UP + ROWS):
        observations, *_ = envs.step(random.integers(0, envs.single_action_space.n, COPIES))
        rows.append(np.array(observations).reshape(COPIES, 84, 84))
    pathlib.Path(path).write_bytes(np.stack(rows[WARM_UP:]).tobytes())
    print(f"{path}: {game}, ale-py {ale_py.__version__}, [{ROWS}, {COPIES}, 84, 84]")


if __name__ == "__main__":
    main(*sys.argv[1:])
