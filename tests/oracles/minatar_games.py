"""Records what the games of the `minatar` package do, for the native ones to be held against.

Writes `actor/tests/fixtures/minatar/GAME.json`, which `actor/tests/environments/minatar.rs` reads. Everything goes through the package's
Gymnasium class. Its random generator is replaced by one that keeps what it draws, so that the native game can be given the
same draws. Besides random play there is a player that looks ahead on copies of the game, which gets to what random play never
sees: a cleared wall, a second wave, a full crew of divers, the highest difficulty. Running it again gives the same files:

    python3 -m venv VENV && VENV/bin/pip install minatar==1.0.15 gymnasium==1.4.0 numpy==2.4.6
    VENV/bin/python tests/oracles/minatar_games.py [GAME...]
"""

import copy
import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import gymnasium
import numpy as np
from minatar.gym import BaseEnv

FOLDER = Path(__file__).parents[2] / "actor/tests/fixtures/minatar"

# Every so many steps an observation is stored whole, for people who look for a difference.
FRAME_INTERVAL = 500

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class Recorder:
    """Takes the place of a RandomState and keeps each draw as a number below 65536: of a real one the interval of width
    1/65536 whose middle it is, of an integer its distance from the smallest."""

    def __init__(self, seed):
        self.random = np.random.RandomState(seed)
        self.drawn = []

    def rand(self, size=None):
        k = self.random.randint(65536, size=size)
        self.drawn.extend(np.atleast_1d(k).tolist())
        return (k + 0.5) / 65536

    def randint(self, low, high=None, size=None):
        if high is None:
            low, high = 0, low
        k = self.random.randint(high - low, size=size)
        self.drawn.extend(np.atleast_1d(k).tolist())
        return k + low

    def __deepcopy__(self, _memo):
        # A copy of the game is for looking ahead, which is not recorded and knows nothing of what is to come.
        return np.random.RandomState(len(self.drawn))


# What a player who looks ahead wants beside points, by game.


def nothing(_game):
    return 0.0


def near_the_ball(game):
    """Where the ball comes down, the paddle should be."""
    x, y, (dx, dy) = game.ball_x, game.ball_y, [(-1, -1), (1, -1), (1, 1), (-1, 1)][game.ball_dir]
    if dy < 0:
        return -0.01 * abs(game.pos - x)
    for _ in range(8 - y):
        x += dx
        if not 0 <= x <= 9:
            x, dx = min(max(x, 0), 9), -dx
    return -0.05 * abs(game.pos - x)


def crew_on_board(game):
    """Divers, air, and the way up where it is time."""
    wish = 0.5 * min(game.diver_count, 6)
    if game.diver_count > 0 and (game.diver_count >= 6 or game.oxygen < 50):
        return wish - 0.3 * game.sub_y
    if game.diver_count >= 0 and game.divers:
        wish -= 0.02 * min(abs(d[0] - game.sub_x) + abs(d[1] - game.sub_y) for d in game.divers)
    return wish


def upwards(game):
    return -0.05 * game.pos


WISHES = {"breakout": near_the_ball, "asterix": nothing, "freeway": upwards, "seaquest": crew_on_board,
          "space_invaders": nothing}


def look_ahead(env, wish, depth, rollouts, rng):
    """The action after which random play of `depth` steps goes best, on average."""
    game = env.game.env
    scores = []
    for action in env.action_set:
        total = 0.0
        for _ in range(rollouts):
            clone = copy.deepcopy(game)
            reward, over = clone.act(action)
            gained, worth = float(reward), 1.0
            for _ in range(depth):
                if over:
                    break
                worth *= 0.95
                reward, over = clone.act(int(rng.integers(6)))
                gained += worth * float(reward)
            total += gained - 5.0 * worth * over + worth * wish(clone)
        scores.append(total)
    best = np.flatnonzero(np.array(scores) == max(scores))
    return int(rng.choice(best))


def events(name, game, reward, over, points):
    """Rare things that just happened, by name; `points` are those of the episode so far."""
    if reward > 1:
        yield "several points at once"
    if name == "breakout" and points == 31:
        yield "a second wall"
    if name in ("asterix", "seaquest", "space_invaders"):
        yield f"ramp {game.ramp_index}"
    if name == "freeway":
        if reward:
            yield "crossed"
        if over:
            yield "time is over"
    if name == "seaquest":
        if game.diver_count == 6:
            yield "six divers on board"
        if game.diver_count < 0:
            yield "a diver is owed"
        if reward and game.surface and game.sub_y == 0 and game.oxygen == 200:
            yield "paid at the surface"
        if over and game.oxygen <= 0:
            yield "out of oxygen"
        if over and game.sub_y == 0 and game.diver_count == 0 and not game.surface:
            yield "surfaced without divers"
    if name == "space_invaders":
        if over and game.alien_map[9].any():
            yield "an alien landed"
        if over and game.alien_map[0].any() and game.alien_map[8].any():
            yield "aliens from top to bottom"


