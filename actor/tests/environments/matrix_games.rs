//! Matrix games: payoffs, what a strategy loses to its best response, and that both opponents do what they are for.

use impresario_actor::env::VectorEnvironment;
use impresario_actor::env::matrix_game::MatrixGame;
use impresario_actor::env::registry::Registry;
use impresario_common::space::Space;
use rand::RngExt;

use super::worker::{Worker, choices, numbers, streams};

const ADAPTING: &str = "RockPaperScissors-v0";
const SELF_PLAY: &str = "RockPaperScissorsSelfPlay-v0";

const ROCK: usize = 0;
const PAPER: usize = 1;
const SCISSORS: usize = 2;

fn make(id: &str, copies: u32) -> Box<dyn VectorEnvironment> {
    Registry::native().make_vector(id, streams(1, copies)).unwrap()
}

#[test]
fn rock_breaks_scissors_scissors_cut_paper_paper_wraps_rock() {
    let game = MatrixGame::rock_paper_scissors();
    for (winner, loser) in [(ROCK, SCISSORS), (SCISSORS, PAPER), (PAPER, ROCK)] {
        assert_eq!((game.payoff(winner, loser), game.payoff(loser, winner)), (1.0, -1.0));
        assert_eq!(game.payoff(winner, winner), 0.0);
    }
}

#[test]
fn exploitability_is_what_the_best_counter_strategy_wins() {
    // A counter-strategy that mixes is never better than a pure one: a fine grid of mixtures is the slow way.
    let slow = |mix: [f64; 3], payoff: &dyn Fn(usize, usize) -> f64| {
        let mut most = f64::NEG_INFINITY;
        for i in 0..=20 {
            for j in 0..=20 - i {
                let counter = [i, j, 20 - i - j].map(|share| f64::from(share) / 20.0);
                let pairs = (0..3).flat_map(|a| (0..3).map(move |b| (a, b)));
                most = most.max(pairs.map(|(a, b)| counter[a] * mix[b] * payoff(a, b)).sum());
            }
        }
        most
    };
    let other = [[0.0, 2.0, -1.0], [-2.0, 0.0, 3.0], [1.0, -3.0, 0.0]];
    let other_game = MatrixGame::new(other.map(Vec::from).to_vec());
    let game = MatrixGame::rock_paper_scissors();
    // By the rules: (a - b) mod 3 is 1 where a beats b, 2 where it is beaten.
    let rules = |a: usize, b: usize| [0.0, 1.0, -1.0][(3 + a - b) % 3];
    let mut random = choices(1);
    for _ in 0..100 {
        let weights: [f64; 3] = std::array::from_fn(|_| random.random());
        let mix = weights.map(|weight| weight / weights.iter().sum::<f64>());
        assert!((game.exploitability(&mix) - slow(mix, &rules)).abs() < 1e-12, "{mix:?}");
        assert!((other_game.exploitability(&mix) - slow(mix, &|a, b| other[a][b])).abs() < 1e-12, "{mix:?}");
        assert!(game.exploitability(&mix) > 0.0);
    }
    assert_eq!(game.exploitability(&[1.0 / 3.0; 3]), 0.0);
    assert_eq!(game.exploitability(&[0.0, 1.0, 0.0]), 1.0);
    // The equilibrium of the other game: each action in proportion to the payoff between the other two.
    assert!(other_game.exploitability(&[3.0 / 6.0, 1.0 / 6.0, 2.0 / 6.0]).abs() < 1e-12);
}

#[test]
#[should_panic(expected = "what 0 gets against 1 is what 1 loses against 0")]
fn a_game_in_which_both_can_win_is_refused() {
    MatrixGame::new(vec![vec![0.0, 1.0], vec![1.0, 0.0]]);
}

/// Mean reward of `policy`, which sees the observation, over rounds `from..to`.
fn mean_reward(from: usize, to: usize, mut policy: impl FnMut(&[f32]) -> i32) -> f32 {
    const COPIES: usize = 20;
    let mut vector = make(ADAPTING, COPIES as u32);
    let mut worker = Worker::reset(&mut *vector);
    let mut total = 0.0;
    for round in 0..to {
        let actions: Vec<i32> = (0..COPIES).map(|copy| policy(&worker.seen(copy))).collect();
        worker.choose(&mut *vector, &actions);
        if round >= from {
            total += worker.rewards.iter().sum::<f32>();
        }
    }
    total / (COPIES * (to - from)) as f32
}

