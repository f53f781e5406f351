//! Classic control is Gymnasium's.
//!
//! Recorded episodes come from `tests/oracles/gymnasium_trajectories.py`. With the C library they were
//! recorded with, observations agree bit for bit over whole episodes; another one's sine may differ in the
//! last bit, which unstable dynamics amplify over an episode of 500 steps. Comparisons therefore go on from the recorded
//! state every 25 steps where the dynamics are unstable, and allow [`TOLERANCE`] in between.

use std::fmt::Debug;

use impresario_actor::env::acrobot::Acrobot;
use impresario_actor::env::cartpole::CartPole;
use impresario_actor::env::mountain_car::MountainCar;
use impresario_actor::env::mountain_car_continuous::MountainCarContinuous;
use impresario_actor::env::pendulum::Pendulum;
use impresario_actor::env::registry::Registry;
use impresario_actor::env::vector::NativeVector;
use impresario_actor::env::{Action, Environment, ObservationMut, Transition};
use impresario_common::random::{Purpose, Stream, stream};
use impresario_common::space::{EnvironmentSpec, Space};
use serde::Deserialize;

use super::worker::{Worker, numbers, streams};

/// Largest difference from a recorded observation or reward, as a share of the largest magnitude that
/// number has in the episode: eight times the spacing of `f32`.
const TOLERANCE: f64 = 1e-6;

// ---------------------------------------------------------------------------------------------------
// The recordings

#[derive(Deserialize)]
struct Fixture {
    gymnasium: String,
    environments: Vec<RecordedEnvironment>,
}

#[derive(Deserialize)]
struct RecordedEnvironment {
    id: String,
    max_episode_steps: u32,
    reward_threshold: Option<f64>,
    observation_low: String,
    observation_high: String,
    action_n: Option<u32>,
    action_low: Option<String>,
    action_high: Option<String>,
    checkpoint_interval: usize,
    episodes: Vec<RecordedEpisode>,
}

#[derive(Deserialize)]
struct RecordedEpisode {
    name: String,
    initial_state: String,
    first_observation: Option<String>,
    actions: String,
    observations: String,
    rewards: String,
    checkpoints: String,
    terminated: bool,
    truncated: bool,
}

fn fixture() -> Fixture {
    let fixture: Fixture =
        serde_json::from_str(include_str!("../fixtures/gymnasium_trajectories.json")).unwrap();
    assert_eq!(fixture.gymnasium, "1.4.0");
    fixture
}

fn recorded(id: &str) -> RecordedEnvironment {
    fixture().environments.into_iter().find(|environment| environment.id == id).unwrap()
}

fn bytes<const N: usize>(hex: &str) -> Vec<[u8; N]> {
    assert_eq!(hex.len() % (2 * N), 0);
    let byte = |i: usize| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap();
    (0..hex.len() / 2 / N).map(|i| std::array::from_fn(|j| byte(i * N + j))).collect()
}

fn f32s(hex: &str) -> Vec<f32> {
    bytes(hex).into_iter().map(f32::from_le_bytes).collect()
}

fn f64s(hex: &str) -> Vec<f64> {
    bytes(hex).into_iter().map(f64::from_le_bytes).collect()
}

enum Actions {
    Discrete(Vec<i32>),
    Continuous(Vec<f32>),
}

impl Actions {
    fn at(&self, step: usize) -> Action<'_> {
        match self {
            Self::Discrete(choices) => Action::Discrete(&choices[step..=step]),
            Self::Continuous(values) => Action::Continuous(&values[step..=step]),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Discrete(choices) => choices.len(),
            Self::Continuous(values) => values.len(),
        }
    }
}

impl RecordedEnvironment {
    fn actions(&self, episode: &RecordedEpisode) -> Actions {
        match self.action_n {
            Some(_) => {
                Actions::Discrete(episode.actions.chars().map(|c| c.to_digit(10).unwrap() as i32).collect())
            }
            None => Actions::Continuous(f32s(&episode.actions)),
        }
    }
}

// ---------------------------------------------------------------------------------------------------
// Dynamics

/// A native environment that can be put into a recorded state.
trait Placed: Environment + Default + Clone + Debug {
    /// Whether its dynamics amplify differences, so that a comparison goes on from recorded states.
    const UNSTABLE: bool;
    fn place(&mut self, state: &[f64]);
    fn seen(&self) -> Vec<f32>;
}

macro_rules! placed {
    ($($environment:ty: $unstable:expr),*) => {$(
        impl Placed for $environment {
            const UNSTABLE: bool = $unstable;
            fn place(&mut self, state: &[f64]) {
                self.set_state(state.try_into().unwrap());
            }
            fn seen(&self) -> Vec<f32> {
                self.observation().to_vec()
            }
        }
    )*};
}

