# Copies of an environment, stepped together. Episodes restart in the step in which they end: the observation in which
# one ended goes to `finals`, that in which the next begins to `observations`.
#
# Third part of the worker's program.

import functools
import importlib
import inspect

import gymnasium
from gymnasium.vector import AutoresetMode, VectorEnv


def make(name, count, options, filmed):
    """`count` copies of the environment called `name`, the first of which draws itself if it is filmed."""
    name = register(name)
    wrappers = [wrapper(asked) for asked in options["wrappers"]]
    atari = options["atari"] if is_atari(name) and options["atari"]["preprocess"] else None
    kwargs = dict(options["kwargs"])
    if options["max_episode_steps"] > 0:
        kwargs["max_episode_steps"] = options["max_episode_steps"]
    spec = gymnasium.spec(name)
    if filmed:
        check_that_it_draws(spec)
        kwargs["render_mode"] = "rgb_array"
    if atari is not None:
        return make_atari(name, count, spec, kwargs, wrappers, atari, filmed)
    # The emulator's own vector prepares frames, always; vectors do not draw.
    if spec.vector_entry_point is not None and not wrappers and not filmed and not is_atari(name):
        vector = make_vector(name, count, spec, kwargs)
        if vector.stepping == "vector" or spec.entry_point is None:
            return vector
        vector.close()
    if spec.entry_point is None:
        raise Unsupported(f"{name} comes as a vector of copies only, which environment.wrappers cannot wrap: leave them out")
    return Loop([wrapped(gymnasium.make(name, disable_env_checker=True, **kwargs), wrappers) for _ in range(count)])


def is_atari(name):
    return name.startswith("ALE/")


def register(name):
    """Imports what registers the environment: `module` of `module:name`, ale_py for Atari games. Gives the bare name."""
    module, _, name = name.rpartition(":")
    if module:
        importlib.import_module(module)
    if is_atari(name):
        gymnasium.register_envs(importlib.import_module("ale_py"))
    return name


def wrapper(asked):
    """A function that puts a wrapper around an environment: that of a name, or of a name with arguments."""
    if isinstance(asked, str):
        return imported(asked)
    return functools.partial(imported(asked["name"]), **asked["kwargs"])


def imported(path):
    module, _, attribute = path.partition(":")
    found = importlib.import_module(module)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise Unsupported(f"the wrapper {path} does not exist: {found.__name__} has no {part}")
        found = getattr(found, part)
    return found


def wrapped(env, wrappers):
    for wrap in wrappers:
        env = wrap(env)
    return env


def make_atari(name, count, spec, kwargs, wrappers, atari, filmed):
    """Grey or coloured frames of one size, several frames a step, no-op starts. Stacking is the actor's business."""
    limit = kwargs.pop("max_episode_steps", 0)
    game = {
        "repeat_action_probability": atari["sticky_actions"],
        "full_action_space": atari["full_action_set"],
        "max_num_frames_per_episode": limit * atari["frame_skip"] or spec.kwargs["max_num_frames_per_episode"],
        **kwargs,
    }
    lives = Lives(count) if atari["life_loss"] else None
    if wrappers or filmed or atari["frame_skip"] == 1:
        from gymnasium.wrappers import AtariPreprocessing

        def copy():
            env = gymnasium.make(name, frameskip=1, disable_env_checker=True, **game)
            env = AtariPreprocessing(
                env,
                noop_max=atari["noop_max"],
                frame_skip=atari["frame_skip"],
                screen_size=atari["screen_size"],
                grayscale_obs=atari["grayscale"],
            )
            return wrapped(env, wrappers)

        return Loop([copy() for _ in range(count)], lives)
    vector = gymnasium.make_vec(
        name,
        count,
        vectorization_mode="vector_entry_point",
        autoreset_mode=AutoresetMode.SAME_STEP,
        frameskip=atari["frame_skip"],
        maxpool=True,
        stack_num=1,
        noop_max=atari["noop_max"],
        img_height=atari["screen_size"],
        img_width=atari["screen_size"],
        grayscale=atari["grayscale"],
        reward_clipping=False,
        episodic_life=False,
        use_fire_reset=False,
        num_threads=atari["threads"],
        **game,
    )
    # A stack of one frame is that frame.
    vector.single_observation_space = gymnasium.spaces.Box(0, 255, vector.single_observation_space.shape[1:], np.uint8)
    return SameStep(vector, lives)


def make_vector(name, count, spec, kwargs):
    """The environment's own vector, in the mode in which episodes restart soonest."""
    vector = ask_for_mode(name, count, spec, kwargs)
    mode = vector.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
    if mode == AutoresetMode.SAME_STEP:
        return SameStep(vector)
    if mode == AutoresetMode.DISABLED:
        return Vector(vector)
    if count == 1:
        return OneByOne([vector])
    vector.close()
    return OneByOne([own_vector(name, 1, kwargs) for _ in range(count)])


