# The worker: makes the copies, shares memory with the actor, and does what it rings for.
#
# Sixth and last part of the worker's program.

import gc
import mmap


class Arrays:
    """What is shared with the actor, [E, ...] each, where it says that they lie."""

    def __init__(self, memory, layout):
        for name, (offset, dtype, shape) in layout.items():
            count = int(np.prod(shape))
            setattr(self, name, np.frombuffer(memory, dtype, count, offset).reshape(shape))


def describe_copies(copies, picture):
    return {
        "observation": describe(copies.observation_space),
        "action": describe_actions(copies.action_space),
        "max_episode_steps": getattr(copies.spec, "max_episode_steps", None),
        "reward_threshold": getattr(copies.spec, "reward_threshold", None),
        "stepping": copies.stepping,
        "picture": picture,
    }


def main():
    request = bell.receive()
    copies = make(request["name"], request["copies"], request["options"], request["filmed"])
    filmed, picture = film(copies, request["options"]) if request["filmed"] else (None, None)
    bell.send(b".", describe_copies(copies, picture))
    layout = bell.receive()
    arrays = Arrays(mmap.mmap(memory, 0), layout)
    copies.attach(arrays)
    if filmed is not None:
        filmed.attach(arrays)
    work = {b"r": copies.reset, b"s": copies.step}
    # What exists by now lives as long as the copies: no search for garbage needs to look at it.
    gc.collect()
    gc.freeze()
    wait, answer, alone = bell.wait, bell.answer, None
    while ring := wait(1):
        if ring == b"t":
            alone = alone or Alone(copies)
            (steps,) = struct.unpack("<I", bell.exactly(4))
            answer(b"." + struct.pack("<d", alone.seconds(steps)))
        else:
            work[ring]()
            answer(b".")
    copies.close()


main()
