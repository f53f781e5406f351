//! TicTacToe-v0: three in a row against an opponent that plays at random.
//!
//! A small environment whose legal actions differ from step to step: marks go to free cells only.

use impresario_common::random::Stream;
use impresario_common::space::{EnvironmentSpec, Space};
use rand::RngExt;

use super::{Action, Environment, ObservationMut, Transition};

const CELLS: usize = 9;

const LINES: [[usize; 3]; 8] =
    [[0, 1, 2], [3, 4, 5], [6, 7, 8], [0, 3, 6], [1, 4, 7], [2, 5, 8], [0, 4, 8], [2, 4, 6]];

/// What is in a cell, by its number in an observation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Cell {
    #[default]
    Free = 0,
    Agent = 1,
    Opponent = 2,
}

/// One board. Observation: each cell, row by row, 0 free, 1 the agent's, 2 the opponent's. Action: the cell to mark;
/// only free ones are legal, and any other loses the game. Either side begins with even chances; the opponent marks any
/// free cell. Reward at the end: 1 for a win, -1 for a loss, 0 for a draw. Perfect play earns about 0.95.
#[derive(Debug, Clone, Default)]
pub struct TicTacToe {
    board: [Cell; CELLS],
}

impl TicTacToe {
    fn free(&self) -> impl Iterator<Item = usize> {
        (0..CELLS).filter(|&cell| self.board[cell] == Cell::Free)
    }

    fn has_line(&self, side: Cell) -> bool {
        LINES.iter().any(|line| line.iter().all(|&cell| self.board[cell] == side))
    }

    /// The opponent marks any free cell.
    fn reply(&mut self, random: &mut Stream) {
        let free: Vec<usize> = self.free().collect();
        self.board[free[random.random_range(0..free.len())]] = Cell::Opponent;
    }

    /// Marks a cell for the agent and lets the opponent answer; the reward if that ended the game.
    fn play(&mut self, cell: usize, random: &mut Stream) -> Option<f64> {
        if self.board[cell] != Cell::Free {
            return Some(-1.0);
        }
        self.board[cell] = Cell::Agent;
        if self.has_line(Cell::Agent) {
            return Some(1.0);
        }
        if self.free().next().is_none() {
            return Some(0.0);
        }
        self.reply(random);
        if self.has_line(Cell::Opponent) {
            return Some(-1.0);
        }
        self.free().next().is_none().then_some(0.0)
    }

    fn show(&self, observation: ObservationMut<'_>) {
        observation.into_i32().copy_from_slice(&self.board.map(|cell| cell as i32));
    }
}

impl Environment for TicTacToe {
    fn spec(&self) -> EnvironmentSpec {
        EnvironmentSpec::new(
            "TicTacToe-v0",
            Space::MultiDiscrete { nvec: vec![3; CELLS] },
            Space::Discrete { n: CELLS as u32 },
        )
        .with_solved_return(0.9)
        .with_masked_actions()
    }

    fn reset(&mut self, random: &mut Stream, observation: ObservationMut<'_>) {
        self.board = Default::default();
        if random.random() {
            self.reply(random);
        }
        self.show(observation);
    }

    fn step(
        &mut self,
        action: Action<'_>,
        random: &mut Stream,
        observation: ObservationMut<'_>,
    ) -> Transition {
        let ended = self.play(action.discrete()[0] as usize, random);
        self.show(observation);
        Transition { reward: ended.unwrap_or(0.0), terminated: ended.is_some(), truncated: false }
    }

    fn legal_actions(&self, mask: &mut [u8]) {
        for (legal, cell) in mask.iter_mut().zip(&self.board) {
            *legal = u8::from(*cell == Cell::Free);
        }
    }
}