def ask_for_mode(name, count, spec, kwargs):
    entry = spec.vector_entry_point
    entry = gymnasium.envs.registration.load_env_creator(entry) if isinstance(entry, str) else entry
    if "autoreset_mode" in inspect.signature(entry).parameters and "autoreset_mode" not in kwargs:
        for mode in (AutoresetMode.SAME_STEP, AutoresetMode.DISABLED):
            try:
                return own_vector(name, count, {"autoreset_mode": mode, **kwargs})
            except (ValueError, gymnasium.error.Error):
                pass  # Not every vector knows every mode.
    return own_vector(name, count, kwargs)


def own_vector(name, count, kwargs):
    return gymnasium.make_vec(name, count, vectorization_mode="vector_entry_point", **kwargs)


class Lives:
    """Says when a life is lost and the game goes on: the end of an episode for learning only."""

    def __init__(self, count):
        self.left = [0] * count

    def begin(self, copy, lives):
        self.left[copy] = lives

    def lost(self, copy, lives):
        fewer = 0 < lives < self.left[copy]
        self.left[copy] = lives
        return fewer


class Copies:
    """What all kinds share: the arrays that the actor sees, and the loss of lives."""

    def attach(self, arrays):
        """`arrays` holds what is shared with the actor, [E, ...] each."""
        self.rewards, self.terminated, self.truncated = arrays.rewards, arrays.terminated, arrays.truncated
        self.goes_on, self.seeds = arrays.goes_on, arrays.seeds
        self.write = observation_writer(self.observation_space, arrays.observations)
        self.write_final = observation_writer(self.observation_space, arrays.finals)
        self.read_actions = action_reader(self.action_space, arrays.actions)

    def count_lives(self, copy, lives, over):
        if over:
            self.goes_on[copy] = 0
            self.lives.begin(copy, lives)
        else:
            self.goes_on[copy] = self.terminated[copy] = self.lives.lost(copy, lives)


class Loop(Copies):
    """Copies of their own, one after another."""

    stepping = "loop"

    def __init__(self, envs, lives=None):
        self.envs, self.lives = envs, lives
        self.observation_space, self.action_space = envs[0].observation_space, envs[0].action_space
        self.spec = envs[0].spec

    def reset(self):
        for copy, env in enumerate(self.envs):
            observation, _ = env.reset(seed=int(self.seeds[copy]))
            check_shape(self.observation_space, observation)
            self.write(copy, observation)
            if self.lives is not None:
                self.lives.begin(copy, env.unwrapped.ale.lives())

    def step(self):
        write, rewards, terminations, truncations = self.write, self.rewards, self.terminated, self.truncated
        actions = self.read_actions()
        if isinstance(self.action_space, spaces.Discrete):
            actions = actions.tolist()
        for copy, (env, action) in enumerate(zip(self.envs, actions)):
            observation, reward, terminated, truncated, _ = env.step(action)
            rewards[copy], terminations[copy], truncations[copy] = reward, terminated, truncated
            if terminated or truncated:
                self.write_final(copy, observation)
                observation, _ = env.reset()
            write(copy, observation)
            if self.lives is not None:
                self.count_lives(copy, env.unwrapped.ale.lives(), terminated or truncated)

    def step_alone(self, actions):
        """A step as it is without the bridge."""
        for env, action in zip(self.envs, actions):
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()

    def close(self):
        for env in self.envs:
            env.close()


class Vector(Copies):
    """The environment's own vector with autoreset DISABLED: copies whose episodes ended are reset at once."""

    stepping = "vector"

    def __init__(self, vector):
        self.vector, self.spec = vector, vector.spec
        self.observation_space, self.action_space = vector.single_observation_space, vector.single_action_space

    def attach(self, arrays):
        super().attach(arrays)
        self.write_all = batch_writer(self.observation_space, arrays.observations, self.write)
        self.write_finals = batch_writer(self.observation_space, arrays.finals, self.write_final)

    def reset(self):
        observations, info = reset_with(self.vector, self.seeds.copy())
        self.write_all(observations)
        return info

    def take_step(self):
        """Observations, in which copies an episode ended, and Gymnasium's notes."""
        actions = self.read_actions()
        if isinstance(actions, list):
            actions = batched(self.action_space, self.vector.action_space, actions)
        observations, self.rewards[:], terminated, truncated, info = self.vector.step(actions)
        self.terminated[:], self.truncated[:] = terminated, truncated
        return observations, np.logical_or(terminated, truncated), info

    def step(self):
        observations, ended, _ = self.take_step()
        if ended.any():
            self.write_finals(observations)
            observations, _ = self.vector.reset(options={"reset_mask": ended})
        self.write_all(observations)

    def step_alone(self, actions):
        """A step as it is without the bridge."""
        _, _, terminated, truncated, _ = self.vector.step(actions)
        ended = terminated | truncated
        if ended.any():
            self.vector.reset(options={"reset_mask": ended})

    def close(self):
        self.vector.close()


