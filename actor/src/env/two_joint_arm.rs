//! TwoJointArm-v0: bring the tip of a two-link arm to a target, slowly, by torques at both joints.
//!
//! The task of Gymnasium's Reacher with an end: a target is reached or it is not. Dynamics are those of two rigid rods in a
//! horizontal plane (Spong, Hutchinson and Vidyasagar, "Robot Modeling and Control", 2006, section 7.4), with
//! viscous friction in the joints and without gravity:
//!
//! ```text
//! M(q) q'' + c(q, q') + D q' = torque
//! ```
//!
//! Joints have no stops: the links turn past one another and on over full turns.

use std::f64::consts::{PI, TAU};

use impresario_common::random::Stream;
use impresario_common::space::{EnvironmentSpec, Space};
use rand::RngExt;

use super::measure::Measure;
use super::picture::Picture;
use super::{Action, Environment, ObservationMut, Transition};

/// Length of each link, in metres.
const LENGTH: f64 = 0.5;
/// Mass of each link, a uniform rod, in kilograms.
const MASS: f64 = 1.0;
/// Distance from a link's joint to its centre of mass, in metres.
const CENTRE: f64 = LENGTH / 2.0;
/// Moment of inertia of a link about its centre of mass, in kg m^2.
const INERTIA: f64 = MASS * LENGTH * LENGTH / 12.0;
/// Friction of shoulder and elbow, in N m s: what the largest torques hold against at 2 rad/s.
const DAMPING: [f64; 2] = [1.0, 0.5];
/// Largest torque at the shoulder and at the elbow, in N m.
const MAX_TORQUE: [f64; 2] = [2.0, 1.0];

/// Seconds between two actions, and the steps of the integration in between.
const DT: f64 = 0.05;
const SUBSTEPS: u32 = 5;

/// Steps of an episode.
const LIMIT: u32 = 150;
/// Farthest that the tip gets from the shoulder, in metres.
const REACH: f64 = 2.0 * LENGTH;
/// Distances of targets from the shoulder, in metres.
const TARGETS: [f64; 2] = [0.2, 0.95];
/// A target is reached by a tip this near (metres) that moves no faster than this (metres a second).
const NEAR: f64 = 0.05;
const SLOW: f64 = 1.0;
/// Joint velocity that an observation shows as 1, in rad/s.
const SPEED_UNIT: f64 = 10.0;

/// Angle of the upper link (rad, from the x axis) and of the lower one relative to it, and their velocities (rad/s);
/// or the derivatives of these.
pub type ArmState = [f64; 4];

/// The arm as a mechanical system.
#[derive(Debug, Clone, Copy)]
pub struct Arm {
    /// Friction of shoulder and elbow, in N m s.
    pub damping: [f64; 2],
}

impl Default for Arm {
    fn default() -> Self {
        Self { damping: DAMPING }
    }
}

impl Arm {
    /// Time derivative of the state under constant torques at shoulder and elbow (N m).
    #[inline]
    pub fn derivative(&self, [_, q2, w1, w2]: ArmState, torque: [f64; 2]) -> ArmState {
        let (sin2, cos2) = q2.sin_cos();
        let [[m11, m12], [_, m22]] = mass_matrix(cos2);
        let coriolis = MASS * LENGTH * CENTRE * sin2;
        let push1 = torque[0] - self.damping[0] * w1 + coriolis * (2.0 * w1 + w2) * w2;
        let push2 = torque[1] - self.damping[1] * w2 - coriolis * w1 * w1;
        let determinant = m11 * m22 - m12 * m12;
        let acceleration1 = (m22 * push1 - m12 * push2) / determinant;
        let acceleration2 = (m11 * push2 - m12 * push1) / determinant;
        [w1, w2, acceleration1, acceleration2]
    }

