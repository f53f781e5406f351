//! Proves that the native environments are Gymnasium's, and that the vector around them ends and starts
//! episodes as it says.
//!
//! Recorded episodes come from `tests/oracles/gymnasium_trajectories.py`. With the C library they were
//! recorded with, observations agree bit for bit over whole episodes; another one's sine may differ in the
//! last bit, which unstable dynamics amplify over an episode of 500 steps. Comparisons therefore go on from the recorded
//! state every 25 steps where the dynamics are unstable, and allow [`TOLERANCE`] in between.

#![allow(clippy::unwrap_used, reason = "the lint's leave for tests does not reach their helpers")]

use std::fmt::Debug;

use impresario_actor::env::acrobot::Acrobot;
use impresario_actor::env::cartpole::CartPole;
use impresario_actor::env::mountain_car::MountainCar;
use impresario_actor::env::mountain_car_continuous::MountainCarContinuous;
use impresario_actor::env::pendulum::Pendulum;
use impresario_actor::env::registry::Registry;
use impresario_actor::env::vector::NativeVector;
use impresario_actor::env::{
    Action, Environment, EnvironmentError, FinalObservations, ObservationMut, Transition, VectorEnvironment,
    VectorStep,
};
use impresario_common::random::{Purpose, Stream, stream};
use impresario_common::space::{ElementType, EnvironmentSpec, Space};
use rand::RngExt;
use serde::Deserialize;

/// Largest difference from a recorded observation or reward, as a share of the largest magnitude that
/// number has in the episode: eight times the spacing of `f32`.
const TOLERANCE: f64 = 1e-6;

const NATIVE: [&str; 5] =
    ["Acrobot-v1", "CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1"];

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
        serde_json::from_str(include_str!("fixtures/gymnasium_trajectories.json")).unwrap();
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
    assert_eq!(registry.ids().collect::<Vec<_>>(), NATIVE);
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
            id: environment.id,
            observation,
            action,
            max_episode_steps: Some(environment.max_episode_steps),
            solved_return: environment.reward_threshold,
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
        let first = Worker::reset(&mut *vector).observations;
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

#[test]
fn one_seed_gives_one_course_of_episodes_and_another_seed_another() {
    for id in NATIVE {
        let course = |seed| play(id, streams(seed, 2), 1100);
        assert_eq!(course(1), course(1), "{id}");
        assert_ne!(course(1), course(2), "{id}");
    }
}

#[test]
fn a_later_reset_goes_on_with_the_stream() {
    let mut vector = Registry::native().make_vector("CartPole-v1", streams(1, 1)).unwrap();
    let first = Worker::reset(&mut *vector).observations;
    assert_ne!(first, Worker::reset(&mut *vector).observations);
}

#[test]
fn a_copy_does_not_depend_on_how_many_stand_beside_it() {
    for id in NATIVE {
        let four = play(id, streams(3, 4), 1100);
        let eight = play(id, streams(3, 8), 1100);
        assert_eq!(four[..], eight[..4], "{id}");
    }
}

// ---------------------------------------------------------------------------------------------------
// The vector

/// What a rollout worker keeps: room for one step of a vector of `f32` observations.
#[derive(Debug, Default)]
struct Worker {
    observations: Vec<f32>,
    bytes: Vec<u8>,
    dtype: Option<ElementType>,
    rewards: Vec<f32>,
    terminated: Vec<u8>,
    truncated: Vec<u8>,
    finals: Finals,
}

/// Final observations in the order they came.
#[derive(Debug, Default)]
struct Finals {
    numbers: usize,
    dtype: Option<ElementType>,
    f32: Vec<(usize, Vec<f32>)>,
    u8: Vec<(usize, Vec<u8>)>,
}

impl FinalObservations for Finals {
    fn slot(&mut self, copy: usize) -> ObservationMut<'_> {
        match self.dtype {
            Some(ElementType::U8) => {
                self.u8.push((copy, vec![0; self.numbers]));
                ObservationMut::U8(&mut self.u8.last_mut().unwrap().1)
            }
            _ => {
                self.f32.push((copy, vec![0.0; self.numbers]));
                ObservationMut::F32(&mut self.f32.last_mut().unwrap().1)
            }
        }
    }
}

