//! What holds for every native environment: one seed is one course, copies do not touch one another, and everything
//! shown lies in the space that was declared.

use impresario_actor::env::Action;
use impresario_actor::env::registry::Registry;
use impresario_common::random::{Purpose, Stream, stream};
use impresario_common::space::Space;
use rand::RngExt;

use super::worker::{Worker, numbers, streams};

fn ids() -> Vec<String> {
    Registry::native().ids().map(Into::into).collect()
}

/// Whether anything in the environment is drawn from its stream.
fn is_random(id: &str) -> bool {
    id != "RockPaperScissorsSelfPlay-v0"
}

/// Everything that random actions bring about in each copy, as one list of numbers a copy. A copy's
/// actions are drawn from a stream of its own.
fn play(id: &str, streams: Vec<Stream>, steps: usize) -> Vec<Vec<f32>> {
    let mut vector = Registry::native().make_vector(id, streams).unwrap();
    let copies = vector.copies();
    let mut random: Vec<_> =
        (0..copies).map(|copy| stream(0, Purpose::Actions, [0, 0, copy as u32])).collect();
    let action = vector.spec().action.clone();
    let mut worker = Worker::reset(&mut *vector);
    let mut seen: Vec<_> = (0..copies).map(|copy| worker.seen(copy)).collect();
    for _ in 0..steps {
        match action {
            Space::Discrete { n } => {
                let choices: Vec<i32> = random.iter_mut().map(|r| r.random_range(0..n as i32)).collect();
                worker.choose(&mut *vector, &choices);
            }
            _ => {
                let mut draw = |_| random.iter_mut().map(|r| r.random_range(-3.0..3.0)).collect::<Vec<f32>>();
                let draws: Vec<_> = (0..action.len()).map(&mut draw).collect();
                let values: Vec<f32> =
                    (0..copies).flat_map(|copy| draws.iter().map(move |draw| draw[copy])).collect();
                worker.step(&mut *vector, Action::Continuous(&values)).unwrap();
            }
        }
        for (copy, seen) in seen.iter_mut().enumerate() {
            seen.extend(worker.seen(copy));
            seen.extend([
                worker.rewards[copy],
                worker.terminated[copy].into(),
                worker.truncated[copy].into(),
            ]);
        }
        for (copy, last) in &worker.finals.taken {
            seen[*copy].extend(numbers(last));
        }
    }
    seen
}

#[test]
fn one_seed_gives_one_course_of_episodes_and_another_seed_another() {
    for id in ids() {
        let course = |seed| play(&id, streams(seed, 2), 1100);
        assert_eq!(course(1), course(1), "{id}");
        assert_eq!(course(1) != course(2), is_random(&id), "{id}");
    }
}

#[test]
fn a_copy_does_not_depend_on_how_many_stand_beside_it() {
    for id in ids() {
        let four = play(&id, streams(3, 4), 1100);
        let eight = play(&id, streams(3, 8), 1100);
        assert_eq!(four[..], eight[..4], "{id}");
    }
}

#[test]
fn a_later_reset_goes_on_with_the_stream() {
    let mut vector = Registry::native().make_vector("CartPole-v1", streams(1, 1)).unwrap();
    let first = Worker::reset(&mut *vector).observations;
    assert_ne!(first, Worker::reset(&mut *vector).observations);
}

#[test]
fn observations_lie_in_their_space() {
    for id in ids() {
        let mut vector = Registry::native().make_vector(&id, streams(5, 4)).unwrap();
        let (low, high) = match vector.spec().observation.clone() {
            Space::Box { low, high, .. } => (low, high),
            Space::MultiDiscrete { nvec } => {
                (vec![0.0; nvec.len()], nvec.iter().map(|&n| n as f32 - 1.0).collect())
            }
            Space::Discrete { n } => (vec![0.0], vec![n as f32 - 1.0]),
        };
        let len = low.len();
        let mut worker = Worker::reset(&mut *vector);
        let mut random = super::worker::choices(6);
        for step in 0..1000 {
            for (i, value) in numbers(&worker.observations).into_iter().enumerate() {
                let (low, high) = (low[i % len], high[i % len]);
                assert!((low..=high).contains(&value), "{id}, step {step}: [{}] is {value}", i % len);
            }
            match vector.spec().action.clone() {
                Space::Discrete { n } => {
                    let choices: Vec<i32> = (0..4).map(|_| random.random_range(0..n as i32)).collect();
                    worker.choose(&mut *vector, &choices);
                }
                action => {
                    let values: Vec<f32> =
                        (0..4 * action.len()).map(|_| random.random_range(-3.0..3.0)).collect();
                    worker.step(&mut *vector, Action::Continuous(&values)).unwrap();
                }
            }
        }
    }
}
