use impresario_common::config::{Activation, AlgorithmConfig, OptimizerKind};
use impresario_common::policy::Weights;
use impresario_common::space::Space;
use impresario_common::unroll::Array;

use super::*;
use crate::testing::{self, batch};

const ACTION: Space = Space::Discrete { n: 3 };

fn trainer(kind: OptimizerKind) -> Trainer {
    Trainer::new(&testing::config(kind), &testing::environment(ACTION)).unwrap()
}

/// Names of tensors, and their numbers as bits.
type Bits = Vec<(String, Vec<u32>)>;

/// Every number of every tensor, as bits: NaN compares too.
fn bits(weights: &Weights) -> Bits {
    let of = |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    weights.0.iter().map(|(name, t)| (name.clone(), of(t).into_iter().map(f32::to_bits).collect())).collect()
}

fn state(trainer: &Trainer) -> (u64, Bits, u64, Bits) {
    let c = trainer.checkpoint(0).unwrap();
    (c.policy_version, bits(&c.weights), c.optimizer.steps, bits(&c.optimizer.moments))
}

#[test]
fn an_update_makes_a_new_version_and_reports_on_it() {
    let mut trainer = trainer(OptimizerKind::RmsProp);
    let before = state(&trainer);
    let report = trainer.train(&batch(&ACTION, 1), 0).unwrap();
    assert_eq!(report.outcome, Outcome::Applied);
    assert_eq!(trainer.version(), 1);
    for ((name, before), (_, after)) in before.1.iter().zip(&state(&trainer).1) {
        assert_ne!(before, after, "{name} did not move");
    }
    for name in [
        "loss",
        "policy_loss",
        "value_loss",
        "entropy_loss",
        "entropy",
        "grad_norm",
        "learning_rate",
        "explained_variance",
        "mean_value",
        "mean_rho",
        "clip_fraction",
        "approx_kl",
    ] {
        assert!(report.metrics.get(name).is_some(), "{name} is missing");
    }
}

#[test]
fn the_same_seed_trains_the_same_weights() {
    let run = || {
        let mut trainer = trainer(OptimizerKind::Adam);
        (0..5).for_each(|i| drop(trainer.train(&batch(&ACTION, i), 0).unwrap()));
        state(&trainer)
    };
    assert_eq!(run(), run());
}

#[test]
fn numbers_that_are_not_finite_never_reach_the_weights() {
    type Poison = fn(&mut Batch);
    let poisons: [(&str, Poison); 5] = [
        ("a NaN reward", |b| b.rewards[5] = f32::NAN),
        ("an infinite reward", |b| b.rewards[5] = f32::INFINITY),
        ("a NaN log-probability", |b| b.behaviour_log_probs[0] = f32::NAN),
        ("a NaN observation", |b| match &mut b.observations {
            Array::F32(values) => values[7] = f32::NAN,
            _ => unreachable!(),
        }),
        ("a reward too large to square", |b| b.rewards.fill(1e38)),
    ];
    for kind in [OptimizerKind::RmsProp, OptimizerKind::Adam] {
        for (what, poison) in poisons {
            let mut trainer = trainer(kind);
            trainer.train(&batch(&ACTION, 1), 0).unwrap();
            let before = state(&trainer);
            let mut poisoned = batch(&ACTION, 2);
            poison(&mut poisoned);
            let report = trainer.train(&poisoned, 0).unwrap();
            assert!(matches!(report.outcome, Outcome::Skipped { .. }), "{what}: {report:?}");
            assert_eq!(state(&trainer), before, "{what}");
            assert!(report.metrics.iter().all(|(_, value)| value.is_finite()), "{what}: {report:?}");
            assert_eq!(trainer.skipped(), 1);

            let report = trainer.train(&batch(&ACTION, 3), 0).unwrap();
            assert_eq!(report.outcome, Outcome::Applied, "after {what}");
        }
    }
}

#[test]
fn repeatedly_skipped_updates_stop_the_run() {
    let mut trainer = trainer(OptimizerKind::Adam);
    let (good, mut bad) = (batch(&ACTION, 1), batch(&ACTION, 2));
    bad.rewards[0] = f32::NAN;
    // Two in a row, three times over: an update in between forgives them.
    for _ in 0..3 {
        trainer.train(&bad, 0).unwrap();
        trainer.train(&bad, 0).unwrap();
        trainer.train(&good, 0).unwrap();
    }
    trainer.train(&bad, 0).unwrap();
    trainer.train(&bad, 0).unwrap();
    let error = trainer.train(&bad, 0).unwrap_err();
    assert!(matches!(error, TrainError::NotFinite { skipped: 3, .. }));
    assert!(
        error
            .to_string()
            .starts_with("3 updates in a row were skipped, the last one because the loss is NaN")
    );
    assert_eq!((trainer.version(), trainer.skipped()), (3, 9));
}