impl Worker {
    fn new(vector: &dyn VectorEnvironment) -> Self {
        let (copies, space) = (vector.copies(), &vector.spec().observation);
        let numbers = space.len();
        Self {
            observations: vec![f32::NAN; copies * numbers],
            bytes: vec![u8::MAX; copies * numbers],
            dtype: Some(space.dtype()),
            rewards: vec![f32::NAN; copies],
            terminated: vec![u8::MAX; copies],
            truncated: vec![u8::MAX; copies],
            finals: Finals { numbers, dtype: Some(space.dtype()), ..Finals::default() },
        }
    }

    fn reset(vector: &mut dyn VectorEnvironment) -> Self {
        let mut worker = Self::new(vector);
        let Self { observations, bytes, dtype, .. } = &mut worker;
        vector.reset(room(*dtype, observations, bytes)).unwrap();
        worker
    }

    fn step(
        &mut self,
        vector: &mut dyn VectorEnvironment,
        actions: Action<'_>,
    ) -> Result<(), EnvironmentError> {
        let Self { observations, bytes, dtype, rewards, terminated, truncated, finals } = self;
        finals.f32.clear();
        finals.u8.clear();
        let observations = room(*dtype, observations, bytes);
        let step = VectorStep { observations, rewards, terminated, truncated, final_observations: finals };
        vector.step(actions, step)
    }
}

fn room<'a>(dtype: Option<ElementType>, f32s: &'a mut [f32], bytes: &'a mut [u8]) -> ObservationMut<'a> {
    match dtype {
        Some(ElementType::U8) => ObservationMut::U8(bytes),
        _ => ObservationMut::F32(f32s),
    }
}

fn streams(seed: u64, copies: u32) -> Vec<Stream> {
    (0..copies).map(|copy| stream(seed, Purpose::Environment, [0, 0, copy])).collect()
}

/// Everything that random actions bring about in each copy, as one list of numbers a copy. A copy's
/// actions are drawn from a stream of its own.
fn play(id: &str, streams: Vec<Stream>, steps: usize) -> Vec<Vec<f32>> {
    let mut vector = Registry::native().make_vector(id, streams).unwrap();
    let (copies, numbers) = (vector.copies(), vector.spec().observation.len());
    let mut random: Vec<_> =
        (0..copies).map(|copy| stream(0, Purpose::Actions, [0, 0, copy as u32])).collect();
    let action = vector.spec().action.clone();
    let mut worker = Worker::reset(&mut *vector);
    let mut seen = vec![vec![]; copies];
    for _ in 0..steps {
        match action {
            Space::Discrete { n } => {
                let choices: Vec<i32> = random.iter_mut().map(|r| r.random_range(0..n as i32)).collect();
                worker.step(&mut *vector, Action::Discrete(&choices)).unwrap();
            }
            _ => {
                let values: Vec<f32> = random.iter_mut().map(|r| r.random_range(-3.0..3.0)).collect();
                worker.step(&mut *vector, Action::Continuous(&values)).unwrap();
            }
        }
        for (copy, seen) in seen.iter_mut().enumerate() {
            seen.extend(&worker.observations[copy * numbers..(copy + 1) * numbers]);
            seen.extend([
                worker.rewards[copy],
                worker.terminated[copy].into(),
                worker.truncated[copy].into(),
            ]);
        }
        for (copy, last) in &worker.finals.f32 {
            seen[*copy].extend(last);
        }
    }
    seen
}

/// Someone else's environment: it shows its episode and step, and does what the action says.
#[derive(Debug, Clone)]
struct Obedient {
    dtype: ElementType,
    episode: u8,
    step: u8,
}

const GO_ON: i32 = 0;
const TERMINATE: i32 = 1;
const TRUNCATE: i32 = 2;

impl Obedient {
    fn new(dtype: ElementType) -> Self {
        Self { dtype, episode: 0, step: 0 }
    }