def record(name, minimal, steps, seed, skill, sticky=0.1, ramping=True, depth=10, rollouts=2):
    """Plays `steps` steps, episode after episode. In each episode a share of up to `skill` of the actions is chosen by
    looking ahead and the rest at random."""
    env = BaseEnv(name, use_minimal_action_set=minimal, sticky_action_prob=sticky, difficulty_ramping=ramping)
    rng = np.random.default_rng(seed)
    recorder = Recorder(seed)
    env.game.random = env.game.env.random = recorder
    observation, _ = env.reset()
    assert env.observation_space.dtype == bool and env.observation_space.shape == observation.shape

    # FNV-1a, 64 bits, over all observations so far: a difference at any step shows in all that follow.
    state = 0xCBF29CE484222325
    hashes, frames, actions, rewards, ends, rare = [], [], [], [], [], {}

    def see(observation, step):
        nonlocal state
        for byte in observation.astype(np.uint8).tobytes():
            state = ((state ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
        hashes.append(state >> 48)
        if step % FRAME_INTERVAL == 0:
            frames.append(np.packbits(observation.reshape(-1)).tobytes().hex())

    see(observation, 0)
    play = skill if skill in (0.0, 1.0) else rng.uniform(0.5, 1.0) * skill
    for step in range(1, steps + 1):
        action = int(rng.integers(env.action_space.n))
        if rng.random() < play:
            action = look_ahead(env, WISHES[name], depth, rollouts, rng)
        observation, reward, terminated, truncated, _ = env.step(action)
        assert not truncated and reward == int(reward)
        actions.append(action)
        rewards.append(int(reward))
        see(observation, step)
        for event in events(name, env.game.env, reward, terminated, sum(rewards[ends[-1] if ends else 0 :])):
            rare[event] = rare.get(event, 0) + 1
        if terminated:
            ends.append(step)
            # The first observation of the next episode.
            observation, _ = env.reset()
            see(observation, 1)
            play = skill if skill in (0.0, 1.0) else rng.uniform(0.5, 1.0) * skill
    best = max(map(sum, np.split(rewards, ends)))
    print(f"{name:15} minimal={minimal!s:5} skill={skill}: {steps} steps, {len(ends)} episodes, best {best}, {rare}")
    return {
        "minimal": minimal,
        "sticky_action_prob": sticky,
        "difficulty_ramping": ramping,
        "observation_shape": list(env.observation_space.shape),
        "action_n": int(env.action_space.n),
        "actions": "".join(DIGITS[action] for action in actions),
        "rewards": "".join(DIGITS[reward] for reward in rewards),
        "ends": ends,
        "draws": "".join(f"{k:04x}" for k in recorder.drawn),
        "hashes": "".join(f"{h:04x}" for h in hashes),
        "frames": frames,
    }, rare


# What must have happened in the recordings of each game.
NEEDED = {
    "breakout": ["a second wall"],
    "asterix": ["ramp 8"],
    "freeway": ["crossed", "time is over"],
    "seaquest": ["six divers on board", "a diver is owed", "paid at the surface", "out of oxygen",
                 "surfaced without divers", "ramp 5"],
    "space_invaders": ["an alien landed", "ramp 4"],
}


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(WISHES):
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        played = [
            record(name, minimal=False, steps=4000, seed=10 * seed, skill=0.0),
            record(name, minimal=True, steps=3000, seed=10 * seed + 1, skill=0.0),
            record(name, minimal=True, steps=6000, seed=10 * seed + 2, skill=1.0),
            record(name, minimal=False, steps=3000, seed=10 * seed + 3, skill=0.8),
            record(name, minimal=False, steps=1500, seed=10 * seed + 4, skill=0.9, sticky=0.25, ramping=False),
            record(name, minimal=True, steps=2500, seed=10 * seed + 5, skill=1.0, sticky=0.0, depth=14, rollouts=4),
        ]
        missing = [event for event in NEEDED[name] if not any(event in rare for _, rare in played)]
        if missing:
            sys.exit(f"{name}: {missing} did not happen")
        fixture = {
            "minatar": version("minatar"),
            "gymnasium": gymnasium.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "frame_interval": FRAME_INTERVAL,
            "recordings": [recording for recording, _ in played],
        }
        path = FOLDER / f"{name}.json"
        path.write_text(json.dumps(fixture, indent=1) + "\n")
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