placed!(CartPole: true, Acrobot: true, Pendulum: true, MountainCar: false, MountainCarContinuous: false);

/// An environment whose episodes start where a recorded one did, and go on from its checkpoints.
#[derive(Clone, Debug)]
struct Replayed<E> {
    environment: E,
    initial: Vec<f64>,
    /// Recorded states, one every `interval` steps.
    checkpoints: Vec<f64>,
    interval: usize,
    steps: usize,
}

impl<E: Placed> Replayed<E> {
    fn new(environment: &RecordedEnvironment, episode: &RecordedEpisode) -> Self {
        Self {
            environment: E::default(),
            initial: f64s(&episode.initial_state),
            checkpoints: f64s(&episode.checkpoints),
            interval: environment.checkpoint_interval,
            steps: 0,
        }
    }
}

impl<E: Placed> Environment for Replayed<E> {
    fn spec(&self) -> EnvironmentSpec {
        self.environment.spec()
    }

    fn reset(&mut self, _random: &mut Stream, observation: ObservationMut<'_>) {
        self.steps = 0;
        self.environment.place(&self.initial);
        observation.into_f32().copy_from_slice(&self.environment.seen());
    }

    fn step(&mut self, action: Action<'_>, random: &mut Stream, room: ObservationMut<'_>) -> Transition {
        if E::UNSTABLE && self.steps > 0 && self.steps.is_multiple_of(self.interval) {
            let len = self.initial.len();
            let at = self.steps / self.interval - 1;
            self.environment.place(&self.checkpoints[at * len..(at + 1) * len]);
        }
        self.steps += 1;
        self.environment.step(action, random, room)
    }
}

fn largest(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(0.0, |largest, value| f64::max(largest, value.abs()))
}

fn assert_follows_gymnasium<E: Placed>(id: &str) {
    let environment = recorded(id);
    for episode in &environment.episodes {
        let replayed = Replayed::<E>::new(&environment, episode);
        assert_same_observations(&environment, episode, replayed.clone());
        assert_same_ending(&environment, episode, replayed);
    }
}

/// Every observation and reward, and termination in the last step or not at all.
fn assert_same_observations<E: Placed>(
    environment: &RecordedEnvironment,
    episode: &RecordedEpisode,
    mut replayed: Replayed<E>,
) {
    let name = format!("{}, {}", environment.id, episode.name);
    let actions = environment.actions(episode);
    let recorded = f32s(&episode.observations);
    let rewards = f64s(&episode.rewards);
    let mut random = stream(0, Purpose::Environment, [0; 3]);
    let mut seen = vec![f32::NAN; recorded.len() / actions.len()];
    let numbers = seen.len();
    let scale: Vec<f64> =
        (0..numbers).map(|i| largest(recorded.iter().skip(i).step_by(numbers).map(|&x| x.into()))).collect();
    let reward_scale = largest(rewards.iter().copied());
    let assert_near = |step: usize, what: &str, ours: f64, theirs: f64, scale: f64| {
        let allowed = TOLERANCE * scale;
        assert!((ours - theirs).abs() <= allowed, "{name}, step {step}, {what}: {ours} is not {theirs}");
    };

    replayed.reset(&mut random, ObservationMut::F32(&mut seen));
    let first = episode.first_observation.as_deref().map(f32s).unwrap_or_default();
    for (i, theirs) in first.into_iter().enumerate() {
        assert_near(0, "first observation", seen[i].into(), theirs.into(), scale[i]);
    }
    for (step, theirs) in recorded.chunks(numbers).enumerate() {
        let transition = replayed.step(actions.at(step), &mut random, ObservationMut::F32(&mut seen));
        for i in 0..numbers {
            assert_near(step, "observation", seen[i].into(), theirs[i].into(), scale[i]);
        }
        // A single recorded reward stands for all.
        let reward = rewards[step.min(rewards.len() - 1)];
        assert_near(step, "reward", transition.reward, reward, reward_scale);
        let last = step + 1 == actions.len();
        assert_eq!(transition.terminated, last && episode.terminated, "{name}, step {step}: terminated");
        assert!(!transition.truncated, "{name}, step {step}: time limits are the vector's");
    }
}