    /// The state after `seconds` of constant torques, by one step of the classic Runge-Kutta method.
    #[inline]
    pub fn advance(&self, state: ArmState, torque: [f64; 2], seconds: f64) -> ArmState {
        let along = |slope: ArmState, dt: f64| std::array::from_fn(|i| state[i] + dt * slope[i]);
        let k1 = self.derivative(state, torque);
        let k2 = self.derivative(along(k1, seconds / 2.0), torque);
        let k3 = self.derivative(along(k2, seconds / 2.0), torque);
        let k4 = self.derivative(along(k3, seconds), torque);
        std::array::from_fn(|i| state[i] + seconds / 6.0 * (k1[i] + 2.0 * k2[i] + 2.0 * k3[i] + k4[i]))
    }

    /// Energy of the motion, in joules; there is no other.
    pub fn energy([_, q2, w1, w2]: ArmState) -> f64 {
        let [[m11, m12], [_, m22]] = mass_matrix(q2.cos());
        0.5 * (m11 * w1 * w1 + 2.0 * m12 * w1 * w2 + m22 * w2 * w2)
    }

    /// Where the tip is, in metres from the shoulder.
    #[inline]
    pub fn tip([q1, q2, ..]: ArmState) -> [f64; 2] {
        let ((sin1, cos1), (sin12, cos12)) = (q1.sin_cos(), (q1 + q2).sin_cos());
        [LENGTH * (cos1 + cos12), LENGTH * (sin1 + sin12)]
    }

    /// How fast the tip moves, in metres a second.
    #[inline]
    pub fn tip_velocity([q1, q2, w1, w2]: ArmState) -> [f64; 2] {
        let ((sin1, cos1), (sin12, cos12)) = (q1.sin_cos(), (q1 + q2).sin_cos());
        let w12 = w1 + w2;
        [-LENGTH * (sin1 * w1 + sin12 * w12), LENGTH * (cos1 * w1 + cos12 * w12)]
    }
}

/// M(q), in kg m^2: it depends on the elbow alone.
#[inline]
fn mass_matrix(cos2: f64) -> [[f64; 2]; 2] {
    let coupling = MASS * LENGTH * CENTRE * cos2;
    let own = MASS * CENTRE * CENTRE + INERTIA;
    [[own + MASS * LENGTH * LENGTH + own + 2.0 * coupling, own + coupling], [own + coupling, own]]
}

/// One arm with its target.
///
/// Observation: cosine and sine of both joint angles, both joint velocities (in 10 rad/s), the target (m), and the way
/// from the tip to it (m). Action: the torque at each joint as a share of the largest (2 N m at the shoulder,
/// 1 N m at the elbow), clipped to -1..1, for 0.05 s. Episodes start at rest, at any angles, with a
/// target anywhere between 0.2 and 0.95 m from the shoulder; they terminate when the tip is within 0.05 m of
/// the target at no more than 1 m/s, and are truncated after 150 steps.
///
/// Reward: 1 for reaching the target, otherwise minus the distance to it as a share of what it would cost to stay 2 m
/// away for a whole episode. So an episode's return is at most 1 and above 0 if the target was
/// reached, and at most 0 if not: a mean return of 0.9 is had by no policy that reaches fewer than 90 % of its
/// targets.
#[derive(Debug, Clone, Default)]
pub struct TwoJointArm {
    arm: Arm,
    state: ArmState,
    /// Where the tip is to go, in metres from the shoulder.
    target: [f64; 2],
}

impl TwoJointArm {
    /// Puts the environment into a state, with a target in metres from the shoulder.
    pub fn set_state(&mut self, state: ArmState, target: [f64; 2]) {
        (self.state, self.target) = (state, target);
    }

    /// The present state.
    pub fn state(&self) -> ArmState {
        self.state
    }

    /// Where the tip is to go, in metres from the shoulder.
    pub fn target(&self) -> [f64; 2] {
        self.target
    }

