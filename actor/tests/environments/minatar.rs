//! MinAtar is the package's: recordings of thousands of steps, made by `tests/oracles/minatar_games.py`, are played again with
//! the same random draws.

use std::iter::Copied;
use std::slice::Iter;

use impresario_actor::env::Environment;
use impresario_actor::env::minatar::{
    ActionSet, Asterix, Breakout, Draws, Freeway, Game, MinAtar, Options, Seaquest, SpaceInvaders,
};
use impresario_common::space::{ElementType, Space};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    minatar: String,
    frame_interval: usize,
    recordings: Vec<Recording>,
}

#[derive(Deserialize)]
struct Recording {
    minimal: bool,
    sticky_action_prob: f64,
    difficulty_ramping: bool,
    observation_shape: Vec<usize>,
    action_n: u32,
    /// A base-36 digit a step.
    actions: String,
    rewards: String,
    /// Steps, from 1, in which episodes ended.
    ends: Vec<usize>,
    /// Four hexadecimal digits a draw.
    draws: String,
    /// Four a observation: the highest bits of FNV-1a over all observations until then.
    hashes: String,
    /// Every `frame_interval` steps an observation, a bit a cell.
    frames: Vec<String>,
}

fn digits(text: &str) -> Vec<usize> {
    text.chars().map(|digit| digit.to_digit(36).unwrap() as usize).collect()
}

fn hex(text: &str, width: usize) -> Vec<u16> {
    let number = |at: usize| u16::from_str_radix(&text[at..at + width], 16).unwrap();
    (0..text.len()).step_by(width).map(number).collect()
}

/// The recorded draws, in the order in which they were made.
struct Recorded<'a>(Copied<Iter<'a, u16>>);

impl Draws for Recorded<'_> {
    fn unit(&mut self) -> f64 {
        (f64::from(self.0.next().unwrap()) + 0.5) / 65536.0
    }

    fn below(&mut self, n: u32) -> u32 {
        let drawn = u32::from(self.0.next().unwrap());
        assert!(drawn < n, "{drawn} was drawn where a number below {n} is needed");
        drawn
    }
}

/// Follows the observations of a game.
struct Observer {
    hash: u64,
    seen: Vec<u16>,
}

impl Observer {
    fn new() -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, seen: vec![] }
    }

    fn see(&mut self, observation: &[u8]) {
        for &byte in observation {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        self.seen.push((self.hash >> 48) as u16);
    }
}

/// The cells of an observation, eight to a byte, the first in the highest bit.
fn packed(observation: &[u8]) -> Vec<u16> {
    let byte = |cells: &[u8]| cells.iter().enumerate().map(|(i, &cell)| u16::from(cell) << (7 - i)).sum();
    observation.chunks(8).map(byte).collect()
}

fn replay<G: Game>(recording: &Recording, frame_interval: usize) {
    let actions = if recording.minimal { ActionSet::Minimal } else { ActionSet::Full };
    let options = Options {
        sticky_action_prob: recording.sticky_action_prob,
        difficulty_ramping: recording.difficulty_ramping,
    };
    let mut game = MinAtar::<G>::with_options(actions, options);
    let spec = game.spec();
    assert_eq!(spec.observation.shape(), recording.observation_shape);
    assert_eq!(spec.observation.dtype(), ElementType::U8);
    assert_eq!(spec.action, Space::Discrete { n: recording.action_n });

    let (draws, hashes) = (hex(&recording.draws, 4), hex(&recording.hashes, 4));
    let mut draws = Recorded(draws.iter().copied());
    let mut frames = recording.frames.iter();
    let mut ends = recording.ends.iter().copied().peekable();
    let mut observer = Observer::new();
    // Nothing that a game would write.
    let mut observation = vec![u8::MAX; spec.observation.len()];

    game.start(&mut draws, &mut observation);
    observer.see(&observation);
    assert_eq!(packed(&observation), hex(frames.next().unwrap(), 2), "the first observation");
    let steps = digits(&recording.actions).into_iter().zip(digits(&recording.rewards));
    for (step, (action, reward)) in (1..).zip(steps) {
        let outcome = game.play(action, &mut draws, &mut observation);
        observer.see(&observation);
        if step % frame_interval == 0 {
            assert_eq!(packed(&observation), hex(frames.next().unwrap(), 2), "{} step {step}", spec.id);
        }
        assert_eq!(outcome.reward as usize, reward, "reward of {} in step {step}", spec.id);
        assert_eq!(outcome.over, ends.next_if_eq(&step).is_some(), "end of {} in step {step}", spec.id);
        let at = observer.seen.len();
        assert_eq!(observer.seen[at - 1], hashes[at - 1], "observation of {} in step {step}", spec.id);
        if outcome.over {
            game.start(&mut draws, &mut observation);
            observer.see(&observation);
        }
    }
    assert_eq!(observer.seen, hashes, "{}", spec.id);
    assert_eq!((draws.0.next(), ends.next()), (None, None), "{}: all draws are used, all ends seen", spec.id);
}

fn is_the_packages<G: Game>(fixture: &str) {
    let fixture: Fixture = serde_json::from_str(fixture).unwrap();
    assert_eq!(fixture.minatar, "1.0.15");
    let steps: usize = fixture.recordings.iter().map(|recording| recording.actions.len()).sum();
    assert!(steps >= 15_000, "{steps}");
    for recording in &fixture.recordings {
        replay::<G>(recording, fixture.frame_interval);
    }
}

#[test]
fn breakout_is_the_packages() {
    is_the_packages::<Breakout>(include_str!("../fixtures/minatar/breakout.json"));
}

#[test]
fn asterix_is_the_packages() {
    is_the_packages::<Asterix>(include_str!("../fixtures/minatar/asterix.json"));
}

#[test]
fn freeway_is_the_packages() {
    is_the_packages::<Freeway>(include_str!("../fixtures/minatar/freeway.json"));
}

#[test]
fn seaquest_is_the_packages() {
    is_the_packages::<Seaquest>(include_str!("../fixtures/minatar/seaquest.json"));
}

#[test]
fn space_invaders_is_the_packages() {
    is_the_packages::<SpaceInvaders>(include_str!("../fixtures/minatar/space_invaders.json"));
}

#[test]
fn games_are_registered_under_the_packages_names() {
    let spec = |actions| MinAtar::<SpaceInvaders>::new(actions).spec();
    let (full, minimal) = (spec(ActionSet::Full), spec(ActionSet::Minimal));
    assert_eq!((full.id.as_str(), full.action), ("MinAtar/SpaceInvaders-v0", Space::Discrete { n: 6 }));
    assert_eq!((minimal.id.as_str(), minimal.action), ("MinAtar/SpaceInvaders-v1", Space::Discrete { n: 4 }));
    let registry = impresario_actor::env::registry::Registry::native();
    let ids: Vec<&str> = registry.ids().filter(|id| id.starts_with("MinAtar/")).collect();
    let games = ["Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders"];
    let expected = games.map(|game| [0, 1].map(|version| format!("MinAtar/{game}-v{version}")));
    assert_eq!(ids, expected.concat());
}
