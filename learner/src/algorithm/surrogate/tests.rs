use candle_core::Var;
use impresario_common::config::{AlgorithmConfig, CoreKind, OptimizerKind, RunConfig, Schedule};
use impresario_common::policy::{PolicySpec, Weights};
use impresario_common::space::Space;
use rand::RngExt;

use super::*;
use crate::algorithm::SkipReason;
use crate::testing;

fn spaces() -> [Space; 3] {
    [Space::Discrete { n: 3 }, Space::MultiDiscrete { nvec: vec![2, 3] }, Space::boxed(&[-1.0; 2], &[1.0; 2])]
}

fn target(action: &Space, config: &RunConfig) -> TargetPolicy {
    let environment = testing::environment(action.clone());
    let spec = PolicySpec::new(&environment, &config.policy).unwrap();
    TargetPolicy::new(config, &spec, &spec.initialise(7).unwrap()).unwrap()
}

fn surrogate_objective() -> ClippedSurrogate {
    ClippedSurrogate {
        epochs: 3,
        minibatches: 4,
        clip_range: Scheduled::new(0.2, Schedule::Constant, 1000),
        value_clip: 0.1,
        normalize_advantages: false,
        baseline_cost: 0.5,
        entropy_cost: Scheduled::new(0.1, Schedule::Constant, 1000),
        target_kl: 0.0,
    }
}

/// A batch whose ratios under `target` lie on both sides of the clip, and goals that move values both ways.
fn experience(action: &Space, target: &TargetPolicy, seed: u64) -> (Batch, [Vec<f32>; 3]) {
    let mut batch = testing::batch(action, seed);
    let output = target.forward(&batch).unwrap();
    let rows = target.log_prob_entropy(&output, &batch).unwrap().to_vec2::<f32>().unwrap();
    let values = output.values.to_vec1::<f32>().unwrap();
    let mut random = random::stream(seed, Purpose::Learner, [9, 0, 0]);
    let mut around = |middle: f32, by: f32| middle + by * (2.0 * random.random::<f32>() - 1.0);
    let steps = batch.steps();
    batch.behaviour_log_probs = rows[..steps].iter().map(|row| around(row[0], 0.5)).collect();
    let old_values = values[..steps].iter().map(|value| around(*value, 0.3)).collect();
    let advantages = (0..steps).map(|_| around(0.0, 1.0)).collect();
    let targets = (0..steps).map(|_| around(0.0, 2.0)).collect();
    (batch, [old_values, advantages, targets])
}

fn goals([values, advantages, targets]: &[Vec<f32>; 3]) -> Goals<'_> {
    Goals { values, advantages, targets }
}

const START: Progress = Progress { env_steps: 0, version: 0 };

/// Names of tensors, and their numbers as bits.
fn bits(weights: &Weights) -> Vec<(String, Vec<u32>)> {
    let of = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    weights.0.iter().map(|(name, t)| (name.clone(), of(t).into_iter().map(f32::to_bits).collect())).collect()
}

type State = (Vec<(String, Vec<u32>)>, u64, Vec<(String, Vec<u32>)>);

fn state(target: &TargetPolicy) -> State {
    let optimizer = target.optimizer().state().unwrap();
    (bits(&target.parameters().copied().unwrap()), optimizer.steps, bits(&optimizer.moments))
}

