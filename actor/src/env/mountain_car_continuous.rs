//! MountainCarContinuous-v0: rock an underpowered car out of a valley with a force between -1 and 1.
//!
//! Gymnasium 1.4's dynamics (`gymnasium/envs/classic_control/continuous_mountain_car.py`), whose
//! arithmetic mixes precisions: the state is `float64` when an episode starts and `float32` after each
//! step, and NumPy 2's promotion carries that through every expression. The same roundings are made here.

use impresario_common::random::Stream;
use impresario_common::space::{EnvironmentSpec, Space};
use rand::RngExt;

use super::{Action, Environment, ObservationMut, Transition};

const MAX_FORCE: f32 = 1.0;
const MIN_POSITION: f64 = -1.2;
const MAX_POSITION: f64 = 0.6;
const MAX_SPEED: f64 = 0.07;
const GOAL_POSITION: f64 = 0.45;
const GOAL_VELOCITY: f64 = 0.0;
const POWER: f64 = 0.0015;
const GRAVITY: f64 = 0.0025;

/// Precision that Gymnasium's state has, and that arithmetic on it is rounded to.
#[derive(Debug, Clone, Copy, Default)]
enum Precision {
    /// `float64`: no step has been taken yet.
    #[default]
    Double,
    /// `float32`.
    Single,
}

impl Precision {
    /// The value nearest to `value` in this precision. Rounding after each operation in `f64` gives what
    /// the operation gives in `f32`, for `f64` has more than twice its bits.
    #[inline]
    fn round(self, value: f64) -> f64 {
        match self {
            Self::Double => value,
            Self::Single => f64::from(value as f32),
        }
    }
}

/// One car. Action: the force. Reward: 100 for reaching the goal, less a tenth of the squared action
/// (unclipped, as in Gymnasium).
#[derive(Debug, Clone, Default)]
pub struct MountainCarContinuous {
    /// Position and velocity.
    state: [f64; 2],
    precision: Precision,
}

impl MountainCarContinuous {
    /// Puts the environment into a state, position and velocity, from which an episode starts.
    pub fn set_state(&mut self, state: [f64; 2]) {
        self.state = state;
        self.precision = Precision::Double;
    }

    /// What an agent sees of the present state.
    #[inline]
    pub fn observation(&self) -> [f32; 2] {
        self.state.map(|value| value as f32)
    }
}

/// What the force of an action and the slope add to the velocity in one step.
#[inline]
fn acceleration(action: f32, slope: f64) -> f64 {
    let pull = GRAVITY * slope;
    // Within bounds the action stays a NumPy `float32` and the sum with it; a clipped one is a Python
    // float, in double precision.
    if action < -MAX_FORCE {
        -f64::from(MAX_FORCE) * POWER - pull
    } else if action > MAX_FORCE {
        f64::from(MAX_FORCE) * POWER - pull
    } else {
        f64::from(action * POWER as f32 - pull as f32)
    }
}

impl Environment for MountainCarContinuous {
    fn spec(&self) -> EnvironmentSpec {
        EnvironmentSpec::new(
            "MountainCarContinuous-v0",
            Space::boxed(&[MIN_POSITION as f32, -MAX_SPEED as f32], &[MAX_POSITION as f32, MAX_SPEED as f32]),
            Space::boxed(&[-MAX_FORCE], &[MAX_FORCE]),
        )
        .with_max_episode_steps(999)
        .with_solved_return(90.0)
    }

    fn reset(&mut self, random: &mut Stream, observation: ObservationMut<'_>) {
        self.set_state([random.random_range(-0.6..-0.4), 0.0]);
        observation.into_f32().copy_from_slice(&self.observation());
    }

    #[inline]
    fn step(
        &mut self,
        action: Action<'_>,
        _random: &mut Stream,
        observation: ObservationMut<'_>,
    ) -> Transition {
        let action = action.continuous()[0];
        let round = |value| self.precision.round(value);
        let [position, velocity] = self.state;

        let slope = round(3.0 * position).cos();
        let velocity = round(velocity + round(acceleration(action, slope)));
        let mut velocity = velocity.clamp(round(-MAX_SPEED), round(MAX_SPEED));
        let position = round(position + velocity).clamp(round(MIN_POSITION), round(MAX_POSITION));
        // The wall on the left stops the car.
        if position == round(MIN_POSITION) && velocity < 0.0 {
            velocity = 0.0;
        }
        let terminated = position >= round(GOAL_POSITION) && velocity >= GOAL_VELOCITY;

        self.precision = Precision::Single;
        self.state = [position, velocity].map(|value| self.precision.round(value));
        observation.into_f32().copy_from_slice(&self.observation());

        let action = f64::from(action);
        let reward = if terminated { 100.0 } else { 0.0 } - action * action * 0.1;
        Transition { reward, terminated, truncated: false }
    }
}