    fn show(&self, observation: ObservationMut<'_>) {
        match self.dtype {
            ElementType::U8 => observation.into_u8().copy_from_slice(&[self.episode, self.step]),
            _ => observation.into_f32().copy_from_slice(&[self.episode.into(), self.step.into()]),
        }
    }
}

impl Environment for Obedient {
    fn spec(&self) -> EnvironmentSpec {
        let observation =
            Space::Box { low: vec![0.0; 2], high: vec![255.0; 2], shape: vec![2], dtype: self.dtype };
        EnvironmentSpec {
            id: "Obedient-v3".into(),
            observation,
            action: Space::Discrete { n: 3 },
            max_episode_steps: Some(3),
            solved_return: None,
        }
    }

    fn reset(&mut self, _random: &mut Stream, observation: ObservationMut<'_>) {
        self.episode += 1;
        self.step = 0;
        self.show(observation);
    }

    fn step(
        &mut self,
        action: Action<'_>,
        _random: &mut Stream,
        observation: ObservationMut<'_>,
    ) -> Transition {
        self.step += 1;
        self.show(observation);
        let does = action.discrete()[0];
        Transition { reward: 0.5, terminated: does == TERMINATE, truncated: does == TRUNCATE }
    }
}

fn obedient(dtype: ElementType, copies: u32) -> NativeVector<Obedient> {
    NativeVector::new(|| Obedient::new(dtype), streams(0, copies))
}

/// One step of two copies of [`Obedient`]: what they are told, and what they must show.
struct Line {
    actions: [i32; 2],
    observations: [u8; 4],
    terminated: [u8; 2],
    truncated: [u8; 2],
    /// Copy and final observation.
    finals: Vec<(usize, Vec<u8>)>,
}

fn line(
    actions: [i32; 2],
    observations: [u8; 4],
    terminated: [u8; 2],
    truncated: [u8; 2],
    finals: &[(usize, [u8; 2])],
) -> Line {
    let finals = finals.iter().map(|(copy, last)| (*copy, last.to_vec())).collect();
    Line { actions, observations, terminated, truncated, finals }
}

#[test]
fn an_ended_episode_gives_way_to_the_next_in_the_same_step() {
    for dtype in [ElementType::F32, ElementType::U8] {
        let mut vector = obedient(dtype, 2);
        let mut worker = Worker::reset(&mut vector);
        let script = [
            line([GO_ON, GO_ON], [1, 1, 1, 1], [0, 0], [0, 0], &[]),
            line([TERMINATE, GO_ON], [2, 0, 1, 2], [1, 0], [0, 0], &[]),
            // Copy 1 reaches the time limit of three steps.
            line([GO_ON, GO_ON], [2, 1, 2, 0], [0, 0], [0, 1], &[(1, [1, 3])]),
            // The environment itself may cut an episode off.
            line([GO_ON, TRUNCATE], [2, 2, 3, 0], [0, 0], [0, 1], &[(1, [2, 1])]),
            // Copy 0 terminates in its last allowed step: both flags, nothing to bootstrap from.
            line([TERMINATE, GO_ON], [3, 0, 3, 1], [1, 0], [1, 0], &[]),
            line([GO_ON, GO_ON], [3, 1, 3, 2], [0, 0], [0, 0], &[]),
            line([TRUNCATE, GO_ON], [4, 0, 4, 0], [0, 0], [1, 1], &[(0, [3, 2]), (1, [3, 3])]),
        ];
        for (step, Line { actions, observations, terminated, truncated, finals }) in script.iter().enumerate()
        {
            worker.step(&mut vector, Action::Discrete(actions)).unwrap();
            let (seen, last): (Vec<u8>, Vec<(usize, Vec<u8>)>) = match dtype {
                ElementType::U8 => (worker.bytes.clone(), worker.finals.u8.clone()),
                _ => {
                    let whole = |values: &[f32]| values.iter().map(|&value| value as u8).collect();
                    let finals = worker.finals.f32.iter().map(|(copy, last)| (*copy, whole(last)));
                    (whole(&worker.observations), finals.collect())
                }
            };
            assert_eq!(seen, observations, "step {step}: observations");
            assert_eq!(worker.terminated, terminated, "step {step}: terminated");
            assert_eq!(worker.truncated, truncated, "step {step}: truncated");
            assert_eq!(worker.rewards, [0.5, 0.5], "step {step}: rewards");
            assert_eq!(last, *finals, "step {step}: final observations");
        }
    }
}