/// The loss by the formulas of the module, in `f64`.
fn slow_loss(objective: &ClippedSurrogate, target: &TargetPolicy, batch: &Batch, goals: &Goals<'_>) -> f64 {
    let output = target.forward(batch).unwrap();
    let rows = target.log_prob_entropy(&output, batch).unwrap().to_vec2::<f32>().unwrap();
    let values = output.values.to_vec1::<f32>().unwrap();
    let clip = objective.clip_range.at(0);
    let losses = (0..batch.steps()).map(|i| {
        let (value, before) = (f64::from(values[i]), f64::from(goals.values[i]));
        let (advantage, goal) = (f64::from(goals.advantages[i]), f64::from(goals.targets[i]));
        let ratio = f64::from(rows[i][0] - batch.behaviour_log_probs[i]).exp();
        let policy = -(ratio * advantage).min(ratio.clamp(1.0 - clip, 1.0 + clip) * advantage);
        let limit = f64::from(objective.value_clip);
        let kept = before + (value - before).clamp(-limit, limit);
        let error = (goal - value).powi(2).max((goal - kept).powi(2));
        policy + f64::from(objective.baseline_cost) * 0.5 * error
            - objective.entropy_cost.at(0) * f64::from(rows[i][1])
    });
    losses.sum::<f64>() / batch.steps() as f64
}

fn shift(var: &Var, index: usize, by: f32) {
    kernels::update_in_place(var, |values| values[index] += by).unwrap();
}

#[test]
fn gradients_match_finite_differences_on_both_sides_of_the_clips() {
    const H: f32 = 4e-3;
    for action in spaces() {
        let target = target(&action, &testing::config(OptimizerKind::Adam));
        let objective = surrogate_objective();
        let (batch, goals_of) = experience(&action, &target, 2);
        let goals = goals(&goals_of);
        let minibatch = Minibatches::new(&batch, 1).parts().next().unwrap();
        let (mut losses, mut distances) = (Metrics::default(), Metrics::default());
        let (value, loss) =
            objective.loss(&target, &minibatch, &goals, START, &mut losses, &mut distances).unwrap();
        let clipped = distances.get("clip_fraction").unwrap();
        assert!((0.2..0.8).contains(&clipped), "{clipped} of the ratios are clipped");
        let slow = slow_loss(&objective, &target, &batch, &goals);
        assert!((value - slow).abs() < 1e-5 * slow.abs().max(1.0), "{value} is not {slow}");

        let gradients = loss.backward().unwrap();
        let (mut checked, mut kinks) = (0, 0);
        for (name, var) in target.parameters().iter() {
            let gradient = gradients.get(var).unwrap_or_else(|| panic!("{name} has no gradient"));
            let gradient = gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for (index, &analytic) in gradient.iter().enumerate() {
                let at = |offset: f32| {
                    shift(var, index, offset);
                    let loss = slow_loss(&objective, &target, &batch, &goals);
                    shift(var, index, -offset);
                    loss
                };
                // Fourth order, and second order at two widths: where these differ, an edge of a clip lies between.
                let (near, far) = (at(H) - at(-H), at(2.0 * H) - at(-2.0 * H));
                let numeric = (8.0 * near - far) / (12.0 * f64::from(H));
                if (2.0 * near - far).abs() > 4e-4 * f64::from(H) {
                    kinks += 1;
                    continue;
                }
                checked += 1;
                let error = (f64::from(analytic) - numeric).abs();
                assert!(
                    error < 1e-3 * numeric.abs().max(1.0),
                    "{action}, {name}[{index}]: {analytic}, but by differences {numeric}"
                );
            }
        }
        assert!(checked > 2 * kinks, "{checked} numbers were checked, {kinks} were left out");
    }
}

#[test]
fn beyond_the_clip_nothing_pulls_further() {
    for (ratio, advantage, value, d_log_ratio) in [
        (1.0, 2.0, 2.0, 2.0),
        (1.1, 2.0, 2.2, 2.2),
        (1.5, 2.0, 2.4, 0.0),
        (1.5, -2.0, -3.0, -3.0),
        (0.5, 2.0, 1.0, 1.0),
        (0.5, -2.0, -1.6, 0.0),
        (0.5, 0.0, 0.0, 0.0),
    ] {
        assert_eq!(surrogate(ratio, advantage, 0.2), (value, d_log_ratio), "{ratio}, {advantage}");
    }
    assert!(surrogate(f32::NAN, 1.0, 0.2).0.is_nan());
    assert!(surrogate(1.0, f32::NAN, 0.2).0.is_nan());
}

