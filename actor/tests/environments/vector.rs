//! The vector of copies: how it ends and starts episodes, what it refuses, and whose masks it shows.

use impresario_actor::env::pendulum::Pendulum;
use impresario_actor::env::registry::Registry;
use impresario_actor::env::vector::NativeVector;
use impresario_actor::env::{Action, Environment, ObservationMut, Transition, VectorEnvironment};
use impresario_common::random::Stream;
use impresario_common::space::{ElementType, EnvironmentSpec, Space};
use impresario_common::unroll::Array;

use super::worker::{Worker, numbers, streams};

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
            ElementType::I32 => {
                observation.into_i32().copy_from_slice(&[self.episode.into(), self.step.into()])
            }
            ElementType::F32 => {
                observation.into_f32().copy_from_slice(&[self.episode.into(), self.step.into()])
            }
        }
    }
}

impl Environment for Obedient {
    fn spec(&self) -> EnvironmentSpec {
        let observation = match self.dtype {
            ElementType::I32 => Space::MultiDiscrete { nvec: vec![256; 2] },
            dtype => Space::Box { low: vec![0.0; 2], high: vec![255.0; 2], shape: vec![2], dtype },
        };
        EnvironmentSpec::new("Obedient-v3", observation, Space::Discrete { n: 3 })
            .with_max_episode_steps(3)
            .with_masked_actions()
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

    /// Shows its step: 1 0 0 at first, 0 1 0 after one step.
    fn legal_actions(&self, mask: &mut [u8]) {
        mask.fill(0);
        mask[usize::from(self.step)] = 1;
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
    for dtype in [ElementType::F32, ElementType::U8, ElementType::I32] {
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
            let whole =
                |array: &Array| -> Vec<u8> { numbers(array).into_iter().map(|value| value as u8).collect() };
            let seen = whole(&worker.observations);
            let last: Vec<_> = worker.finals.taken.iter().map(|(copy, last)| (*copy, whole(last))).collect();
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
    let right = std::mem::replace(&mut worker.observations, Array::U8(vec![0; 4]));
    let message = refusal(&mut vector, &mut worker, Action::Discrete(&[0, 0]));
    assert!(message.contains("room for observations is 4 x u8"), "{message}");
    worker.observations = right;
    worker.finals.numbers = 1;
    let message = refusal(&mut vector, &mut worker, Action::Discrete(&[TRUNCATE, 0]));
    assert!(message.contains("room for a final observation is 1 x f32; it needs 2 x f32"), "{message}");

    let mut pendulum = NativeVector::new(Pendulum::default, streams(0, 2));
    let mut worker = Worker::reset(&mut pendulum);
    let message = refusal(&mut pendulum, &mut worker, Action::Continuous(&[0.0, f32::NAN]));
    assert!(message.contains("Continuous([NaN]) of copy 1 is no action"), "{message}");
}

#[test]
fn masks_are_those_of_the_observations_shown() {
    let mut vector = obedient(ElementType::F32, 2);
    let mut masks = [7; 6];
    let refused = vector.legal_actions(&mut masks).unwrap_err().to_string();
    assert!(refused.contains("before its first reset"), "{refused}");
    let mut worker = Worker::reset(&mut vector);
    for (actions, expected) in [
        (None, [1, 0, 0, 1, 0, 0]),
        (Some([GO_ON, GO_ON]), [0, 1, 0, 0, 1, 0]),
        // The next episode of copy 0 has begun.
        (Some([TERMINATE, GO_ON]), [1, 0, 0, 0, 0, 1]),
    ] {
        if let Some(actions) = actions {
            worker.choose(&mut vector, &actions);
        }
        vector.legal_actions(&mut masks).unwrap();
        assert_eq!(masks, expected);
    }
    let refused = vector.legal_actions(&mut masks[..5]).unwrap_err().to_string();
    assert!(refused.contains("room for masks is 5; 2 copies of Discrete(3) need 3 each"), "{refused}");
    let mut pendulum = NativeVector::new(Pendulum::default, streams(0, 2));
    Worker::reset(&mut pendulum);
    assert!(pendulum.legal_actions(&mut []).is_err());
}

#[test]
fn everything_is_legal_in_an_environment_that_says_nothing_of_masks() {
    let mut cartpole = Registry::native().make_vector("CartPole-v1", streams(0, 2)).unwrap();
    Worker::reset(&mut *cartpole);
    let mut masks = [0; 4];
    cartpole.legal_actions(&mut masks).unwrap();
    assert_eq!((masks, cartpole.spec().masks_actions), ([1; 4], false));
}

#[test]
fn a_film_shows_the_first_copy_from_each_first_state_to_each_last() {
    let mut vector = Registry::native().make_vector("CartPole-v1", streams(3, 2)).unwrap();
    vector.film().unwrap();
    let mut worker = Worker::reset(&mut *vector);
    assert_eq!(vector.take_pictures().len(), 1);
    // Pushed to one side the pole falls within some ten steps; the other copy's falls do not count.
    let (mut steps, mut ends) = (0, 0);
    let mut last = None;
    while ends < 3 {
        worker.choose(&mut *vector, &[1, 0]);
        let ended = usize::from(worker.terminated[0] == 1);
        let pictures = vector.take_pictures();
        assert_eq!(pictures.len(), 1 + ended);
        assert_ne!(last.as_ref(), pictures.first());
        if ended == 1 {
            assert_ne!(
                pictures[0], pictures[1],
                "the last state is shown before the first of the next episode"
            );
        }
        last = pictures.into_iter().last();
        (steps, ends) = (steps + 1, ends + ended);
    }
    assert!(steps > 20);
    let mut maze = Registry::native().make_vector("TMaze-v0", streams(3, 1)).unwrap();
    assert!(maze.film().unwrap_err().to_string().contains("does not draw itself"));
}