#[test]
fn a_reset_of_the_vector_restarts_the_count_of_steps() {
    let mut vector = obedient(ElementType::F32, 1);
    for _ in 0..3 {
        let mut worker = Worker::reset(&mut vector);
        for _ in 0..2 {
            worker.step(&mut vector, Action::Discrete(&[GO_ON])).unwrap();
            assert_eq!(worker.truncated, [0]);
        }
    }
}

#[test]
fn anyones_environment_can_be_registered_and_made() {
    let mut registry = Registry::native();
    registry.register(|| Obedient::new(ElementType::F32));
    assert!(registry.ids().any(|id| id == "Obedient-v3"));
    assert_eq!(registry.spec("Obedient-v3").unwrap().max_episode_steps, Some(3));
    let vector = registry.clone().make_vector("Obedient-v3", streams(0, 5)).unwrap();
    assert_eq!((vector.copies(), vector.spec().id.as_str()), (5, "Obedient-v3"));
    assert_eq!(Registry::empty().ids().count(), 0);
}

#[test]
fn a_mistaken_call_is_refused_with_what_is_wrong() {
    let refusal = |vector: &mut dyn VectorEnvironment, worker: &mut Worker, actions: Action<'_>| {
        worker.step(vector, actions).unwrap_err().to_string()
    };
    let mut vector = obedient(ElementType::F32, 2);
    let mut worker = Worker::new(&vector);
    assert_eq!(
        refusal(&mut vector, &mut worker, Action::Discrete(&[0, 0])),
        "environment Obedient-v3: stepped before its first reset; reset it first"
    );

    let mut worker = Worker::reset(&mut vector);
    let message = refusal(&mut vector, &mut worker, Action::Discrete(&[0, 3]));
    assert!(message.contains("Discrete([3]) of copy 1 is no action of Discrete(3)"), "{message}");
    let message = refusal(&mut vector, &mut worker, Action::Discrete(&[-1, 0]));
    assert!(message.contains("Discrete([-1]) of copy 0"), "{message}");
    let message = refusal(&mut vector, &mut worker, Action::Discrete(&[0]));
    assert!(message.contains("actions are 1 x i32; 2 copies of Discrete(3) need 2 x i32"), "{message}");
    let message = refusal(&mut vector, &mut worker, Action::Continuous(&[0.0, 0.0]));
    assert!(message.contains("actions are 2 x f32"), "{message}");

    worker.rewards.pop();
    let message = refusal(&mut vector, &mut worker, Action::Discrete(&[0, 0]));
    assert!(message.contains("is [1, 2, 2]; 2 copies need 2 of each"), "{message}");
    worker.rewards.push(0.0);
    worker.dtype = Some(ElementType::U8);
    let message = refusal(&mut vector, &mut worker, Action::Discrete(&[0, 0]));
    assert!(message.contains("room for observations is 4 x u8"), "{message}");
    worker.dtype = Some(ElementType::F32);
    worker.finals.numbers = 1;
    let message = refusal(&mut vector, &mut worker, Action::Discrete(&[TRUNCATE, 0]));
    assert!(message.contains("room for a final observation is 1 x f32; it needs 2 x f32"), "{message}");

    let mut pendulum = NativeVector::new(Pendulum::default, streams(0, 2));
    let mut worker = Worker::reset(&mut pendulum);
    let message = refusal(&mut pendulum, &mut worker, Action::Continuous(&[0.0, f32::NAN]));
    assert!(message.contains("Continuous([NaN]) of copy 1 is no action"), "{message}");
}