#[test]
fn a_value_that_has_moved_far_enough_is_pulled_no_further() {
    for (value, before, goal, clip, error, d_value) in [
        (1.0, 0.0, 3.0, 0.0, -2.0, -2.0),
        (1.0, 0.0, 3.0, 2.0, -2.0, -2.0),
        // Beyond the clip and towards the goal: nothing; away from it: back.
        (1.0, 0.0, 3.0, 0.5, -2.5, 0.0),
        (-1.0, 0.0, 3.0, 0.5, -4.0, -4.0),
    ] {
        assert_eq!(value_error(value, before, goal, clip), (error, d_value), "{value}, {goal}, {clip}");
    }
    assert!(value_error(f32::NAN, 0.0, 1.0, 0.5).0.is_nan());
    assert!(value_error(0.0, 0.0, f32::NAN, 0.5).0.is_nan());
}

#[test]
fn all_passes_are_made_without_a_target_for_the_divergence() {
    let action = Space::Discrete { n: 3 };
    let mut target = target(&action, &testing::config(OptimizerKind::Adam));
    let (batch, goals_of) = experience(&action, &target, 3);
    let mut dealt = 0;
    let report = surrogate_objective()
        .climb(&mut target, &batch, &goals(&goals_of), START, Metrics::default(), &mut |_| dealt += 1)
        .unwrap();
    assert_eq!((report.outcome, dealt), (Outcome::Applied, 3));
    assert_eq!(target.optimizer().steps(), 12);
    assert_eq!(report.metrics.get("epochs_run"), Some(3.0));
    assert_eq!(report.metrics.get("kl_stopped"), None);
}

#[test]
fn an_update_stops_before_the_step_at_which_the_divergence_is_too_large() {
    let action = Space::Discrete { n: 3 };
    let mut config = testing::config(OptimizerKind::Adam);
    config.optimizer.learning_rate = 0.02;
    // On the policy's own experience the divergence grows from 0: the first pass is made, not all of fifty.
    let objective = ClippedSurrogate {
        epochs: 50,
        minibatches: 1,
        target_kl: 0.02,
        clip_range: Scheduled::new(0.9, Schedule::Constant, 1),
        ..surrogate_objective()
    };
    let on_policy = |target: &TargetPolicy| {
        let (mut batch, goals) = experience(&action, target, 4);
        let output = target.forward(&batch).unwrap();
        let rows = target.log_prob_entropy(&output, &batch).unwrap().to_vec2::<f32>().unwrap();
        batch.behaviour_log_probs = rows[..batch.steps()].iter().map(|row| row[0]).collect();
        (batch, goals)
    };
    let divergence = |target: &TargetPolicy, batch: &Batch| {
        let output = target.forward(batch).unwrap();
        let rows = target.log_prob_entropy(&output, batch).unwrap().to_vec2::<f32>().unwrap();
        let logs = rows.iter().zip(&batch.behaviour_log_probs).map(|(row, mu)| f64::from(row[0] - mu));
        logs.map(|log| log.exp() - 1.0 - log).sum::<f64>() / batch.steps() as f64
    };
    let mut target_policy = target(&action, &config);
    let (batch, goals_of) = on_policy(&target_policy);
    let climb = |objective: &ClippedSurrogate, target: &mut TargetPolicy| {
        objective.climb(target, &batch, &goals(&goals_of), START, Metrics::default(), &mut |_| ()).unwrap()
    };
    let report = climb(&objective, &mut target_policy);
    let steps = target_policy.optimizer().steps();
    assert!((2..50).contains(&steps), "{steps} steps were made");
    assert_eq!(report.metrics.get("epochs_run"), Some(steps as f32));
    assert_eq!(report.metrics.get("kl_stopped"), Some(1.0));
    assert!(divergence(&target_policy, &batch) > 0.03);
    // One step less, and it was not yet too far.
    let mut shorter = target(&action, &config);
    let report = climb(&ClippedSurrogate { epochs: steps as usize - 1, ..objective }, &mut shorter);
    assert_eq!(report.metrics.get("kl_stopped"), Some(0.0));
    assert!(divergence(&shorter, &batch) <= 0.03);
}