class SameStep(Vector):
    """The environment's own vector, which resets copies in the step in which their episodes end."""

    def __init__(self, vector, lives=None):
        super().__init__(vector)
        self.lives = lives

    def reset(self):
        info = super().reset()
        if self.lives is not None:
            self.lives_left = info["lives"]
            self.lives.left = self.lives_left.tolist()

    def step(self):
        observations, ended, info = self.take_step()
        self.write_all(observations)
        any_ended = ended.any()
        if any_ended:
            for copy in np.flatnonzero(ended).tolist():
                self.write_final(copy, element(self.observation_space, info["final_obs"], copy))
        if self.lives is not None:
            self.goes_on.fill(0)
            left = info["lives"]
            # In most steps nobody loses one.
            if any_ended or (left != self.lives_left).any():
                for copy, left_to_copy in enumerate(left.tolist()):
                    self.count_lives(copy, left_to_copy, ended[copy])
                self.lives_left = left

    def step_alone(self, actions):
        """A step as it is without the bridge."""
        self.vector.step(actions)


class OneByOne(Copies):
    """Vectors of one copy each, which reset in the step after an episode's end: that step is taken here, at once."""

    stepping = "vectors of one copy"

    def __init__(self, vectors):
        self.vectors = vectors
        self.observation_space, self.action_space = vectors[0].single_observation_space, vectors[0].single_action_space
        self.spec = vectors[0].spec

    def reset(self):
        for copy, vector in enumerate(self.vectors):
            observation, _ = reset_with(vector, self.seeds[copy : copy + 1].copy())
            self.write(copy, element(self.observation_space, observation, 0))

    def step(self):
        actions = self.read_actions()
        for copy, vector in enumerate(self.vectors):
            action = actions[copy : copy + 1]
            if isinstance(action, list):
                action = batched(self.action_space, vector.action_space, action)
            observation, reward, terminated, truncated, _ = vector.step(action)
            self.rewards[copy], self.terminated[copy], self.truncated[copy] = reward[0], terminated[0], truncated[0]
            if terminated[0] or truncated[0]:
                self.write_final(copy, element(self.observation_space, observation, 0))
                # What the action is matters to nobody.
                observation, *_ = vector.step(action)
            self.write(copy, element(self.observation_space, observation, 0))

    def step_alone(self, actions):
        """A step as it is without the bridge."""
        for vector, action in zip(self.vectors, actions):
            _, _, terminated, truncated, _ = vector.step(action)
            if terminated[0] or truncated[0]:
                vector.step(action)

    def close(self):
        for vector in self.vectors:
            vector.close()


def reset_with(vector, seeds):
    """Resets all copies, each with a seed of its own where the vector takes several; else the first one's seed is for all."""
    for seed in (seeds, seeds.tolist()):
        try:
            return vector.reset(seed=seed)
        except (TypeError, ValueError, AssertionError, gymnasium.error.Error):
            pass
    return vector.reset(seed=int(seeds[0]))


def batch_writer(space, rows, write):
    """A function that writes the observations of all copies."""
    if isinstance(space, spaces.Box):
        shape = rows.shape

        def write_all(observations):
            rows[:] = observations.reshape(shape)

        return write_all

    def write_each(observations):
        for copy in range(len(rows)):
            write(copy, element(space, observations, copy))

    return write_each


def element(space, batch, copy):
    """The element of one copy in a batch of all, or in an array of objects."""
    if isinstance(batch, np.ndarray):
        return batch[copy]
    if isinstance(space, spaces.Dict):
        return {name: element(space[name], batch[name], copy) for name in space.keys()}
    return tuple(element(part, of_part, copy) for part, of_part in zip(space.spaces, batch))


def batched(space, batch_space, actions):
    """Actions of several parts, as a vector takes them."""
    room = gymnasium.vector.utils.create_empty_array(space, n=len(actions), fn=np.zeros)
    return gymnasium.vector.utils.concatenate(space, actions, room)


def check_shape(space, observation):
    if isinstance(space, spaces.Box) and np.shape(observation) != space.shape:
        raise ValueError(
            f"reset gave an observation of shape {np.shape(observation)}, but the observation space is {space}; "
            "correct one of the two"
        )