#[test]
fn a_snapshot_does_not_change_when_training_goes_on() {
    let mut trainer = trainer(OptimizerKind::RmsProp);
    let snapshot = trainer.snapshot().unwrap();
    let before = bits(&snapshot.weights);
    (0..3).for_each(|i| drop(trainer.train(&batch(&ACTION, i), 0).unwrap()));
    assert_eq!(bits(&snapshot.weights), before);
    assert_eq!((snapshot.version, trainer.snapshot().unwrap().version), (0, 3));
    assert_ne!(bits(&trainer.snapshot().unwrap().weights), before);
}

#[test]
fn a_restored_trainer_goes_on_bit_for_bit() {
    for kind in [OptimizerKind::RmsProp, OptimizerKind::Adam] {
        let mut first = trainer(kind);
        (0..4).for_each(|i| drop(first.train(&batch(&ACTION, i), 0).unwrap()));
        let checkpoint = first.checkpoint(48).unwrap();
        let mut second = trainer(kind);
        second.restore(&checkpoint).unwrap();
        assert_eq!(state(&second), state(&first));
        for i in 4..8 {
            let (of_first, of_second) =
                (first.train(&batch(&ACTION, i), 0), second.train(&batch(&ACTION, i), 0));
            assert_eq!(of_first.unwrap(), of_second.unwrap());
        }
        assert_eq!(state(&second), state(&first));
    }
}

#[test]
fn a_checkpoint_of_another_run_is_refused_and_changes_nothing() {
    let mut trainer = trainer(OptimizerKind::Adam);
    trainer.train(&batch(&ACTION, 1), 0).unwrap();
    let before = state(&trainer);
    let mut refused = |config: RunConfig, action: Space, expected: &str| {
        let other = Trainer::new(&config, &testing::environment(action)).unwrap();
        let error = trainer.restore(&other.checkpoint(0).unwrap()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} does not say {expected:?}");
        assert_eq!(state(&trainer), before);
    };
    refused(testing::config(OptimizerKind::Adam), Space::Discrete { n: 4 }, "actions Discrete(4)");
    refused(testing::config(OptimizerKind::RmsProp), ACTION, "optimizer.kind");
    let mut wider = testing::config(OptimizerKind::Adam);
    wider.policy.hidden = vec![5, 7].into();
    refused(wider, ACTION, "encoder.1.weight has shape [7, 5], expected [4, 5]");
}

#[test]
fn observations_are_normalised_by_what_was_trained_on_before() {
    let mut config = testing::config(OptimizerKind::Adam);
    let environment = testing::environment(ACTION);
    let mut plain = Trainer::new(&config, &environment).unwrap();
    config.policy.normalize_observations = true;
    let mut trainer = Trainer::new(&config, &environment).unwrap();
    let batch = batch(&ACTION, 1);
    let (report, of_plain) = (trainer.train(&batch, 0).unwrap(), plain.train(&batch, 0).unwrap());
    // Nothing was known before the first update; numbers within 10 of 0 pass as they are, but for rounding.
    let loss = |report: &UpdateReport| report.metrics.get("loss").unwrap();
    assert!((loss(&report) - loss(&of_plain)).abs() < 1e-5);

    let weights = trainer.snapshot().unwrap().weights;
    let numbers = |name: &str, len| weights.get(name, &[len]).unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(numbers("observation.count", 1), [12.0]);
    let Array::F32(seen) = &batch.observations else { panic!("{:?}", batch.observations) };
    for (column, mean) in numbers("observation.mean", 3).into_iter().enumerate() {
        // The steps' observations alone, not those that were never acted on.
        let expected = seen[..36].iter().skip(column).step_by(3).sum::<f32>() / 12.0;
        assert!((mean - expected).abs() < 1e-6, "{mean}, expected {expected}");
    }

    let mut resumed = Trainer::new(&config, &environment).unwrap();
    resumed.restore(&trainer.checkpoint(12).unwrap()).unwrap();
    trainer.train(&batch, 12).unwrap();
    resumed.train(&batch, 12).unwrap();
    assert_eq!(state(&trainer), state(&resumed));
}

/// A run of `method` that learns normalised values.
fn normalised(method: &str, more: &str) -> RunConfig {
    let mut config = RunConfig::from_toml(&format!("algorithm.name = \"{method}\"\n{more}")).unwrap();
    config.policy.hidden = vec![5, 4].into();
    config.policy.normalize_values = true;
    config
}

const WITH_VALUES: [&str; 7] = ["impala", "a2c", "a3c", "ppo", "appo", "reinforce", "trpo"];