/// Through the vector with its time limit: both flags in the last step, none before.
fn assert_same_ending<E: Placed>(
    environment: &RecordedEnvironment,
    episode: &RecordedEpisode,
    replayed: Replayed<E>,
) {
    let name = format!("{}, {}", environment.id, episode.name);
    let actions = environment.actions(episode);
    let mut vector = NativeVector::new(|| replayed.clone(), [stream(0, Purpose::Environment, [0; 3])]);
    let mut worker = Worker::reset(&mut vector);
    for step in 0..actions.len() {
        worker.step(&mut vector, actions.at(step)).unwrap();
        let last = step + 1 == actions.len();
        let expected = (u8::from(last && episode.terminated), u8::from(last && episode.truncated));
        assert_eq!((worker.terminated[0], worker.truncated[0]), expected, "{name}, step {step}");
    }
}

#[test]
fn cartpole_follows_gymnasium() {
    assert_follows_gymnasium::<CartPole>("CartPole-v1");
}

#[test]
fn acrobot_follows_gymnasium() {
    assert_follows_gymnasium::<Acrobot>("Acrobot-v1");
}

#[test]
fn mountain_car_follows_gymnasium() {
    assert_follows_gymnasium::<MountainCar>("MountainCar-v0");
}

#[test]
fn mountain_car_continuous_follows_gymnasium() {
    assert_follows_gymnasium::<MountainCarContinuous>("MountainCarContinuous-v0");
}

#[test]
fn pendulum_follows_gymnasium() {
    assert_follows_gymnasium::<Pendulum>("Pendulum-v1");
}

#[test]
fn the_recordings_cover_every_kind_of_ending() {
    let endings = |id| -> Vec<(bool, bool)> {
        recorded(id).episodes.iter().map(|episode| (episode.terminated, episode.truncated)).collect()
    };
    for id in ["CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0"] {
        assert!(endings(id).contains(&(true, false)), "{id} terminates");
        assert!(endings(id).contains(&(false, true)), "{id} is truncated");
    }
    assert!(endings("CartPole-v1").contains(&(true, true)));
    assert!(endings("Pendulum-v1").contains(&(false, true)));
}

#[test]
fn specs_are_gymnasiums() {
    let registry = Registry::native();
    for environment in fixture().environments {
        let spec = registry.spec(&environment.id).unwrap();
        let action = match environment.action_n {
            Some(n) => Space::Discrete { n },
            None => Space::boxed(
                &f32s(environment.action_low.as_ref().unwrap()),
                &f32s(environment.action_high.as_ref().unwrap()),
            ),
        };
        let observation =
            Space::boxed(&f32s(&environment.observation_low), &f32s(&environment.observation_high));
        let expected = EnvironmentSpec {
            solved_return: environment.reward_threshold,
            ..EnvironmentSpec::new(environment.id, observation, action)
                .with_max_episode_steps(environment.max_episode_steps)
        };
        assert_eq!(*spec, expected);
    }
}

// ---------------------------------------------------------------------------------------------------
// First observations

#[test]
fn episodes_start_all_over_gymnasiums_range_and_nowhere_else() {
    // Smallest and largest value of each number of a first observation.
    let ranges: [(&str, &[[f64; 2]]); 5] = [
        ("CartPole-v1", &[[-0.05, 0.05]; 4]),
        (
            "Acrobot-v1",
            &[
                [0.1f64.cos(), 1.0],
                [-(0.1f64.sin()), 0.1f64.sin()],
                [0.1f64.cos(), 1.0],
                [-(0.1f64.sin()), 0.1f64.sin()],
                [-0.1, 0.1],
                [-0.1, 0.1],
            ],
        ),
        ("MountainCar-v0", &[[-0.6, -0.4], [0.0, 0.0]]),
        ("MountainCarContinuous-v0", &[[-0.6, -0.4], [0.0, 0.0]]),
        ("Pendulum-v1", &[[-1.0, 1.0], [-1.0, 1.0], [-1.0, 1.0]]),
    ];
    for (id, ranges) in ranges {
        let mut vector = Registry::native().make_vector(id, streams(9, 2000)).unwrap();
        let first = numbers(&Worker::reset(&mut *vector).observations);
        for (i, [low, high]) in ranges.iter().enumerate() {
            let values = || first.iter().skip(i).step_by(ranges.len()).map(|&value| f64::from(value));
            let min = values().fold(f64::INFINITY, f64::min);
            let max = values().fold(f64::NEG_INFINITY, f64::max);
            let slack = 0.01 * (high - low);
            let rounding = 1e-7;
            assert!((low - rounding..=low + slack + rounding).contains(&min), "{id}[{i}]: from {min}");
            assert!((high - slack - rounding..=high + rounding).contains(&max), "{id}[{i}]: to {max}");
        }
    }
}
