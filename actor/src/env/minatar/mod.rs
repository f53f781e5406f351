//! MinAtar: five Atari games in miniature, on a grid of 10 x 10 cells.
//!
//! The rules are those of the `minatar` package, version 1.0.15 (Young and Tian, "MinAtar: An Atari-Inspired Testbed for Thorough and
//! Reproducible Reinforcement Learning Experiments", 2019, arXiv:1903.03176), its oddities included: given the same random
//! draws, every observation, reward and end is the same. Each game is a [`Game`] in a file of its own; [`MinAtar`] makes an
//! environment of it, with sticky actions and one of two action sets. As in the package, no episode has a
//! time limit but Freeway's, which is part of its rules (and so terminates).

pub mod asterix;
pub mod breakout;
mod draws;
pub mod freeway;
mod screen;
pub mod seaquest;
pub mod space_invaders;

use impresario_common::random::Stream;
use impresario_common::space::{ElementType, EnvironmentSpec, Space};

use super::picture::{Picture, hue};
use super::{Action, Environment, ObservationMut, Transition};

pub use asterix::Asterix;
pub use breakout::Breakout;
pub use draws::Draws;
pub use freeway::Freeway;
pub use screen::Screen;
pub use seaquest::Seaquest;
pub use space_invaders::SpaceInvaders;

/// Cells along each side of the screen.
pub const SIDE: usize = 10;

/// The last row and column.
const LAST: i32 = SIDE as i32 - 1;

/// What a player can do; not every game knows every key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Key {
    /// Nothing.
    #[default]
    Idle,
    /// Move left.
    Left,
    /// Move up.
    Up,
    /// Move right.
    Right,
    /// Move down.
    Down,
    /// Shoot.
    Fire,
}

impl Key {
    /// All keys, in the order that numbers them in the full action set.
    pub const ALL: [Self; 6] = [Self::Idle, Self::Left, Self::Up, Self::Right, Self::Down, Self::Fire];
}

/// What a key led to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Points.
    pub reward: u32,
    /// The game is over.
    pub over: bool,
}

/// The rules of one game.
pub trait Game: Default + Send {
    /// Its name: `Breakout`.
    const NAME: &'static str;

    /// Planes of the screen, each for one kind of thing.
    const CHANNELS: usize;

    /// The keys that this game knows, in the order that numbers them in the minimal action set.
    const KEYS: &'static [Key];

    /// Starts a game.
    fn start(&mut self, draws: &mut impl Draws);

    /// Presses a key for one step. With `ramping` the game gets harder as it goes on, if it can.
    fn play(&mut self, key: Key, ramping: bool, draws: &mut impl Draws) -> Outcome;

    /// Draws the present state on an empty screen.
    fn show(&self, screen: &mut Screen<'_>);
}

/// Which keys the agent's actions stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActionSet {
    /// All six in every game: the environments `MinAtar/GAME-v0`.
    Full,
    /// Those that the game knows: `MinAtar/GAME-v1`.
    Minimal,
}

/// How games are played.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Probability that a step repeats the key of the step before instead of pressing the agent's.
    pub sticky_action_prob: f64,
    /// Whether games get harder as they go on: Asterix, Seaquest and SpaceInvaders can.
    pub difficulty_ramping: bool,
}

impl Default for Options {
    /// The package's: sticky actions with probability 0.1, and ramping.
    fn default() -> Self {
        Self { sticky_action_prob: 0.1, difficulty_ramping: true }
    }
}

/// One copy of a game. Observation: bytes `[10, 10, C]` (row, column, kind of thing), 1 where there is such a thing and 0
/// elsewhere. Reward: the game's points.
#[derive(Debug, Clone)]
pub struct MinAtar<G> {
    game: G,
    actions: ActionSet,
    options: Options,
    /// The key of the last step, which a sticky step repeats; as in the package it outlives the episode.
    last: Key,
}

impl<G: Game> MinAtar<G> {
    /// A game with the package's options.
    pub fn new(actions: ActionSet) -> Self {
        Self::with_options(actions, Options::default())
    }

    /// A game.
    pub fn with_options(actions: ActionSet, options: Options) -> Self {
        Self { game: G::default(), actions, options, last: Key::Idle }
    }

    /// The keys that actions stand for, by number.
    fn keys(&self) -> &'static [Key] {
        match self.actions {
            ActionSet::Full => &Key::ALL,
            ActionSet::Minimal => G::KEYS,
        }
    }

    /// Starts an episode as [`Environment::reset`] does, whatever random draws come from.
    pub fn start(&mut self, draws: &mut impl Draws, observation: &mut [u8]) {
        self.game.start(draws);
        self.show(observation);
    }

    /// Takes one action as [`Environment::step`] does, whatever random draws come from.
    #[inline]
    pub fn play(&mut self, action: usize, draws: &mut impl Draws, observation: &mut [u8]) -> Outcome {
        if !draws.chance(self.options.sticky_action_prob) {
            self.last = self.keys()[action];
        }
        let outcome = self.game.play(self.last, self.options.difficulty_ramping, draws);
        self.show(observation);
        outcome
    }

    fn show(&self, observation: &mut [u8]) {
        self.game.show(&mut Screen::clear(observation, G::CHANNELS));
    }
}

impl<G: Game> Environment for MinAtar<G> {
    fn spec(&self) -> EnvironmentSpec {
        let version = match self.actions {
            ActionSet::Full => 0,
            ActionSet::Minimal => 1,
        };
        let shape = vec![SIDE, SIDE, G::CHANNELS];
        let len = shape.iter().product();
        let observation =
            Space::Box { low: vec![0.0; len], high: vec![1.0; len], shape, dtype: ElementType::U8 };
        let action = Space::Discrete { n: self.keys().len() as u32 };
        EnvironmentSpec::new(format!("MinAtar/{}-v{version}", G::NAME), observation, action)
    }

    /// A square for each cell, in the colour of the highest of its channels.
    fn render(&self) -> Option<Picture> {
        const CELL: usize = 16;
        const SECONDS: f64 = 0.1;
        let mut cells = vec![0; SIDE * SIDE * G::CHANNELS];
        self.show(&mut cells);
        let mut picture = Picture::new(SIDE * CELL, SIDE * CELL, [0; 3], SECONDS);
        for (place, channels) in cells.chunks_exact(G::CHANNELS).enumerate() {
            let Some(channel) = channels.iter().rposition(|&set| set == 1) else { continue };
            let corner = [place % SIDE, place / SIDE].map(|at| (at * CELL) as f64);
            let colour = hue(channel, G::CHANNELS);
            picture.rectangle(corner, corner.map(|at| at + CELL as f64), colour);
        }
        Some(picture)
    }

    fn reset(&mut self, random: &mut Stream, observation: ObservationMut<'_>) {
        self.start(random, observation.into_u8());
    }

    #[inline]
    fn step(
        &mut self,
        action: Action<'_>,
        random: &mut Stream,
        observation: ObservationMut<'_>,
    ) -> Transition {
        let outcome = self.play(action.discrete()[0] as usize, random, observation.into_u8());
        Transition { reward: outcome.reward.into(), terminated: outcome.over, truncated: false }
    }
}
