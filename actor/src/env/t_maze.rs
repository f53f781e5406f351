//! TMaze-v0: remember at the end of a corridor what was shown at its beginning.
//!
//! After Bakker, "Reinforcement Learning with Long Short-Term Memory" (2001), whose corridor has to be walked; here every
//! action leads one cell on, so that nothing is tested but memory. The junction looks the same whatever the
//! cue was: a policy without memory chooses by the same probabilities after either cue and is right half
//! of the time, whatever these are.

use impresario_common::random::Stream;
use impresario_common::space::{EnvironmentSpec, Space};
use rand::RngExt;

use super::{Action, Environment, ObservationMut, Transition};

/// Steps from the cue to the junction.
const CORRIDOR: u32 = 10;

/// Where the number of each kind of cell stands in an observation; the cue takes this or the next.
const CUE: usize = 0;
const HALLWAY: usize = 2;
const JUNCTION: usize = 3;

/// One maze. Observation, one-hot: cue 0, cue 1, corridor, junction. Actions: 0 or 1; at the junction, the 11th step,
/// the one that equals the cue earns 1, the other nothing, and the episode terminates. So the mean return
/// is the share of right choices.
#[derive(Debug, Clone, Default)]
pub struct TMaze {
    cue: usize,
    /// Steps from the beginning.
    cell: u32,
}

impl TMaze {
    fn show(&self, observation: ObservationMut<'_>) {
        let observation = observation.into_f32();
        observation.fill(0.0);
        let kind = match self.cell {
            0 => CUE + self.cue,
            CORRIDOR.. => JUNCTION,
            _ => HALLWAY,
        };
        observation[kind] = 1.0;
    }
}

impl Environment for TMaze {
    fn spec(&self) -> EnvironmentSpec {
        EnvironmentSpec::new("TMaze-v0", Space::boxed(&[0.0; 4], &[1.0; 4]), Space::Discrete { n: 2 })
            .with_solved_return(0.95)
    }

    fn reset(&mut self, random: &mut Stream, observation: ObservationMut<'_>) {
        *self = Self { cue: random.random_range(0..2), cell: 0 };
        self.show(observation);
    }

    fn step(
        &mut self,
        action: Action<'_>,
        _random: &mut Stream,
        observation: ObservationMut<'_>,
    ) -> Transition {
        let terminated = self.cell == CORRIDOR;
        let right = terminated && action.discrete()[0] as usize == self.cue;
        self.cell += 1;
        self.show(observation);
        Transition { reward: f64::from(u8::from(right)), terminated, truncated: false }
    }
}
