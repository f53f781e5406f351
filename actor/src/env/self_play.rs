//! A matrix game in which one policy plays both sides: RockPaperScissorsSelfPlay-v0.
//!
//! Copies 2i and 2i + 1 of the vector are the two players of one game, so that a policy that acts in all copies plays
//! itself, and a batch holds the experience of both sides. Nothing in it is random but the players.

use impresario_common::space::{EnvironmentSpec, Space};

use super::matrix_game::{LastRound, MatrixGame};
use super::repeated_game::ROUNDS;
use super::vector::Frame;
use super::{Action, EnvironmentError, ObservationMut, VectorEnvironment, VectorStep};

/// Copies that make one game.
pub const PLAYERS: usize = 2;

/// Games between pairs of copies. Observation of each player: the flag of the first round, its own last action and the
/// other player's, one-hot. Reward: the payoff of the round; what one player gets the other loses.
#[derive(Debug)]
pub struct SelfPlay {
    frame: Frame,
    game: MatrixGame,
    /// The round before in each game, as the player of the even copy saw it.
    last: Vec<LastRound>,
    /// Rounds played in the present episode, the same in all games.
    rounds: u32,
}

impl SelfPlay {
    /// Spaces and limits of the self-play of `game` under the name `id`.
    pub fn spec(id: &str, game: &MatrixGame) -> EnvironmentSpec {
        // No return solves it: means of self-play are 0, whatever the policy.
        EnvironmentSpec::new(id, game.observation_space(), Space::Discrete { n: game.actions() as u32 })
            .with_max_episode_steps(ROUNDS)
    }

    /// Games of `copies` players under the name `id`.
    ///
    /// # Panics
    /// If the number of copies is odd, which the registry rules out.
    pub fn new(id: &str, game: MatrixGame, copies: usize) -> Self {
        assert!(copies.is_multiple_of(PLAYERS), "two players make a game");
        let frame = Frame::new(Self::spec(id, &game), copies);
        Self { frame, last: vec![None; copies / PLAYERS], rounds: 0, game }
    }

    /// Writes what the players of each game see.
    fn observe(&self, observations: &mut ObservationMut<'_>) {
        for (i, &last) in self.last.iter().enumerate() {
            for (player, seen) in sides(last).into_iter().enumerate() {
                let own = self.frame.observation(PLAYERS * i + player);
                self.game.observe(seen, observations.part(own).into_f32());
            }
        }
    }
}

/// A round as the player of the even copy and that of the odd one saw it.
fn sides(last: LastRound) -> [LastRound; PLAYERS] {
    [last, last.map(|(own, other)| (other, own))]
}

impl VectorEnvironment for SelfPlay {
    fn spec(&self) -> &EnvironmentSpec {
        self.frame.spec()
    }

    fn copies(&self) -> usize {
        self.frame.copies()
    }

    fn reset(&mut self, mut observations: ObservationMut<'_>) -> Result<(), EnvironmentError> {
        self.frame.check_reset(&observations)?;
        self.last.fill(None);
        self.rounds = 0;
        self.observe(&mut observations);
        Ok(())
    }

    fn step(&mut self, actions: Action<'_>, mut out: VectorStep<'_>) -> Result<(), EnvironmentError> {
        self.frame.check_step(actions, &out)?;
        self.rounds += 1;
        let cut = self.rounds >= ROUNDS;
        for (i, pair) in actions.discrete().chunks_exact(PLAYERS).enumerate() {
            let (even, odd) = (pair[0] as usize, pair[1] as usize);
            let reward = self.game.payoff(even, odd) as f32;
            self.last[i] = Some((even, odd));
            out.rewards[PLAYERS * i] = reward;
            out.rewards[PLAYERS * i + 1] = -reward;
        }
        out.terminated.fill(0);
        out.truncated.fill(u8::from(cut));
        self.observe(&mut out.observations);
        if cut {
            for copy in 0..self.frame.copies() {
                let last = out.observations.part(self.frame.observation(copy));
                self.frame.hand_over(last, copy, &mut *out.final_observations)?;
            }
            self.last.fill(None);
            self.rounds = 0;
            self.observe(&mut out.observations);
        }
        Ok(())
    }
}
