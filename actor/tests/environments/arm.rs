//! The two-joint arm against mechanics: energy, work, and a Lagrangian differentiated numerically.

use impresario_actor::env::registry::Registry;
use impresario_actor::env::two_joint_arm::{Arm, ArmState, TwoJointArm};
use impresario_actor::env::{Action, Environment, ObservationMut, Transition};
use impresario_common::random::Stream;
use rand::RngExt;

use super::worker::{Worker, choices, numbers, streams};

const FREE: Arm = Arm { damping: [0.0; 2] };

fn random_state(random: &mut Stream) -> ArmState {
    [3.0, 3.0, 5.0, 5.0].map(|bound| random.random_range(-bound..bound))
}

/// Kinetic energy by summing over small pieces of two rods of 1 kg and 0.5 m, from where each piece is as a function of the
/// angles: velocities are differences of positions, not the code's formulas.
fn pieces_energy(q: [f64; 2], speed: [f64; 2]) -> f64 {
    const PIECES: usize = 400;
    let step = 1e-5;
    let mut energy = 0.0;
    for link in 0..2 {
        for piece in 0..PIECES {
            let along = 0.5 * (piece as f64 + 0.5) / PIECES as f64;
            let at = |t: f64| {
                let (q1, q2) = (q[0] + t * speed[0], q[1] + t * speed[1]);
                match link {
                    0 => [along * q1.cos(), along * q1.sin()],
                    _ => [0.5 * q1.cos() + along * (q1 + q2).cos(), 0.5 * q1.sin() + along * (q1 + q2).sin()],
                }
            };
            let (before, after) = (at(-step), at(step));
            let v = [0, 1].map(|axis| (after[axis] - before[axis]) / (2.0 * step));
            energy += 0.5 / PIECES as f64 * (v[0] * v[0] + v[1] * v[1]);
        }
    }
    energy
}

#[test]
fn energy_is_that_of_two_rods_in_motion() {
    let mut random = choices(1);
    for _ in 0..20 {
        let state @ [q1, q2, w1, w2] = random_state(&mut random);
        let (ours, pieces) = (Arm::energy(state), pieces_energy([q1, q2], [w1, w2]));
        assert!((ours - pieces).abs() < 1e-5 * pieces, "{ours} instead of {pieces}");
    }
}

/// Accelerations that satisfy Lagrange's equations `d/dt dT/dq' - dT/dq = torque`, all derivatives by differences of the
/// kinetic energy.
fn lagrange(state: ArmState, torque: [f64; 2]) -> [f64; 2] {
    let energy = |change: [f64; 4]| Arm::energy(std::array::from_fn(|i| state[i] + change[i]));
    let h = 1e-3;
    let shift = |i: usize, by: f64| {
        let mut change = [0.0; 4];
        change[i] = by;
        change
    };
    let second = |i: usize, j: usize| {
        let both = |a: f64, b: f64| {
            let (first, second) = (shift(i, a), shift(j, b));
            energy(std::array::from_fn(|k| first[k] + second[k]))
        };
        (both(h, h) - both(h, -h) - both(-h, h) + both(-h, -h)) / (4.0 * h * h)
    };
    let first = |i: usize| (energy(shift(i, h)) - energy(shift(i, -h))) / (2.0 * h);
    let mass = [0, 1].map(|i| [0, 1].map(|j| second(2 + i, 2 + j)));
    // d/dt dT/dq'_i = sum_j M_ij q''_j + sum_j d2T/dq'_i dq_j q'_j.
    let force =
        [0, 1].map(|i| torque[i] + first(i) - (0..2).map(|j| second(2 + i, j) * state[2 + j]).sum::<f64>());
    let determinant = mass[0][0] * mass[1][1] - mass[0][1] * mass[1][0];
    [
        (force[0] * mass[1][1] - force[1] * mass[0][1]) / determinant,
        (force[1] * mass[0][0] - force[0] * mass[1][0]) / determinant,
    ]
}

#[test]
fn accelerations_satisfy_lagranges_equations() {
    let mut random = choices(2);
    for _ in 0..100 {
        let state = random_state(&mut random);
        let torque: [f64; 2] = std::array::from_fn(|_| random.random_range(-2.0..2.0));
        let expected = lagrange(state, torque);
        let [w1, w2, ours @ ..] = FREE.derivative(state, torque);
        assert_eq!([w1, w2], [state[2], state[3]]);
        let damped = Arm { damping: [0.3, 0.7] };
        let [_, _, slowed @ ..] = damped.derivative(state, [torque[0] + 0.3 * w1, torque[1] + 0.7 * w2]);
        for i in 0..2 {
            let scale = expected[i].abs().max(1.0);
            assert!((ours[i] - expected[i]).abs() < 1e-4 * scale, "{ours:?} instead of {expected:?}");
            // Friction is a torque against the motion.
            assert!((slowed[i] - ours[i]).abs() < 1e-9 * scale);
        }
    }
}

