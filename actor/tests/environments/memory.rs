//! The tasks that need memory: what they show and pay, that memory earns everything, and that none earns what chance does.

use impresario_actor::env::VectorEnvironment;
use impresario_actor::env::registry::Registry;
use rand::RngExt;

use super::worker::{Worker, choices, streams};

const COPIES: usize = 50;

fn vector(id: &str) -> Box<dyn VectorEnvironment> {
    Registry::native().make_vector(id, streams(1, COPIES as u32)).unwrap()
}

/// Number of the 1 in a one-hot code.
fn symbol(seen: &[f32]) -> usize {
    assert_eq!((seen.iter().sum::<f32>(), seen.iter().filter(|&&x| x == 1.0).count()), (1.0, 1), "{seen:?}");
    seen.iter().position(|&x| x == 1.0).unwrap()
}

/// Returns of the episodes that end within `steps`, acted by what `act` makes of all that a copy has seen in its
/// episode.
fn returns(id: &str, steps: usize, mut act: impl FnMut(&[usize]) -> i32) -> Vec<f32> {
    let mut vector = vector(id);
    let mut worker = Worker::reset(&mut *vector);
    let mut histories: Vec<_> = (0..COPIES).map(|copy| vec![symbol(&worker.seen(copy))]).collect();
    let (mut totals, mut ended) = (vec![0.0; COPIES], vec![]);
    for _ in 0..steps {
        let actions: Vec<i32> = histories.iter().map(|history| act(history)).collect();
        worker.choose(&mut *vector, &actions);
        for copy in 0..COPIES {
            totals[copy] += worker.rewards[copy];
            if worker.terminated[copy] == 1 {
                ended.push(std::mem::take(&mut totals[copy]));
                histories[copy].clear();
            }
            histories[copy].push(symbol(&worker.seen(copy)));
        }
    }
    ended
}

fn mean(values: &[f32]) -> f32 {
    values.iter().sum::<f32>() / values.len() as f32
}

#[test]
fn the_maze_is_a_cue_a_corridor_and_a_junction() {
    let mut vector = vector("TMaze-v0");
    let mut worker = Worker::reset(&mut *vector);
    let cues: Vec<usize> = (0..COPIES).map(|copy| symbol(&worker.seen(copy))).collect();
    assert!(cues.contains(&0) && cues.contains(&1) && cues.iter().all(|&cue| cue < 2));
    // Every action leads on, and pays nothing before the junction.
    for step in 1..=10 {
        let actions: Vec<i32> = (0..COPIES as i32).map(|copy| (copy + step) % 2).collect();
        worker.choose(&mut *vector, &actions);
        for copy in 0..COPIES {
            assert_eq!(symbol(&worker.seen(copy)), if step < 10 { 2 } else { 3 });
            assert_eq!((worker.rewards[copy], worker.terminated[copy]), (0.0, 0));
        }
    }
    worker.choose(&mut *vector, &[1; COPIES]);
    assert_eq!(worker.terminated, [1; COPIES]);
    let paid: Vec<f32> = cues.iter().map(|&cue| cue as f32).collect();
    assert_eq!(worker.rewards, paid);
}

#[test]
fn the_return_of_the_maze_is_the_share_of_right_choices() {
    let remembered = returns("TMaze-v0", 1100, |history| history[0] as i32);
    assert_eq!((remembered.len(), mean(&remembered)), (100 * COPIES, 1.0));
    assert_eq!(mean(&returns("TMaze-v0", 1100, |history| 1 - history[0] as i32)), 0.0);
}

#[test]
fn the_symbol_of_four_steps_ago_is_what_pays() {
    // Answers of four steps ago are all right, a hundred in an episode; those of other delays are at chance.
    let by_delay = |delay: usize| {
        returns("RepeatPrevious-v0", 1040, |history| match history.len().checked_sub(delay + 1) {
            Some(at) => history[at] as i32,
            None => 0,
        })
    };
    let right = by_delay(4);
    assert_eq!(right.len(), 10 * COPIES);
    assert!(right.iter().all(|&total| total == 100.0));
    for delay in [0, 1, 2, 3, 5] {
        let percent = mean(&by_delay(delay));
        // 50,000 answers: a standard deviation of 0.2.
        assert!((percent - 25.0).abs() < 1.0, "delay {delay}: {percent} %");
    }
}

#[test]
fn without_memory_no_policy_beats_chance() {
    // Every deterministic policy of the observation alone, and random ones: all policies without memory mix these.
    for code in 0..16 {
        let maze = mean(&returns("TMaze-v0", 1100, |history| code >> history.last().unwrap() & 1));
        // 5000 choices: a standard deviation of 0.007.
        assert!((maze - 0.5).abs() < 0.035, "policy {code:04b}: {maze}");
    }
    let mut random = choices(2);
    for _ in 0..8 {
        let policy: [i32; 4] = std::array::from_fn(|_| random.random_range(0..4));
        let percent = mean(&returns("RepeatPrevious-v0", 1040, |history| policy[*history.last().unwrap()]));
        assert!((percent - 25.0).abs() < 1.0, "policy {policy:?}: {percent} %");
    }
}
