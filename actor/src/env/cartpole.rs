//! CartPole-v1: keep a pole upright on a cart that is pushed left or right.
//!
//! Gymnasium 1.4's dynamics (`gymnasium/envs/classic_control/cartpole.py`), after Barto, Sutton and
//! Anderson, "Neuronlike Adaptive Elements That Can Solve Difficult Learning Control Problems" (1983).
//! Expressions keep Gymnasium's order of operations, so that trajectories agree to the last bit.

use std::f64::consts::PI;

use impresario_common::random::Stream;
use impresario_common::space::{EnvironmentSpec, Space};
use rand::RngExt;

use super::picture::Picture;
use super::{Action, Environment, ObservationMut, Transition};

const GRAVITY: f64 = 9.8;
const POLE_MASS: f64 = 0.1;
const TOTAL_MASS: f64 = POLE_MASS + 1.0;
/// Half the pole's length, in metres.
const LENGTH: f64 = 0.5;
const POLE_MASS_LENGTH: f64 = POLE_MASS * LENGTH;
const FORCE: f64 = 10.0;
/// Seconds between two states.
const TAU: f64 = 0.02;
/// Pole angle beyond which an episode terminates, in radians.
const MAX_THETA: f64 = 12.0 * 2.0 * PI / 360.0;
/// Cart position beyond which an episode terminates, in metres.
const MAX_X: f64 = 2.4;

/// One cart with its pole. Actions: 0 pushes left, 1 pushes right. Reward: 1 a step.
#[derive(Debug, Clone, Default)]
pub struct CartPole {
    /// Cart position (m) and velocity (m/s), pole angle (rad, 0 is upright) and angular velocity (rad/s).
    state: [f64; 4],
}

impl CartPole {
    /// Puts the environment into a state: cart position and velocity, pole angle and angular velocity.
    pub fn set_state(&mut self, state: [f64; 4]) {
        self.state = state;
    }

    /// What an agent sees of the present state.
    #[inline]
    pub fn observation(&self) -> [f32; 4] {
        self.state.map(|value| value as f32)
    }
}

impl Environment for CartPole {
    fn spec(&self) -> EnvironmentSpec {
        // Twice the limits, so that the state an episode terminates in still lies within the space.
        let high = [(MAX_X * 2.0) as f32, f32::INFINITY, (MAX_THETA * 2.0) as f32, f32::INFINITY];
        EnvironmentSpec::new(
            "CartPole-v1",
            Space::boxed(&high.map(|bound| -bound), &high),
            Space::Discrete { n: 2 },
        )
        .with_max_episode_steps(500)
        .with_solved_return(475.0)
    }

    fn render(&self) -> Option<Picture> {
        // Pixels a metre; the rail is twice as long as the way to the end of an episode.
        const SCALE: f64 = 300.0 / (4.0 * MAX_X);
        let [x, _, theta, _] = self.state;
        let mut picture = Picture::new(300, 120, [255; 3], TAU);
        let axle = [150.0 + SCALE * x, 90.0];
        let (sin, cos) = theta.sin_cos();
        let length = SCALE * 2.0 * LENGTH;
        picture.rectangle([0.0, 99.0], [300.0, 101.0], [160; 3]);
        picture.rectangle([axle[0] - 18.0, 84.0], [axle[0] + 18.0, 100.0], [40; 3]);
        picture.line(axle, [axle[0] + length * sin, axle[1] - length * cos], 3.5, [202, 120, 60]);
        picture.line(axle, axle, 2.5, [120, 120, 200]);
        Some(picture)
    }

    fn reset(&mut self, random: &mut Stream, observation: ObservationMut<'_>) {
        self.state = std::array::from_fn(|_| random.random_range(-0.05..0.05));
        observation.into_f32().copy_from_slice(&self.observation());
    }

    #[inline]
    fn step(
        &mut self,
        action: Action<'_>,
        _random: &mut Stream,
        observation: ObservationMut<'_>,
    ) -> Transition {
        let [x, x_dot, theta, theta_dot] = self.state;
        let force = if action.discrete()[0] == 1 { FORCE } else { -FORCE };
        let (sin, cos) = theta.sin_cos();

        let temp = (force + POLE_MASS_LENGTH * (theta_dot * theta_dot) * sin) / TOTAL_MASS;
        let theta_acc =
            (GRAVITY * sin - cos * temp) / (LENGTH * (4.0 / 3.0 - POLE_MASS * (cos * cos) / TOTAL_MASS));
        let x_acc = temp - POLE_MASS_LENGTH * theta_acc * cos / TOTAL_MASS;

        let x = x + TAU * x_dot;
        let theta = theta + TAU * theta_dot;
        self.state = [x, x_dot + TAU * x_acc, theta, theta_dot + TAU * theta_acc];
        observation.into_f32().copy_from_slice(&self.observation());

        let terminated = x.abs() > MAX_X || theta.abs() > MAX_THETA;
        Transition { reward: 1.0, terminated, truncated: false }
    }
}
