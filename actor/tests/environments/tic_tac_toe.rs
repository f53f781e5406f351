//! Tic-tac-toe: the masks are the free cells, games end as the rules say, and perfect play earns what the rules allow.

use std::collections::HashMap;

use impresario_actor::env::VectorEnvironment;
use impresario_actor::env::registry::Registry;
use rand::RngExt;

use super::worker::{Worker, choices, streams};

type Board = [u8; 9];

/// Rows, columns and diagonals by their coordinates.
fn won(board: &Board, side: u8) -> bool {
    let at = |row: usize, column: usize| board[3 * row + column] == side;
    (0..3).any(|i| (0..3).all(|j| at(i, j)) || (0..3).all(|j| at(j, i)))
        || (0..3).all(|i| at(i, i))
        || (0..3).all(|i| at(i, 2 - i))
}

fn free(board: &Board) -> impl Iterator<Item = usize> {
    (0..9).filter(|&cell| board[cell] == 0)
}

/// The most that the agent, to move, earns on average against random replies, and how.
fn best(board: Board, known: &mut HashMap<Board, (f64, usize)>) -> (f64, usize) {
    if let Some(&answer) = known.get(&board) {
        return answer;
    }
    let mut most = (f64::NEG_INFINITY, 0);
    for cell in free(&board) {
        let mut after = board;
        after[cell] = 1;
        let replies: Vec<usize> = free(&after).collect();
        let value = if won(&after, 1) {
            1.0
        } else if replies.is_empty() {
            0.0
        } else {
            let values = replies.iter().map(|&reply| {
                let mut next = after;
                next[reply] = 2;
                if won(&next, 2) {
                    -1.0
                } else if free(&next).next().is_none() {
                    0.0
                } else {
                    best(next, known).0
                }
            });
            values.sum::<f64>() / replies.len() as f64
        };
        if value > most.0 {
            most = (value, cell);
        }
    }
    known.insert(board, most);
    most
}

fn board(seen: &[f32]) -> Board {
    std::array::from_fn(|cell| seen[cell] as u8)
}

fn marks(board: &Board, side: u8) -> usize {
    board.iter().filter(|&&mark| mark == side).count()
}

fn vector(copies: u32) -> Box<dyn VectorEnvironment> {
    Registry::native().make_vector("TicTacToe-v0", streams(1, copies)).unwrap()
}

#[test]
fn legal_games_follow_the_rules() {
    const COPIES: usize = 8;
    let mut vector = vector(COPIES as u32);
    let mut worker = Worker::reset(&mut *vector);
    let mut random = choices(3);
    let mut masks = vec![7; 9 * COPIES];
    let mut ends = [0; 3];
    for _ in 0..2000 {
        vector.legal_actions(&mut masks).unwrap();
        let before: Vec<Board> = (0..COPIES).map(|copy| board(&worker.seen(copy))).collect();
        let actions: Vec<i32> = (0..COPIES)
            .map(|copy| {
                let legal: Vec<usize> = (0..9).filter(|cell| masks[9 * copy + cell] == 1).collect();
                assert_eq!(legal, free(&before[copy]).collect::<Vec<_>>());
                legal[random.random_range(0..legal.len())] as i32
            })
            .collect();
        worker.choose(&mut *vector, &actions);
        for copy in 0..COPIES {
            let (after, reward) = (board(&worker.seen(copy)), worker.rewards[copy]);
            let mut moved = before[copy];
            moved[actions[copy] as usize] = 1;
            if worker.terminated[copy] == 0 {
                // One reply was added, and nobody has won.
                let replies: Vec<usize> = (0..9).filter(|&cell| after[cell] != moved[cell]).collect();
                assert!(replies.len() == 1 && moved[replies[0]] == 0 && after[replies[0]] == 2);
                assert!(!won(&after, 1) && !won(&after, 2) && free(&after).next().is_some());
                assert_eq!(reward, 0.0);
                continue;
            }
            // The next game has begun, with at most the opponent's first mark.
            assert!(marks(&after, 1) == 0 && marks(&after, 2) <= 1);
            match reward {
                1.0 => assert!(won(&moved, 1)),
                0.0 => assert!(!won(&moved, 1) && free(&moved).count() <= 1),
                -1.0 => {
                    let mut replies = free(&moved).map(|reply| {
                        let mut after = moved;
                        after[reply] = 2;
                        after
                    });
                    assert!(replies.any(|after| won(&after, 2)));
                }
                other => panic!("a game paid {other}"),
            }
            ends[(reward + 1.0) as usize] += 1;
        }
    }
    assert!(ends.iter().all(|&count| count > 50), "losses, draws and wins: {ends:?}");
}

#[test]
fn an_illegal_mark_loses() {
    let mut vector = vector(1);
    let mut worker = Worker::reset(&mut *vector);
    for _ in 0..20 {
        let taken = (0..9).find(|&cell| worker.seen(0)[cell] != 0.0);
        worker.choose(&mut *vector, &[taken.unwrap_or(4) as i32]);
        if taken.is_some() {
            assert_eq!((worker.rewards[0], worker.terminated[0]), (-1.0, 1));
        }
    }
}

#[test]
fn perfect_play_earns_what_the_rules_allow() {
    let mut known = HashMap::new();
    let mut begun = [0; 9];
    let first = best(begun, &mut known).0;
    let second = (0..9).map(|cell| {
        begun = [0; 9];
        begun[cell] = 2;
        best(begun, &mut known).0
    });
    let expected = (first + second.sum::<f64>() / 9.0) / 2.0;
    assert!((0.94..0.97).contains(&expected), "{expected}");

    let mut vector = vector(16);
    let mut worker = Worker::reset(&mut *vector);
    let (mut games, mut total) = (0.0, 0.0);
    for _ in 0..4000 {
        let actions: Vec<i32> =
            (0..16).map(|copy| best(board(&worker.seen(copy)), &mut known).1 as i32).collect();
        worker.choose(&mut *vector, &actions);
        games += f64::from(worker.terminated.iter().map(|&ended| u32::from(ended)).sum::<u32>());
        total += worker.rewards.iter().map(|&reward| f64::from(reward)).sum::<f64>();
    }
    let mean = total / games;
    // About 17,000 games whose returns have a standard deviation of at most 0.3.
    assert!((mean - expected).abs() < 0.012, "{mean} instead of {expected}");
    assert!(mean > vector.spec().solved_return.unwrap());
}