#[test]
fn an_update_that_fails_on_the_way_leaves_no_trace() {
    let action = Space::Discrete { n: 3 };
    for kind in [OptimizerKind::Adam, OptimizerKind::RmsProp] {
        let mut target = target(&action, &testing::config(kind));
        let (batch, mut goals_of) = experience(&action, &target, 5);
        let objective = surrogate_objective();
        let climb = |target: &mut TargetPolicy, goals_of: &[Vec<f32>; 3]| {
            objective.climb(target, &batch, &goals(goals_of), START, Metrics::default(), &mut |_| ()).unwrap()
        };
        assert_eq!(climb(&mut target, &goals_of).outcome, Outcome::Applied);
        let before = state(&target);
        // The last step of the batch is in the last minibatch: three are applied before it fails.
        let good = std::mem::replace(&mut goals_of[2][11], f32::NAN);
        let report = climb(&mut target, &goals_of);
        assert!(
            matches!(report.outcome, Outcome::Skipped { reason: SkipReason::Loss(loss) } if loss.is_nan())
        );
        assert_eq!(state(&target), before);
        goals_of[2][11] = 1e38;
        let report = climb(&mut target, &goals_of);
        assert!(matches!(report.outcome, Outcome::Skipped { .. }), "{report:?}");
        assert_eq!(state(&target), before);
        goals_of[2][11] = good;
        assert_eq!(climb(&mut target, &goals_of).outcome, Outcome::Applied);
        assert_ne!(state(&target), before);
    }
}

#[test]
fn ppo_and_appo_repeat_themselves_and_deal_by_seed_and_version() {
    let action = Space::Discrete { n: 3 };
    for name in ["ppo", "appo"] {
        let mut config = RunConfig {
            algorithm: AlgorithmConfig::by_name(name).unwrap(),
            ..testing::config(OptimizerKind::Adam)
        };
        match &mut config.algorithm {
            AlgorithmConfig::Ppo(knobs) => knobs.minibatches = 3,
            AlgorithmConfig::Appo(knobs) => knobs.minibatches = 3,
            _ => unreachable!(),
        }
        let environment = testing::environment(action.clone());
        let spec = PolicySpec::new(&environment, &config.policy).unwrap();
        let run = |seed: u64, version: u64| {
            let config = RunConfig {
                run: impresario_common::config::RunSection { seed, ..config.run.clone() },
                ..config.clone()
            };
            let mut target = target(&action, &config);
            let mut method = crate::algorithm::build(&config, &environment, &spec).unwrap();
            let progress = Progress { env_steps: 0, version };
            let report = method.update(&mut target, &testing::batch(&action, 1), progress).unwrap();
            assert_eq!(report.outcome, Outcome::Applied);
            state(&target)
        };
        assert_eq!(run(1, 0), run(1, 0), "{name}");
        assert_ne!(run(1, 0), run(2, 0), "{name}");
        assert_ne!(run(1, 0), run(1, 1), "{name}");
    }
}

