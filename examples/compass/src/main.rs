//! An environment of one's own: this program is `impresario` with the environment `Compass-v0` beside its own.
//!
//! ```text
//! cargo run --release -- check-env Compass-v0
//! cargo run --release -- train --env Compass-v0
//! ```

use impresario_actor::env::registry::Registry;
use impresario_actor::env::{Action, Environment, ObservationMut, Transition};
use impresario_common::random::Stream;
use impresario_common::space::{EnvironmentSpec, Space};
use rand::RngExt;

/// Say which way the needle points.
#[derive(Default)]
struct Compass {
    needle: f32,
}

impl Environment for Compass {
    fn spec(&self) -> EnvironmentSpec {
        EnvironmentSpec::new("Compass-v0", Space::boxed(&[-1.0], &[1.0]), Space::Discrete { n: 2 })
            .with_max_episode_steps(50)
            .with_solved_return(48.0)
    }

    fn reset(&mut self, random: &mut Stream, observation: ObservationMut<'_>) {
        self.needle = if random.random() { 1.0 } else { -1.0 };
        observation.into_f32()[0] = self.needle;
    }

    fn step(
        &mut self,
        action: Action<'_>,
        random: &mut Stream,
        observation: ObservationMut<'_>,
    ) -> Transition {
        let right = (action.discrete()[0] == 1) == (self.needle > 0.0);
        self.reset(random, observation);
        Transition { reward: f64::from(u8::from(right)), terminated: false, truncated: false }
    }
}

fn main() -> std::process::ExitCode {
    let mut registry = Registry::native();
    registry.register(Compass::default);
    impresario::main_with(registry)
}
