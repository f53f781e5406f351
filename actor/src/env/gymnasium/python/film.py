# Pictures of the first copy, for people to look at.
#
# Fourth part of the worker's program.

# Without a screen MuJoCo draws with EGL, if nobody has said otherwise.
if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
    os.environ.setdefault("MUJOCO_GL", "egl")


def check_that_it_draws(spec):
    entry = spec.entry_point
    entry = gymnasium.envs.registration.load_env_creator(entry) if isinstance(entry, str) else entry
    if entry is None:
        raise Unsupported(f"{spec.id} comes as a vector of copies only, which does not draw itself")
    modes = getattr(entry, "metadata", {}).get("render_modes")
    if modes is not None and "rgb_array" not in modes:
        raise Unsupported(f"{spec.id} does not draw itself: its render_modes are {modes}, without rgb_array")


class Filmed(gymnasium.Wrapper):
    """Keeps a picture after each reset and step, where the actor sees it: `pictures` [2, H, W, 3], as many as `shots` [1] says."""

    def __init__(self, env):
        super().__init__(env)
        env.reset(seed=0)
        self.shape, self.arrays = self.picture().shape, None

    def picture(self):
        picture = np.asarray(self.env.render())
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise Unsupported(
                f"{self.env} does not draw itself: render gives {picture.dtype} {picture.shape} and should give uint8 [H, W, 3]"
            )
        return picture

    def attach(self, arrays):
        self.arrays = arrays

    def reset(self, **kwargs):
        begun = self.env.reset(**kwargs)
        self.shoot()
        return begun

    def step(self, action):
        taken = self.env.step(action)
        self.shoot()
        return taken

    def shoot(self):
        # Whoever sees the pictures counts from 0 again.
        shot = int(self.arrays.shots[0])
        # A loop that is timed takes more steps than there is room for.
        if shot < len(self.arrays.pictures):
            self.arrays.pictures[shot] = self.picture()
            self.arrays.shots[0] = shot + 1


def film(copies, options):
    """Has the first copy keep pictures; what to expect of them."""
    filmed = copies.envs[0] = Filmed(copies.envs[0])
    if is_atari(filmed.spec.id):
        # The emulator shows sixty frames a second.
        seconds = options["atari"]["frame_skip"] / 60
    else:
        seconds = 1 / (filmed.metadata.get("render_fps") or 30)
    height, width, _ = filmed.shape
    return filmed, {"height": height, "width": width, "seconds": seconds}