#[test]
fn on_its_own_experience_one_step_of_ppo_is_one_of_a2c() {
    let action = Space::boxed(&[-1.0; 2], &[1.0; 2]);
    let config = testing::config(OptimizerKind::Adam);
    let algorithm = |text: &str| serde_json::from_str::<AlgorithmConfig>(text).unwrap();
    let a2c = algorithm(
        r#"{"name": "a2c", "gamma": 0.9, "lambda": 0.8, "baseline_cost": 0.7, "entropy_cost": 0.1,
            "entropy_schedule": "constant", "final_entropy_cost": 0.0,
            "normalize_advantages": true, "loss_reduction": "mean", "reward_scale": 0.5, "reward_clip": 0.0}"#,
    );
    let ppo = algorithm(
        r#"{"name": "ppo", "gamma": 0.9, "lambda": 0.8, "baseline_cost": 0.7, "entropy_cost": 0.1,
            "entropy_schedule": "constant", "final_entropy_cost": 0.0,
            "normalize_advantages": true, "reward_scale": 0.5, "reward_clip": 0.0, "epochs": 1, "minibatches": 1,
            "clip_range": 0.2, "clip_schedule": "constant", "value_clip": 0.1, "target_kl": 0.01}"#,
    );
    let environment = testing::environment(action.clone());
    let spec = PolicySpec::new(&environment, &config.policy).unwrap();
    let mut batch = testing::batch(&action, 1);
    let weights_after = |algorithm: AlgorithmConfig, batch: &Batch| {
        let config = RunConfig { algorithm, ..config.clone() };
        let mut target = target(&action, &config);
        let mut method = crate::algorithm::build(&config, &environment, &spec).unwrap();
        method.update(&mut target, batch, START).unwrap();
        let weights = target.parameters().copied().unwrap();
        weights
            .0
            .iter()
            .flat_map(|(_, t)| t.flatten_all().unwrap().to_vec1::<f32>().unwrap())
            .collect::<Vec<_>>()
    };
    let own = target(&action, &config);
    let output = own.forward(&batch).unwrap();
    let rows = own.log_prob_entropy(&output, &batch).unwrap().to_vec2::<f32>().unwrap();
    batch.behaviour_log_probs = rows[..batch.steps()].iter().map(|row| row[0]).collect();
    let (ppo, a2c) = (weights_after(ppo, &batch), weights_after(a2c, &batch));
    let start: Vec<f32> = own
        .parameters()
        .copied()
        .unwrap()
        .0
        .iter()
        .flat_map(|(_, t)| t.flatten_all().unwrap().to_vec1::<f32>().unwrap())
        .collect();
    assert!(ppo.iter().zip(&start).filter(|(after, before)| after != before).count() > ppo.len() / 2);
    for (ppo, a2c) in ppo.iter().zip(&a2c) {
        assert!((ppo - a2c).abs() < 1e-5, "{ppo} is not {a2c}");
    }
}

#[test]
fn a_policy_with_memory_sees_in_a_minibatch_what_it_sees_in_the_batch() {
    let action = Space::Discrete { n: 3 };
    for (core, state_len) in [(CoreKind::Lstm, 6), (CoreKind::Gru, 3)] {
        let mut config = testing::config(OptimizerKind::Adam);
        (config.policy.core, config.policy.core_size) = (core, 3);
        let target = target(&action, &config);
        let mut batch = testing::batch(&action, 6);
        batch.core_states = (0..batch.columns * state_len).map(|i| (i as f32).sin() / 2.0).collect();
        let of = |batch: &Batch| {
            let output = target.forward(batch).unwrap();
            let rows = target.log_prob_entropy(&output, batch).unwrap().to_vec2::<f32>().unwrap();
            rows.into_iter().zip(output.values.to_vec1::<f32>().unwrap()).collect::<Vec<_>>()
        };
        let whole = of(&batch);
        let mut minibatches = Minibatches::new(&batch, 2);
        minibatches.order_mut().reverse();
        for part in minibatches.parts() {
            assert!(part.steps.len().is_multiple_of(batch.length), "whole columns");
            let rows = of(&part.batch);
            assert_eq!(rows.len(), part.steps.len());
            for ((row, value), step) in rows.iter().zip(&part.steps) {
                let (expected, expected_value) = &whole[*step];
                assert!((row[0] - expected[0]).abs() < 1e-5 && (row[1] - expected[1]).abs() < 1e-5);
                assert!((value - expected_value).abs() < 1e-5);
            }
        }
    }
}