#[test]
fn without_torque_and_friction_energy_is_kept() {
    let mut random = choices(3);
    for _ in 0..5 {
        let start = random_state(&mut random);
        let before = Arm::energy(start);
        // 100 seconds, at the environment's own step and at a fifth of it.
        for (seconds, allowed) in [(0.01, 1e-4), (0.002, 1e-7)] {
            let mut state = start;
            for _ in 0..(100.0 / seconds) as u32 {
                state = FREE.advance(state, [0.0; 2], seconds);
                let error = (Arm::energy(state) / before - 1.0).abs();
                assert!(error < allowed, "energy is off by a share of {error} with steps of {seconds} s");
            }
        }
    }
}

#[test]
fn integration_is_of_fourth_order() {
    let start = [0.3, -1.1, 4.0, -6.0];
    let after = |steps: u32| {
        (0..steps).fold(start, |state, _| FREE.advance(state, [0.7, -0.4], 1.0 / f64::from(steps)))
    };
    let exact = after(20_000);
    let error = |steps: u32| {
        let end = after(steps);
        (0..4).map(|i| (end[i] - exact[i]).powi(2)).sum::<f64>().sqrt()
    };
    let ratio = error(800) / error(1600);
    assert!((13.0..18.0).contains(&ratio), "halving the step divides the error by {ratio}");
    // At the environment's own step, after a second of fast motion.
    assert!(error(100) < 1e-5);
}

#[test]
fn friction_takes_energy_from_an_arm_left_alone() {
    let arm = Arm::default();
    let mut state = [0.5, 1.0, 6.0, -8.0];
    let mut energy = Arm::energy(state);
    for _ in 0..1000 {
        state = arm.advance(state, [0.0; 2], 0.01);
        assert!(Arm::energy(state) < energy);
        energy = Arm::energy(state);
    }
    assert!(energy < 0.02, "after ten seconds it still has {energy} J");
}

#[test]
fn energy_changes_by_the_work_of_torques_less_that_of_friction() {
    let arm = Arm { damping: [0.1, 0.3] };
    let mut random = choices(4);
    let mut state = random_state(&mut random);
    let start = Arm::energy(state);
    let mut work = 0.0;
    for _ in 0..100 {
        let torque: [f64; 2] = std::array::from_fn(|_| random.random_range(-2.0..2.0));
        let power = |[_, _, w1, w2]: ArmState| {
            (torque[0] - arm.damping[0] * w1) * w1 + (torque[1] - arm.damping[1] * w2) * w2
        };
        // Simpson's rule.
        for _ in 0..50 {
            let middle = arm.advance(state, torque, 0.001);
            let end = arm.advance(middle, torque, 0.001);
            work += (power(state) + 4.0 * power(middle) + power(end)) * 0.002 / 6.0;
            state = end;
        }
    }
    let change = Arm::energy(state) - start;
    assert!((change - work).abs() < 1e-7, "{change} J by a work of {work} J");
}

#[test]
fn the_tip_moves_as_its_velocity_says() {
    let mut random = choices(5);
    for _ in 0..20 {
        let [q1, q2, w1, w2] = random_state(&mut random);
        let at = |t: f64| Arm::tip([q1 + t * w1, q2 + t * w2, w1, w2]);
        let velocity = Arm::tip_velocity([q1, q2, w1, w2]);
        for (velocity, (ahead, behind)) in velocity.into_iter().zip(at(1e-5).into_iter().zip(at(-1e-5))) {
            let slope = (ahead - behind) / 2e-5;
            assert!((slope - velocity).abs() < 1e-7);
        }
    }
}

fn step(environment: &mut TwoJointArm, action: [f32; 2]) -> (Transition, [f32; 10]) {
    let mut seen = [f32::NAN; 10];
    let transition =
        environment.step(Action::Continuous(&action), &mut choices(0), ObservationMut::F32(&mut seen));
    (transition, seen)
}

#[test]
fn a_target_is_reached_by_a_tip_that_is_near_and_slow() {
    // Straight along the x axis the tip is at (1, 0), and turns upwards.
    let at = |target, speed| {
        let mut arm = TwoJointArm::default();
        arm.set_state([0.0, 0.0, speed, 0.0], target);
        step(&mut arm, [0.0; 2]).0
    };
    let reached = Transition { reward: 1.0, terminated: true, truncated: false };
    assert_eq!(at([0.96, 0.0], 0.0), reached);
    assert!(!at([0.94, 0.0], 0.0).terminated);
    assert_eq!(at([0.96, 0.0], 0.45), reached);
    // Within 0.05 m still after 0.05 s, but too fast.
    assert!(!at([0.99, 0.06], 1.5).terminated);
    let miss = at([0.0, 0.5], 0.0);
    let distance = 1.25f64.sqrt();
    assert!((miss.reward + distance / 300.0).abs() < 1e-12 && !miss.terminated);
}

