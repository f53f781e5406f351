# What steps cost alone: the same copies in a plain loop, without what the bridge adds.
#
# Fifth part of the worker's program.

import copy
import time

# Rows of actions that are drawn ahead.
ROWS = 256


class Alone:
    """Takes steps at random, and times them."""

    def __init__(self, copies):
        space = copy.deepcopy(copies.action_space)
        space.seed(1)
        rows = [[space.sample() for _ in range(len(copies.seeds))] for _ in range(ROWS)]
        self.step, self.rows = copies.step_alone, [as_plain_loops_have_them(copies, row) for row in rows]

    def seconds(self, steps):
        step, rows = self.step, self.rows
        start = time.perf_counter()
        for number in range(steps):
            step(rows[number % ROWS])
        return time.perf_counter() - start


def as_plain_loops_have_them(copies, row):
    if isinstance(copies, Vector):
        return batched(copies.action_space, copies.vector.action_space, row)
    if isinstance(copies, OneByOne):
        return [batched(copies.action_space, copies.vectors[0].action_space, [action]) for action in row]
    return [int(action) for action in row] if isinstance(copies.action_space, spaces.Discrete) else row
