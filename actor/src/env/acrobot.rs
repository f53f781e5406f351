//! Acrobot-v1: swing the free end of a two-link pendulum above a height by a torque at the elbow.
//!
//! Gymnasium 1.4's dynamics (`gymnasium/envs/classic_control/acrobot.py`, the book's equations), after
//! Sutton, "Generalization in Reinforcement Learning: Successful Examples Using Sparse Coarse Coding"
//! (1996). Expressions keep Gymnasium's order of operations.

use std::f64::consts::{FRAC_PI_2, PI, TAU};

use impresario_common::random::Stream;
use impresario_common::space::{EnvironmentSpec, Space};
use rand::RngExt;

use super::{Action, Environment, ObservationMut, Transition};

/// Seconds between two states.
const DT: f64 = 0.2;
const GRAVITY: f64 = 9.8;
/// Length of the upper link, in metres.
const LENGTH_1: f64 = 1.0;
const MASS_1: f64 = 1.0;
const MASS_2: f64 = 1.0;
/// Distance from a link's joint to its centre of mass, in metres.
const CENTRE_1: f64 = 0.5;
const CENTRE_2: f64 = 0.5;
/// Moment of inertia of either link.
const INERTIA: f64 = 1.0;
const MAX_SPEED_1: f64 = 4.0 * PI;
const MAX_SPEED_2: f64 = 9.0 * PI;

/// Angles and their velocities, or the derivatives of these.
type State = [f64; 4];

/// One acrobot. Actions: torque -1, 0 or 1 at the elbow. Reward: -1 a step, 0 for the one that reaches the
/// height.
#[derive(Debug, Clone, Default)]
pub struct Acrobot {
    /// Angle of the upper link (rad, 0 hangs down) and of the lower one relative to it, and the angular
    /// velocities of both (rad/s).
    state: State,
}

impl Acrobot {
    /// Puts the environment into a state: the angles of both links, then their angular velocities.
    pub fn set_state(&mut self, state: [f64; 4]) {
        self.state = state;
    }

    /// What an agent sees of the present state: cosine and sine of each angle, and the angular velocities.
    #[inline]
    pub fn observation(&self) -> [f32; 6] {
        let [theta1, theta2, speed1, speed2] = self.state;
        let ((sin1, cos1), (sin2, cos2)) = (theta1.sin_cos(), theta2.sin_cos());
        [cos1, sin1, cos2, sin2, speed1, speed2].map(|value| value as f32)
    }
}

/// Time derivative of the state under a torque.
#[inline]
fn derivative([theta1, theta2, speed1, speed2]: State, torque: f64) -> State {
    let (sin2, cos2) = theta2.sin_cos();
    let d1 = MASS_1 * (CENTRE_1 * CENTRE_1)
        + MASS_2 * (LENGTH_1 * LENGTH_1 + CENTRE_2 * CENTRE_2 + 2.0 * LENGTH_1 * CENTRE_2 * cos2)
        + INERTIA
        + INERTIA;
    let d2 = MASS_2 * (CENTRE_2 * CENTRE_2 + LENGTH_1 * CENTRE_2 * cos2) + INERTIA;
    let phi2 = MASS_2 * CENTRE_2 * GRAVITY * (theta1 + theta2 - FRAC_PI_2).cos();
    let phi1 = -MASS_2 * LENGTH_1 * CENTRE_2 * (speed2 * speed2) * sin2
        - 2.0 * MASS_2 * LENGTH_1 * CENTRE_2 * speed2 * speed1 * sin2
        + (MASS_1 * CENTRE_1 + MASS_2 * LENGTH_1) * GRAVITY * (theta1 - FRAC_PI_2).cos()
        + phi2;
    let acceleration2 =
        (torque + d2 / d1 * phi1 - MASS_2 * LENGTH_1 * CENTRE_2 * (speed1 * speed1) * sin2 - phi2)
            / (MASS_2 * (CENTRE_2 * CENTRE_2) + INERTIA - d2 * d2 / d1);
    let acceleration1 = -(d2 * acceleration2 + phi1) / d1;
    [speed1, speed2, acceleration1, acceleration2]
}

/// The state after `DT` seconds of a constant torque, by one step of the classic Runge-Kutta method.
#[inline]
fn integrate(state: State, torque: f64) -> State {
    let along = |slope: State, dt: f64| std::array::from_fn(|i| state[i] + dt * slope[i]);
    let k1 = derivative(state, torque);
    let k2 = derivative(along(k1, DT / 2.0), torque);
    let k3 = derivative(along(k2, DT / 2.0), torque);
    let k4 = derivative(along(k3, DT), torque);
    std::array::from_fn(|i| state[i] + DT / 6.0 * (k1[i] + 2.0 * k2[i] + 2.0 * k3[i] + k4[i]))
}

/// The same angle between -pi and pi, by whole turns: a step at the highest speeds makes less than one.
#[inline]
fn wrap(mut angle: f64) -> f64 {
    while angle > PI {
        angle -= TAU;
    }
    while angle < -PI {
        angle += TAU;
    }
    angle
}

impl Environment for Acrobot {
    fn spec(&self) -> EnvironmentSpec {
        let high = [1.0, 1.0, 1.0, 1.0, MAX_SPEED_1 as f32, MAX_SPEED_2 as f32];
        EnvironmentSpec::new(
            "Acrobot-v1",
            Space::boxed(&high.map(|bound: f32| -bound), &high),
            Space::Discrete { n: 3 },
        )
        .with_max_episode_steps(500)
        .with_solved_return(-100.0)
    }

    fn reset(&mut self, random: &mut Stream, observation: ObservationMut<'_>) {
        // Gymnasium rounds the first state, and no other, to single precision.
        self.state = std::array::from_fn(|_| f64::from(random.random_range(-0.1..0.1) as f32));
        observation.into_f32().copy_from_slice(&self.observation());
    }

    #[inline]
    fn step(
        &mut self,
        action: Action<'_>,
        _random: &mut Stream,
        observation: ObservationMut<'_>,
    ) -> Transition {
        let torque = f64::from(action.discrete()[0] - 1);
        let [theta1, theta2, speed1, speed2] = integrate(self.state, torque);
        let (theta1, theta2) = (wrap(theta1), wrap(theta2));
        self.state = [
            theta1,
            theta2,
            speed1.clamp(-MAX_SPEED_1, MAX_SPEED_1),
            speed2.clamp(-MAX_SPEED_2, MAX_SPEED_2),
        ];
        observation.into_f32().copy_from_slice(&self.observation());

        let terminated = -theta1.cos() - (theta2 + theta1).cos() > 1.0;
        Transition { reward: if terminated { 0.0 } else { -1.0 }, terminated, truncated: false }
    }
}
