//! RepeatPrevious-v0: name the symbol that was shown four steps ago.
//!
//! After the task of that name in POPGym (Morad et al. 2023, arXiv 2303.01859). Symbols are drawn independently, so
//! that the one shown says nothing of the one asked for: a policy without memory is right one time in four,
//! whatever it does.

use impresario_common::random::Stream;
use impresario_common::space::{EnvironmentSpec, Space};
use rand::RngExt;

use super::{Action, Environment, ObservationMut, Transition};

/// How many symbols there are.
const SYMBOLS: usize = 4;
/// Steps between a symbol and the answer to it.
const DELAY: usize = 4;
/// Answers in an episode.
const ANSWERS: usize = 100;

/// One deck of symbols. Observation: the symbol, one-hot. Action: a symbol. Reward: 1 for the one shown four steps
/// before, nothing for others and in the first four steps. An episode terminates after the hundredth answer: its return
/// is the percentage of right ones.
#[derive(Debug, Clone, Default)]
pub struct RepeatPrevious {
    /// The symbol on show, and those before it, newest first.
    shown: [usize; DELAY + 1],
    /// Steps taken in the episode.
    steps: usize,
}

impl RepeatPrevious {
    fn show_next(&mut self, random: &mut Stream, observation: ObservationMut<'_>) {
        self.shown.rotate_right(1);
        self.shown[0] = random.random_range(0..SYMBOLS);
        let observation = observation.into_f32();
        observation.fill(0.0);
        observation[self.shown[0]] = 1.0;
    }
}

impl Environment for RepeatPrevious {
    fn spec(&self) -> EnvironmentSpec {
        EnvironmentSpec::new(
            "RepeatPrevious-v0",
            Space::boxed(&[0.0; SYMBOLS], &[1.0; SYMBOLS]),
            Space::Discrete { n: SYMBOLS as u32 },
        )
        .with_solved_return(95.0)
    }

    fn reset(&mut self, random: &mut Stream, observation: ObservationMut<'_>) {
        self.steps = 0;
        self.show_next(random, observation);
    }

    fn step(
        &mut self,
        action: Action<'_>,
        random: &mut Stream,
        observation: ObservationMut<'_>,
    ) -> Transition {
        let right = self.steps >= DELAY && action.discrete()[0] as usize == self.shown[DELAY];
        self.steps += 1;
        self.show_next(random, observation);
        let terminated = self.steps == DELAY + ANSWERS;
        Transition { reward: f64::from(u8::from(right)), terminated, truncated: false }
    }
}
