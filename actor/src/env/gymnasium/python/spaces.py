# Spaces: how observations become rows of numbers for the actor, and its numbers actions for Gymnasium.
#
# Second part of the worker's program.

import numpy as np
from gymnasium import spaces


def describe(space):
    """The space as the actor reads it; dictionaries become parts in alphabetical order."""
    if isinstance(space, spaces.Discrete):
        return {"type": "discrete", "n": int(space.n)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"type": "multi_discrete", "nvec": [int(n) for n in space.nvec.ravel()]}
    if isinstance(space, spaces.MultiBinary):
        zeros = np.zeros(space.shape)
        return describe_box(zeros, zeros + 1, "f32")
    if isinstance(space, spaces.Box):
        return describe_box(space.low, space.high, "u8" if space.dtype == np.uint8 else "f32")
    if isinstance(space, spaces.Dict):
        return {"type": "dict", "parts": {str(name): describe(space[name]) for name in space.keys()}}
    if isinstance(space, spaces.Tuple):
        return {"type": "tuple", "parts": [describe(part) for part in space.spaces]}
    raise Unsupported(
        f"{space} has no fixed number of numbers: spaces may be Discrete, MultiDiscrete, MultiBinary, Box, and Dict and "
        "Tuple of these; a wrapper (environment.wrappers) can turn it into one of them"
    )


def describe_box(low, high, dtype):
    # JSON has no infinity, so bounds travel as the bytes of little-endian f32.
    with np.errstate(over="ignore"):
        low, high = (np.asarray(bound).astype("<f4") for bound in (low, high))
    return {"type": "box", "low": low.tobytes().hex(), "high": high.tobytes().hex(), "shape": low.shape, "dtype": dtype}


def describe_actions(space):
    """The space of actions: choices or real numbers, all of one kind where there are several parts."""
    leaves = list(parts(space))
    if len(leaves) == 1 and isinstance(leaves[0], (spaces.Discrete, spaces.Box)):
        leaf = leaves[0]
        return describe(leaf) if isinstance(leaf, spaces.Discrete) else describe_box(leaf.low, leaf.high, "f32")
    if all(isinstance(leaf, spaces.Box) for leaf in leaves):
        bounds = (np.concatenate([getattr(leaf, b).ravel() for leaf in leaves]) for b in ("low", "high"))
        return describe_box(*bounds, "f32")
    if any(isinstance(leaf, spaces.Box) for leaf in leaves):
        raise Unsupported(
            f"actions of {space} mix choices with real numbers: a policy has one kind; a wrapper (environment.wrappers) "
            "can turn them into one"
        )
    return {"type": "multi_discrete", "nvec": [int(n) for leaf in leaves for n in counts(leaf)]}


def parts(space):
    """The spaces without parts, in the order in which their numbers stand."""
    if isinstance(space, spaces.Dict):
        for name in sorted(space.keys(), key=str):
            yield from parts(space[name])
    elif isinstance(space, spaces.Tuple):
        for part in space.spaces:
            yield from parts(part)
    else:
        describe(space)  # Raises where there is no form.
        yield space


def counts(space):
    """Alternatives of each choice."""
    if isinstance(space, spaces.Discrete):
        return [space.n]
    if isinstance(space, spaces.MultiBinary):
        return [2] * int(np.prod(space.shape))
    return space.nvec.ravel()


def choice_starts(space):
    """The number of the first alternative of each choice, which is 0 for the actor."""
    if isinstance(space, spaces.MultiBinary):
        return np.zeros(int(np.prod(space.shape)), np.int64)
    return np.asarray(space.start, np.int64).ravel()


def observation_writer(space, rows):
    """A function (copy, observation) that writes into `rows`, [E, ...]."""
    if isinstance(space, spaces.Discrete):
        start = int(space.start)

        def write(copy, observation):
            rows[copy] = observation - start

    elif isinstance(space, spaces.MultiDiscrete):

        def write(copy, observation):
            rows[copy] = (observation - space.start).ravel()

    elif isinstance(space, (spaces.Box, spaces.MultiBinary)):
        write = rows.__setitem__
    else:
        write = flat_writer(space, rows)
    return write


def flat_writer(space, rows):
    """Writes parts one after another: numbers as they are, bytes divided by the largest of their space, choices as one-hot codes."""
    writers, offset = [], 0

    def place(space, path):
        nonlocal offset
        if isinstance(space, spaces.Dict):
            for name in sorted(space.keys(), key=str):
                place(space[name], (*path, name))
        elif isinstance(space, spaces.Tuple):
            for number, part in enumerate(space.spaces):
                place(part, (*path, number))
        elif isinstance(space, (spaces.Box, spaces.MultiBinary)):
            size = int(np.prod(space.shape))
            unit = space.dtype == np.uint8 and isinstance(space, spaces.Box) and np.float32(space.high.max())
            writers.append((path, slice(offset, offset + size), None, unit))
            offset += size
        else:
            sizes = np.asarray(counts(space), np.int64)
            first = offset + np.cumsum(sizes) - sizes
            writers.append((path, slice(offset, offset + int(sizes.sum())), first - choice_starts(space), None))
            offset += int(sizes.sum())

    place(space, ())

    def write(copy, observation):
        row = rows[copy]
        for path, place, ones, unit in writers:
            part = observation
            for step in path:
                part = part[step]
            if unit:
                row[place] = np.ravel(part) / unit
            elif ones is None:
                row[place] = np.ravel(part)
            else:
                row[place] = 0.0
                row[ones + np.ravel(part)] = 1.0

    return write


def action_reader(space, rows):
    """A function that turns `rows`, [E, ...], into the actions of all copies: an array [E, ...], or a list."""
    if isinstance(space, spaces.Discrete):
        start = np.int64(space.start)
        return lambda: rows + start
    if isinstance(space, spaces.MultiDiscrete):
        return lambda: (rows.reshape(-1, *space.shape) + space.start).astype(space.dtype)
    if isinstance(space, spaces.MultiBinary):
        return lambda: rows.reshape(-1, *space.shape).astype(space.dtype)
    if isinstance(space, spaces.Box):
        return box_reader(space, rows)
    return composite_reader(space, rows)


def box_reader(space, rows):
    """Clips into the bounds, which a Gaussian does not know; whole numbers are rounded."""
    rows = rows.reshape(-1, *space.shape)
    low, high, whole = space.low, space.high, np.issubdtype(space.dtype, np.integer)
    bounded = bool((np.isfinite(low) | np.isfinite(high)).any())

    def read():
        actions = rows.astype(np.float64 if whole else space.dtype)
        if whole:
            actions = np.rint(actions)
        if bounded:
            actions = np.minimum(np.maximum(actions, low), high)
        return actions.astype(space.dtype, copy=False)

    return read


def composite_reader(space, rows):
    rows = rows.reshape(len(rows), -1)
    readers, offset = [], 0
    for leaf in parts(space):
        size = int(np.prod(leaf.shape)) if isinstance(leaf, spaces.Box) else len(counts(leaf))
        part = rows[:, offset : offset + size]
        readers.append(action_reader(leaf, part[:, 0] if isinstance(leaf, spaces.Discrete) else part))
        offset += size

    def assemble(space, leaves):
        if isinstance(space, spaces.Dict):
            made = {name: assemble(space[name], leaves) for name in sorted(space.keys(), key=str)}
            return {name: made[name] for name in space.keys()}
        if isinstance(space, spaces.Tuple):
            return tuple(assemble(part, leaves) for part in space.spaces)
        return next(leaves)

    return lambda: [assemble(space, iter(leaves)) for leaves in zip(*(reader() for reader in readers))]
