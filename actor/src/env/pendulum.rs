//! Pendulum-v1: swing a pendulum up with a torque too weak to lift it at once.
//!
//! Gymnasium 1.4's dynamics (`gymnasium/envs/classic_control/pendulum.py`). Episodes never terminate.

use std::f64::consts::{PI, TAU};

use impresario_common::random::Stream;
use impresario_common::space::{EnvironmentSpec, Space};
use rand::RngExt;

use super::{Action, Environment, ObservationMut, Transition};

const MAX_SPEED: f64 = 8.0;
const MAX_TORQUE: f32 = 2.0;
/// Seconds between two states.
const DT: f64 = 0.05;
const GRAVITY: f64 = 10.0;
const MASS: f64 = 1.0;
const LENGTH: f64 = 1.0;

/// One pendulum. Action: the torque. Reward: minus a cost of angle, speed and torque, 0 at best.
#[derive(Debug, Clone, Default)]
pub struct Pendulum {
    /// Angle (rad, 0 is upright, counted on over full turns) and angular velocity (rad/s).
    state: [f64; 2],
}

impl Pendulum {
    /// Puts the environment into a state: angle and angular velocity.
    pub fn set_state(&mut self, state: [f64; 2]) {
        self.state = state;
    }

    /// What an agent sees of the present state: the angle's cosine and sine, and the angular velocity.
    #[inline]
    pub fn observation(&self) -> [f32; 3] {
        let [theta, theta_dot] = self.state;
        let (sin, cos) = theta.sin_cos();
        [cos as f32, sin as f32, theta_dot as f32]
    }
}

/// The same angle between -pi and pi.
#[inline]
fn normalise(angle: f64) -> f64 {
    (angle + PI).rem_euclid(TAU) - PI
}

impl Environment for Pendulum {
    fn spec(&self) -> EnvironmentSpec {
        let high = [1.0, 1.0, MAX_SPEED as f32];
        EnvironmentSpec::new(
            "Pendulum-v1",
            Space::boxed(&high.map(|bound: f32| -bound), &high),
            Space::boxed(&[-MAX_TORQUE], &[MAX_TORQUE]),
        )
        .with_max_episode_steps(200)
    }

    fn reset(&mut self, random: &mut Stream, observation: ObservationMut<'_>) {
        self.state = [random.random_range(-PI..PI), random.random_range(-1.0..1.0)];
        observation.into_f32().copy_from_slice(&self.observation());
    }

    #[inline]
    fn step(
        &mut self,
        action: Action<'_>,
        _random: &mut Stream,
        observation: ObservationMut<'_>,
    ) -> Transition {
        let [theta, theta_dot] = self.state;
        // The torque stays `float32` in Gymnasium, and so do the products of it alone.
        let torque = action.continuous()[0].clamp(-MAX_TORQUE, MAX_TORQUE);
        let effort = f64::from(0.001 * (torque * torque));
        let push = f64::from((3.0 / (MASS * LENGTH * LENGTH)) as f32 * torque);

        let angle = normalise(theta);
        let cost = angle * angle + 0.1 * (theta_dot * theta_dot) + effort;

        let theta_dot = theta_dot + (3.0 * GRAVITY / (2.0 * LENGTH) * theta.sin() + push) * DT;
        let theta_dot = theta_dot.clamp(-MAX_SPEED, MAX_SPEED);
        self.state = [theta + theta_dot * DT, theta_dot];
        observation.into_f32().copy_from_slice(&self.observation());

        Transition { reward: -cost, terminated: false, truncated: false }
    }
}