#[test]
fn every_method_with_values_learns_them_normalised_and_goes_on_bit_for_bit() {
    for method in WITH_VALUES {
        let config = normalised(method, "algorithm.reward_scale = 1000");
        let mut trainer = Trainer::new(&config, &testing::environment(ACTION)).unwrap();
        for seed in 1..4 {
            let report = trainer.train(&batch(&ACTION, seed), 0).unwrap();
            assert_eq!(report.outcome, Outcome::Applied, "{method}");
            let deviation = report.metrics.get("value_target_deviation").unwrap();
            assert!((100.0..5000.0).contains(&deviation), "{method}: {deviation}");
            // Half the squared error of normalised targets: the rewards' scale is gone.
            let loss = report.metrics.get("value_loss").unwrap();
            assert!(loss < 100.0, "{method}: {loss}");
        }
        let mut resumed = Trainer::new(&config, &testing::environment(ACTION)).unwrap();
        resumed.restore(&trainer.checkpoint(12).unwrap()).unwrap();
        trainer.train(&batch(&ACTION, 4), 12).unwrap();
        resumed.train(&batch(&ACTION, 4), 12).unwrap();
        assert_eq!(state(&trainer), state(&resumed), "{method}");
    }
}

#[test]
fn a_skipped_update_leaves_the_statistics_of_values_and_the_head_as_they_were() {
    for method in WITH_VALUES {
        let mut config = normalised(method, "");
        config.optimizer.max_grad_norm = 0.0;
        let environment = testing::environment(ACTION);
        let mut trainer = Trainer::new(&config, &environment).unwrap();
        trainer.train(&batch(&ACTION, 1), 0).unwrap();
        let before = state(&trainer);
        let mut poisoned = batch(&ACTION, 2);
        poisoned.rewards[5] = f32::NAN;
        let report = trainer.train(&poisoned, 0).unwrap();
        assert!(matches!(report.outcome, Outcome::Skipped { .. }), "{method}: {report:?}");
        assert_eq!(state(&trainer), before, "{method}");
        if method == "trpo" {
            continue;
        }
        // The loss is a number, but its gradient is too large: this shows once the statistics have moved.
        let vast =
            RunConfig { algorithm: normalised(method, "algorithm.entropy_cost = 1e30").algorithm, ..config };
        let mut trainer = Trainer::new(&vast, &environment).unwrap();
        let before = state(&trainer);
        let report = trainer.train(&batch(&ACTION, 2), 0).unwrap();
        let refused = matches!(report.outcome, Outcome::Skipped { reason: SkipReason::Gradient(_) });
        assert!(refused, "{method}: {report:?}");
        assert_eq!(state(&trainer), before, "{method}");
    }
}

#[test]
fn every_method_learns_from_pixels() {
    for name in AlgorithmConfig::NAMES {
        let mut config = RunConfig::with_algorithm(AlgorithmConfig::by_name(name).unwrap());
        let policy = &mut config.policy;
        (policy.channels, policy.hidden) = (vec![3].into(), vec![6].into());
        (policy.activation, policy.policy_gain) = (Activation::Tanh, 1.0);
        if let AlgorithmConfig::Sac(sac) = &mut config.algorithm {
            (sac.learning_starts, sac.replay_batch, sac.critic_hidden) = (12, 8, vec![6]);
        }
        let mut trainer = Trainer::new(&config, &testing::pixel_environment(ACTION)).unwrap();
        let kernels = |trainer: &Trainer| bits(&trainer.checkpoint(0).unwrap().weights).swap_remove(0);
        let before = kernels(&trainer);
        assert_eq!(before.0, "encoder.convolution.0.weight");
        let moved = (1..6).any(|seed| {
            let report = trainer.train(&testing::pixel_batch(&ACTION, seed), 0).unwrap();
            report.outcome == Outcome::Applied && kernels(&trainer) != before
        });
        assert!(moved, "{name} does not move the first convolution");
    }
}

#[test]
fn updates_by_candles_own_operations_are_those_of_the_kernels() {
    let spaces = [ACTION, Space::boxed(&[-1.0; 2], &[1.0; 2])];
    for (name, action) in AlgorithmConfig::NAMES.iter().flat_map(|name| spaces.iter().map(move |s| (name, s)))
    {
        let mut config = RunConfig::with_algorithm(AlgorithmConfig::by_name(name).unwrap());
        let policy = &mut config.policy;
        (policy.channels, policy.hidden) = (vec![3].into(), vec![6].into());
        (policy.layer_norm, policy.policy_gain) = (true, 0.5);
        if let AlgorithmConfig::Sac(sac) = &mut config.algorithm {
            (sac.learning_starts, sac.replay_batch, sac.critic_hidden) = (12, 8, vec![6]);
        }
        let train = || {
            let mut trainer = Trainer::new(&config, &testing::pixel_environment(action.clone())).unwrap();
            trainer.train(&testing::pixel_batch(action, 1), 0).unwrap();
            trainer.checkpoint(0).unwrap().weights
        };
        let (kernels, composed) = (train(), impresario_common::kernels::composed(train));
        for ((name_of, a), (_, b)) in kernels.0.iter().zip(&composed.0) {
            let flat = |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for (a, b) in flat(a).iter().zip(flat(b)) {
                assert!((a - b).abs() < 1e-4, "{name}, {action}: {name_of} {a} {b}");
            }
        }
    }
}