#[test]
fn the_opponent_finds_out_and_punishes_every_bias() {
    for action in 0..3 {
        let constant = mean_reward(100, 1000, |_| action);
        assert!(constant < -0.99, "always {action}: {constant}");
    }
    // Beating what the opponent did last, and what one did oneself: a habit of any kind is a bias somewhere.
    let beats_last = |seen: &[f32]| (0..3).find(|&b| seen[4 + b as usize] == 1.0).map_or(0, |b| (b + 1) % 3);
    let cycles = |seen: &[f32]| (0..3).find(|&a| seen[1 + a as usize] == 1.0).map_or(0, |a| (a + 2) % 3);
    assert!(mean_reward(1000, 3000, beats_last) < -0.95);
    assert!(mean_reward(1000, 3000, cycles) < -0.95);
    // Half rock, a quarter each of the others: paper wins a quarter a round.
    let mut random = choices(4);
    let half = mean_reward(1000, 6000, |_| [0, 0, 1, 2][random.random_range(0..4)]);
    assert!((-0.25..-0.12).contains(&half), "{half}");
}

#[test]
fn the_uniform_mix_loses_nothing() {
    let mut random = choices(5);
    let mean = mean_reward(0, 5000, |_| random.random_range(0..3));
    // 100,000 rounds: a standard deviation of 0.0026.
    assert!(mean.abs() < 0.012, "{mean}");
}

#[test]
fn the_opponent_remembers_over_episodes_and_shows_the_round_before() {
    let mut vector = make(ADAPTING, 1);
    let mut worker = Worker::reset(&mut *vector);
    for round in 1..=250 {
        let first_round = round % 100 == 1;
        assert_eq!(worker.seen(0)[0] == 1.0, first_round, "round {round}");
        assert_eq!(worker.seen(0).iter().sum::<f32>(), if first_round { 1.0 } else { 2.0 });
        worker.choose(&mut *vector, &[ROCK as i32]);
        let cut = round % 100 == 0;
        assert_eq!((worker.terminated[0], worker.truncated[0]), (0, u8::from(cut)), "round {round}");
        let seen = match cut {
            false => worker.seen(0),
            true => numbers(&worker.finals.taken[0].1),
        };
        let other = (0..3).find(|&b| seen[4 + b] == 1.0).unwrap();
        assert_eq!(seen[1..4], [1.0, 0.0, 0.0]);
        assert_eq!(worker.rewards[0], [0.0, -1.0, 1.0][other]);
        // Met for the first time, anything may happen; after that, paper.
        if round > 100 {
            assert_eq!(other, PAPER, "round {round}");
        }
    }
}

#[test]
fn neighbours_play_each_other_and_one_wins_what_the_other_loses() {
    let mut vector = make(SELF_PLAY, 4);
    let mut worker = Worker::reset(&mut *vector);
    let mut random = choices(6);
    for round in 1..=250 {
        let actions: [i32; 4] = std::array::from_fn(|_| random.random_range(0..3));
        worker.choose(&mut *vector, &actions);
        let cut = round % 100 == 0;
        assert_eq!((&*worker.terminated, &*worker.truncated), (&[0; 4][..], &[u8::from(cut); 4][..]));
        let finals: Vec<usize> = worker.finals.taken.iter().map(|(copy, _)| *copy).collect();
        assert_eq!(finals, if cut { vec![0, 1, 2, 3] } else { vec![] });
        for (copy, neighbour) in [(0, 1), (1, 0), (2, 3), (3, 2)] {
            let (own, other) = (actions[copy], actions[neighbour]);
            assert_eq!(worker.rewards[copy], [0.0, 1.0, -1.0][(3 + own - other) as usize % 3]);
            let mut expected = [0.0; 7];
            expected[1 + own as usize] = 1.0;
            expected[4 + other as usize] = 1.0;
            if cut {
                assert_eq!(numbers(&worker.finals.taken[copy].1), expected);
                expected = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
            }
            assert_eq!(worker.seen(copy), expected, "round {round}, copy {copy}");
        }
    }
}

#[test]
fn an_odd_number_of_players_is_refused_with_what_to_change() {
    let registry = Registry::native();
    assert_eq!((registry.players(SELF_PLAY), registry.players(ADAPTING)), (Ok(2), Ok(1)));
    let Err(error) = registry.make_vector(SELF_PLAY, streams(1, 3)) else { panic!("one copy plays nobody") };
    assert_eq!(
        error.to_string(),
        "RockPaperScissorsSelfPlay-v0 is played by 2 copies together, and the 3 copies of a worker are no \
         multiple of that: change rollout.envs_per_actor (the actor's --envs) or rollout.workers_per_actor (its \
         --workers)"
    );
}

#[test]
fn another_game_can_be_registered() {
    let game = MatrixGame::new(vec![vec![0.0, 1.0], vec![-1.0, 0.0]]);
    let mut registry = Registry::empty();
    registry.register_self_play("Dominance-v0", game);
    assert_eq!(registry.spec("Dominance-v0").unwrap().action, Space::Discrete { n: 2 });
    let mut vector = registry.make_vector("Dominance-v0", streams(1, 2)).unwrap();
    let mut worker = Worker::reset(&mut *vector);
    worker.choose(&mut *vector, &[0, 1]);
    assert_eq!(worker.rewards, [1.0, -1.0]);
}