#[test]
fn torques_are_clipped_and_observations_tell_everything() {
    let mut arm = TwoJointArm::default();
    arm.set_state([0.4, -2.0, 1.0, -3.0], [0.3, 0.6]);
    let mut beyond = arm.clone();
    let (transition, seen) = step(&mut arm, [1.0, -1.0]);
    assert_eq!(step(&mut beyond, [7.0, -1.5]), (transition, seen));
    // The largest torques for 0.05 s, with a far finer step.
    let mut state = [0.4, -2.0, 1.0, -3.0];
    for _ in 0..500 {
        state = Arm::default().advance(state, [2.0, -1.0], 1e-4);
    }
    let [q1, q2, w1, w2] = state;
    let tip = [0.5 * (q1.cos() + (q1 + q2).cos()), 0.5 * (q1.sin() + (q1 + q2).sin())];
    let expected =
        [q1.cos(), q1.sin(), q2.cos(), q2.sin(), w1 / 10.0, w2 / 10.0, 0.3, 0.6, 0.3 - tip[0], 0.6 - tip[1]];
    for (ours, expected) in seen.iter().zip(expected) {
        assert!((f64::from(*ours) - expected).abs() < 1e-6, "{seen:?}");
    }
}

#[test]
fn episodes_start_at_rest_with_targets_all_over_the_ring() {
    const COPIES: usize = 4000;
    let mut vector = Registry::native().make_vector("TwoJointArm-v0", streams(1, COPIES as u32)).unwrap();
    let worker = Worker::reset(&mut *vector);
    let first = numbers(&worker.observations);
    let mut inside = 0;
    let mut quarters = [0; 4];
    for seen in first.chunks(10) {
        assert_eq!(seen[4..6], [0.0; 2]);
        let (x, y) = (f64::from(seen[6]), f64::from(seen[7]));
        let distance = x.hypot(y);
        assert!((0.2 - 1e-6..=0.95 + 1e-6).contains(&distance));
        // Half of the ring's area lies within this.
        inside += u32::from(distance * distance < (0.2f64.powi(2) + 0.95f64.powi(2)) / 2.0);
        quarters[usize::from(x > 0.0) + 2 * usize::from(y > 0.0)] += 1;
    }
    // Standard deviations of 32 and 27.
    assert!((1840..2160).contains(&inside), "{inside} of {COPIES} in the inner half");
    assert!(quarters.iter().all(|&count| (860..1140).contains(&count)), "{quarters:?}");
}

#[test]
fn a_return_above_0_means_that_the_target_was_reached() {
    // A controller that pulls the tip to the target and brakes, and one that does nothing.
    for (gain, least, most) in [(6.0, 0.6, 1.0), (0.0, 0.0, 0.03)] {
        const COPIES: usize = 100;
        let mut vector = Registry::native().make_vector("TwoJointArm-v0", streams(2, COPIES as u32)).unwrap();
        let mut worker = Worker::reset(&mut *vector);
        let mut totals = [0f64; COPIES];
        let (mut episodes, mut reached) = (0, 0);
        for _ in 0..300 {
            let seen = numbers(&worker.observations);
            let actions: Vec<f32> = seen.chunks(10).flat_map(|seen| pull(seen, gain)).collect();
            worker.step(&mut *vector, Action::Continuous(&actions)).unwrap();
            for (copy, total) in totals.iter_mut().enumerate() {
                *total += f64::from(worker.rewards[copy]);
                if worker.terminated[copy] | worker.truncated[copy] == 1 {
                    let success = worker.terminated[copy] == 1;
                    assert!(if success {
                        (0.03..=1.0).contains(total)
                    } else {
                        (-0.98..=0.0).contains(total)
                    });
                    episodes += 1;
                    reached += i32::from(success);
                    *total = 0.0;
                }
            }
        }
        let share = f64::from(reached) / f64::from(episodes);
        assert!((least..=most).contains(&share), "gain {gain}: {reached} of {episodes} reached");
    }
}

/// Torques that pull at the tip like a spring from the target (the Jacobian's transpose), and brake the joints.
fn pull(seen: &[f32], gain: f32) -> [f32; 2] {
    let (cos1, sin1) = (seen[0], seen[1]);
    let (cos12, sin12) = (cos1 * seen[2] - sin1 * seen[3], sin1 * seen[2] + cos1 * seen[3]);
    let lower = 0.5 * (cos12 * seen[9] - sin12 * seen[8]);
    let upper = 0.5 * (cos1 * seen[9] - sin1 * seen[8]);
    let brake = if gain > 0.0 { 3.0 } else { 0.0 };
    [gain * (upper + lower) - brake * seen[4], gain * lower - brake * seen[5]]
}
