//! A matrix game, round after round, against an opponent that adapts: RockPaperScissors-v0.
//!
//! The opponent plays the best response to what it has seen the agent do, a fictitious player (Brown 1951, "Iterative
//! Solution of Games by Fictitious Play") that forgets. It keeps apart what the agent did after each outcome of
//! the round before, which is all that the agent observes: whatever a policy plays more often at some
//! observation than the equilibrium does is found out and punished there. So the only policy of the observation that
//! loses nothing in the long run is the equilibrium's mix at every observation, which for rock, paper and
//! scissors is the uniform one; a deterministic one loses nearly every round.

use impresario_common::random::Stream;
use impresario_common::space::{EnvironmentSpec, Space};
use rand::RngExt;

use super::matrix_game::{LastRound, MatrixGame};
use super::measure::Measure;
use super::{Action, Environment, ObservationMut, Transition};

/// Rounds of an episode. The limit cuts a game off that would go on (and of which the opponent forgets nothing), so it
/// truncates.
pub(super) const ROUNDS: u32 = 100;

/// What an observed action still counts after another one at the same observation: a memory of about ten.
const MEMORY: f64 = 0.9;

/// One opponent, for life: what it has learnt stays when an episode ends.
///
/// Observation: the flag of the first round, the agent's last action and the opponent's, one-hot. Reward: the payoff of the
/// round.
#[derive(Debug, Clone)]
pub struct RepeatedGame {
    id: &'static str,
    game: MatrixGame,
    last: LastRound,
    /// How often, fading, the agent chose each action at each of its observations: `[context][action]`.
    seen: Vec<Vec<f64>>,
}

impl RepeatedGame {
    /// The repeated `game` under the name `id`.
    pub fn new(id: &'static str, game: MatrixGame) -> Self {
        let contexts = 1 + game.actions() * game.actions();
        Self { id, last: None, seen: vec![vec![0.0; game.actions()]; contexts], game }
    }

    /// RockPaperScissors-v0.
    pub fn rock_paper_scissors() -> Self {
        Self::new("RockPaperScissors-v0", MatrixGame::rock_paper_scissors())
    }

    /// The opponent's action: a best response to what it saw, any of them where several are as good.
    fn respond(&self, random: &mut Stream) -> usize {
        let seen = &self.seen[self.game.context(self.last)];
        let best = self.game.exploitability(seen);
        let good = || (0..self.game.actions()).filter(|&action| self.game.expected(action, seen) == best);
        let chosen = random.random_range(0..good().count());
        good().nth(chosen).unwrap_or_default()
    }

    fn remember(&mut self, action: usize) {
        let seen = &mut self.seen[self.game.context(self.last)];
        seen.iter_mut().for_each(|weight| *weight *= MEMORY);
        seen[action] += 1.0;
    }
}

impl Environment for RepeatedGame {
    fn spec(&self) -> EnvironmentSpec {
        // No return solves it: what cannot be exploited wins nothing either.
        EnvironmentSpec::new(
            self.id,
            self.game.observation_space(),
            Space::Discrete { n: self.game.actions() as u32 },
        )
        .with_max_episode_steps(ROUNDS)
    }

    fn remembers_episodes(&self) -> bool {
        true
    }

    fn reset(&mut self, _random: &mut Stream, observation: ObservationMut<'_>) {
        self.last = None;
        self.game.observe(self.last, observation.into_f32());
    }

    fn step(
        &mut self,
        action: Action<'_>,
        random: &mut Stream,
        observation: ObservationMut<'_>,
    ) -> Transition {
        let own = action.discrete()[0] as usize;
        let other = self.respond(random);
        self.remember(own);
        self.last = Some((own, other));
        self.game.observe(self.last, observation.into_f32());
        Transition { reward: self.game.payoff(own, other), terminated: false, truncated: false }
    }

    fn measure(&self) -> Option<Measure> {
        Some(Measure::Exploitability(self.game.clone()))
    }
}
