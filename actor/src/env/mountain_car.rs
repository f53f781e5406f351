//! MountainCar-v0: rock an underpowered car out of a valley by pushing left, right or not at all.
//!
//! Gymnasium 1.4's dynamics (`gymnasium/envs/classic_control/mountain_car.py`), after Moore, "Efficient
//! Memory-based Learning for Robot Control" (1990).

use impresario_common::random::Stream;
use impresario_common::space::{EnvironmentSpec, Space};
use rand::RngExt;

use super::{Action, Environment, ObservationMut, Transition};

const MIN_POSITION: f64 = -1.2;
const MAX_POSITION: f64 = 0.6;
const MAX_SPEED: f64 = 0.07;
const GOAL_POSITION: f64 = 0.5;
const GOAL_VELOCITY: f64 = 0.0;
const FORCE: f64 = 0.001;
const GRAVITY: f64 = 0.0025;

/// One car. Actions: 0 pushes left, 1 not at all, 2 right. Reward: -1 a step, the last one included.
#[derive(Debug, Clone, Default)]
pub struct MountainCar {
    /// Position and velocity.
    state: [f64; 2],
}

impl MountainCar {
    /// Puts the environment into a state: position and velocity.
    pub fn set_state(&mut self, state: [f64; 2]) {
        self.state = state;
    }

    /// What an agent sees of the present state.
    #[inline]
    pub fn observation(&self) -> [f32; 2] {
        self.state.map(|value| value as f32)
    }
}

impl Environment for MountainCar {
    fn spec(&self) -> EnvironmentSpec {
        EnvironmentSpec::new(
            "MountainCar-v0",
            Space::boxed(&[MIN_POSITION as f32, -MAX_SPEED as f32], &[MAX_POSITION as f32, MAX_SPEED as f32]),
            Space::Discrete { n: 3 },
        )
        .with_max_episode_steps(200)
        .with_solved_return(-110.0)
    }

    fn reset(&mut self, random: &mut Stream, observation: ObservationMut<'_>) {
        self.state = [random.random_range(-0.6..-0.4), 0.0];
        observation.into_f32().copy_from_slice(&self.observation());
    }

    #[inline]
    fn step(
        &mut self,
        action: Action<'_>,
        _random: &mut Stream,
        observation: ObservationMut<'_>,
    ) -> Transition {
        let [position, velocity] = self.state;
        let push = f64::from(action.discrete()[0] - 1) * FORCE;
        let mut velocity =
            (velocity + (push + (3.0 * position).cos() * -GRAVITY)).clamp(-MAX_SPEED, MAX_SPEED);
        let position = (position + velocity).clamp(MIN_POSITION, MAX_POSITION);
        // The wall on the left stops the car.
        if position == MIN_POSITION && velocity < 0.0 {
            velocity = 0.0;
        }
        self.state = [position, velocity];
        observation.into_f32().copy_from_slice(&self.observation());

        let terminated = position >= GOAL_POSITION && velocity >= GOAL_VELOCITY;
        Transition { reward: -1.0, terminated, truncated: false }
    }
}