    /// What an agent sees of the present state.
    #[inline]
    pub fn observation(&self) -> [f32; 10] {
        let [q1, q2, w1, w2] = self.state;
        let ((sin1, cos1), (sin2, cos2)) = (q1.sin_cos(), q2.sin_cos());
        let [x, y] = self.target;
        let [dx, dy] = self.to_target();
        [cos1, sin1, cos2, sin2, w1 / SPEED_UNIT, w2 / SPEED_UNIT, x, y, dx, dy].map(|value| value as f32)
    }

    fn to_target(&self) -> [f64; 2] {
        let tip = Arm::tip(self.state);
        [self.target[0] - tip[0], self.target[1] - tip[1]]
    }
}

fn norm([x, y]: [f64; 2]) -> f64 {
    x.hypot(y)
}

impl Environment for TwoJointArm {
    fn spec(&self) -> EnvironmentSpec {
        let (far, farthest) = (TARGETS[1] as f32, (REACH + TARGETS[1]) as f32);
        let high = [1.0, 1.0, 1.0, 1.0, f32::INFINITY, f32::INFINITY, far, far, farthest, farthest];
        EnvironmentSpec::new(
            "TwoJointArm-v0",
            Space::boxed(&high.map(|bound| -bound), &high),
            Space::boxed(&[-1.0; 2], &[1.0; 2]),
        )
        .with_max_episode_steps(LIMIT)
        .with_solved_return(0.9)
    }

    fn reset(&mut self, random: &mut Stream, observation: ObservationMut<'_>) {
        self.state = [random.random_range(-PI..PI), random.random_range(-PI..PI), 0.0, 0.0];
        // Uniform over the area of the ring.
        let [inner, outer] = TARGETS;
        let distance = random.random_range(inner * inner..outer * outer).sqrt();
        let (sin, cos) = random.random_range(0.0..TAU).sin_cos();
        self.target = [distance * cos, distance * sin];
        observation.into_f32().copy_from_slice(&self.observation());
    }

    #[inline]
    fn step(
        &mut self,
        action: Action<'_>,
        _random: &mut Stream,
        observation: ObservationMut<'_>,
    ) -> Transition {
        let action = action.continuous();
        let torque = std::array::from_fn(|i| MAX_TORQUE[i] * f64::from(action[i].clamp(-1.0, 1.0)));
        for _ in 0..SUBSTEPS {
            self.state = self.arm.advance(self.state, torque, DT / f64::from(SUBSTEPS));
        }
        observation.into_f32().copy_from_slice(&self.observation());

        let distance = norm(self.to_target());
        let reached = distance <= NEAR && norm(Arm::tip_velocity(self.state)) <= SLOW;
        let reward = if reached { 1.0 } else { -distance / (2.0 * REACH * f64::from(LIMIT)) };
        Transition { reward, terminated: reached, truncated: false }
    }

    fn render(&self) -> Option<Picture> {
        // Pixels a metre.
        const SCALE: f64 = 100.0;
        let place = |[x, y]: [f64; 2]| [110.0 + SCALE * x, 110.0 - SCALE * y];
        let (shoulder, tip) = ([0.0; 2], Arm::tip(self.state));
        let (sin, cos) = self.state[0].sin_cos();
        let elbow = [LENGTH * cos, LENGTH * sin];
        let mut picture = Picture::new(220, 220, [255; 3], DT);
        picture.line(place(self.target), place(self.target), SCALE * NEAR, [220, 60, 60]);
        picture.line(place(shoulder), place(elbow), 5.0, [60, 90, 160]);
        picture.line(place(elbow), place(tip), 4.0, [90, 150, 200]);
        picture.line(place(shoulder), place(shoulder), 3.0, [30; 3]);
        picture.line(place(tip), place(tip), 3.0, [30; 3]);
        Some(picture)
    }

    fn measure(&self) -> Option<Measure> {
        // No target is farther than 1.95 m from a tip, so that 149 steps before the last cost less than 0.97.
        Some(Measure::Success { what: "targets reached", least_return: 0.01 })
    }
}
