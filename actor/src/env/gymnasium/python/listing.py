# What Gymnasium's registry holds, for `impresario envs`.
#
# Second and last part of that program.

import gymnasium


def group(spec):
    """The namespace, or the part of Gymnasium or the package that the environment comes from."""
    entry = spec.entry_point or spec.vector_entry_point
    module = entry.partition(":")[0] if isinstance(entry, str) else entry.__module__
    own = module.removeprefix("gymnasium.envs.")
    return spec.namespace or (own if own != module else module).partition(".")[0]


listed = list(known())
newest = {}
for spec in listed:
    key = (spec.namespace, spec.name)
    if key not in newest or (spec.version or 0) > (newest[key].version or 0):
        newest[key] = spec
bell.receive()
bell.send(
    b".",
    [
        {
            "id": spec.id,
            "group": group(spec),
            "max_episode_steps": spec.max_episode_steps,
            "reward_threshold": spec.reward_threshold,
            "newer": newer.id if (newer := newest[spec.namespace, spec.name]) is not spec else None,
        }
        for spec in listed
    ],
)
