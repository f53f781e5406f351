//! TRPO's Fisher products against explicit matrices, and what an update promises.

use impresario_common::config::{AlgorithmConfig, CoreKind, OptimizerKind};
use impresario_common::policy::PolicySpec;
use impresario_common::space::Space;

use super::*;
use crate::testing;

fn spaces() -> [Space; 3] {
    [Space::Discrete { n: 3 }, Space::MultiDiscrete { nvec: vec![2, 3] }, Space::boxed(&[-1.0; 2], &[1.0; 2])]
}

/// Every kind of action without memory, and every kind of memory.
fn cases() -> Vec<(Space, CoreKind)> {
    let cores = [CoreKind::Lstm, CoreKind::Gru].map(|core| (Space::Discrete { n: 3 }, core));
    spaces().map(|action| (action, CoreKind::None)).into_iter().chain(cores).collect()
}

fn run_config(core: CoreKind) -> RunConfig {
    let mut run = testing::config(OptimizerKind::Adam);
    run.policy.core = core;
    run.policy.core_size = 3;
    run.algorithm = AlgorithmConfig::Trpo(TrpoConfig::default());
    run.policy.shared_encoder = false;
    run
}

fn target(action: &Space) -> TargetPolicy {
    target_with(action, CoreKind::None)
}

fn target_with(action: &Space, core: CoreKind) -> TargetPolicy {
    let (config, environment) = (run_config(core), testing::environment(action.clone()));
    let spec = PolicySpec::new(&environment, &config.policy).unwrap();
    TargetPolicy::new(&config, &spec, &spec.initialise(7).unwrap()).unwrap()
}

/// A batch that `target` itself has acted.
fn batch(target: &TargetPolicy, action: &Space, seed: u64) -> Batch {
    let mut batch = testing::batch(action, seed);
    let states = batch.columns * target.core_state_len();
    batch.core_states = (0..states).map(|i| (i as f32).sin() / 2.0).collect();
    let output = target.forward(&batch).unwrap();
    let rows = target.log_prob_entropy(&output, &batch).unwrap().to_vec2::<f32>().unwrap();
    batch.behaviour_log_probs = rows[..batch.steps()].iter().map(|row| row[0]).collect();
    batch
}

#[test]
fn products_are_those_of_the_explicit_fisher_matrix() {
    for (action, core) in cases() {
        let target = target_with(&action, core);
        let batch = batch(&target, &action, 1);
        let output = target.forward(&batch).unwrap();
        let params = output.distribution.clone();
        let (rows, width) = params.dims2().unwrap();
        let size = target.parameters().iter().map(|(_, var)| var.elem_count()).sum::<usize>();
        // J, a row for each parameter of each step's distribution, by a backward pass each.
        let steps = batch.steps();
        let jacobian: Vec<Vec<f32>> = (0..steps * width)
            .map(|at| {
                let mut unit = vec![0.0; rows * width];
                unit[at] = 1.0;
                flat_gradient(&known_gradient(0.0, &params, unit).unwrap(), target.parameters()).unwrap()
            })
            .collect();
        let numbers = params.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let weights = target.parameters().copied().unwrap();
        let fisher = Fisher::new(&target, &batch, &params, &weights, 0.0).unwrap();
        let distribution = target.action_distribution();
        for seed in 0..3 {
            let v: Vec<f32> = (0..size).map(|i| ((i * 7 + seed * 13) % 11) as f32 / 5.0 - 1.0).collect();
            // M J v, with M taken apart into columns; then J^T of it.
            let tangents: Vec<f32> = jacobian.iter().map(|row| dot(row, &v) as f32).collect();
            let mut expected = vec![0f64; size];
            for step in 0..steps {
                let row = step * width..(step + 1) * width;
                for column in 0..width {
                    let (mut unit, mut of_column) = (vec![0.0; width], vec![0.0; width]);
                    unit[column] = 1.0;
                    distribution.fisher_product(&numbers[row.clone()], &unit, &mut of_column);
                    let weighed = dot(&of_column, &tangents[row.clone()]) / steps as f64;
                    let derivatives = &jacobian[row.start + column];
                    expected.iter_mut().zip(derivatives).for_each(|(e, d)| *e += weighed * f64::from(*d));
                }
            }
            let found = fisher.product(&v).unwrap();
            let scale = expected.iter().fold(0f64, |most, e| most.max(e.abs()));
            for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let error = (f64::from(*found) - expected).abs();
                assert!(error < 1e-3 * scale, "{action}, {core:?}, {at}: {found}, not {expected}");
            }
        }
        let unchanged = target.parameters().copied().unwrap();
        for ((name, before), (_, after)) in weights.0.iter().zip(&unchanged.0) {
            let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(flat(before), flat(after), "{name} has moved");
        }
    }
}

#[test]
fn an_update_raises_the_surrogate_within_the_trust_region() {
    for (action, core) in cases() {
        let mut target = target_with(&action, core);
        let mut trpo = Trpo::new(&run_config(core), &TrpoConfig::default()).unwrap();
        for version in 0..5 {
            let batch = batch(&target, &action, version);
            let report = trpo.update(&mut target, &batch, Progress { env_steps: 0, version }).unwrap();
            assert_eq!(report.outcome, Outcome::Applied);
            let metric = |name| report.metrics.get(name).unwrap_or_else(|| panic!("no {name}"));
            let kl = metric("kl");
            assert!(kl > 0.2 * 0.02 && kl <= 0.02, "{action}: {kl}");
            assert!(metric("policy_loss") < 0.0, "normalised advantages give a surrogate of 0 at the start");
            assert!(metric("line_search_steps") >= 1.0);
        }
    }
}

#[test]
fn the_first_order_estimate_of_the_divergence_is_the_bound() {
    let action = Space::boxed(&[-1.0; 2], &[1.0; 2]);
    let mut target = target(&action);
    // So small a step that the divergence is its quadratic form.
    let config = TrpoConfig { max_kl: 1e-4, cg_damping: 0.0, ..TrpoConfig::default() };
    let batch = batch(&target, &action, 3);
    let mut trpo = Trpo::new(&run_config(CoreKind::None), &config).unwrap();
    let report = trpo.update(&mut target, &batch, Progress { env_steps: 0, version: 0 }).unwrap();
    let tries = f64::from(report.metrics.get("line_search_steps").unwrap());
    let kl = f64::from(report.metrics.get("kl").unwrap());
    let expected = 1e-4 * 0.8f64.powf(2.0 * (tries - 1.0));
    assert!((kl / expected - 1.0).abs() < 0.1, "{kl} after {tries} tries, expected {expected}");
}

#[test]
fn every_parameter_learns() {
    for action in spaces() {
        let mut target = target(&action);
        let before = target.parameters().copied().unwrap();
        let batch = batch(&target, &action, 1);
        let mut trpo = Trpo::new(&run_config(CoreKind::None), &TrpoConfig::default()).unwrap();
        trpo.update(&mut target, &batch, Progress { env_steps: 0, version: 0 }).unwrap();
        for ((name, before), (_, after)) in before.0.iter().zip(&target.parameters().copied().unwrap().0) {
            let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_ne!(flat(before), flat(after), "{action}: {name} stays");
        }
    }
}

#[test]
fn what_is_not_finite_leaves_everything_as_it_was() {
    let action = Space::Discrete { n: 3 };
    let mut target = target(&action);
    let mut batch = batch(&target, &action, 1);
    batch.rewards[3] = f32::MAX;
    batch.rewards[4] = f32::MAX;
    let flat = |target: &TargetPolicy| -> Vec<Vec<f32>> {
        let weights = target.parameters().copied().unwrap().0;
        let moments = target.optimizer().state().unwrap().moments.0;
        let all = weights.into_iter().chain(moments);
        all.map(|(_, tensor)| tensor.flatten_all().unwrap().to_vec1().unwrap()).collect()
    };
    let before = flat(&target);
    let config = TrpoConfig { reward_scale: 10.0, ..TrpoConfig::default() };
    let mut trpo = Trpo::new(&run_config(CoreKind::None), &config).unwrap();
    let report = trpo.update(&mut target, &batch, Progress { env_steps: 0, version: 0 }).unwrap();
    assert!(matches!(report.outcome, Outcome::Skipped { .. }), "{:?}", report.outcome);
    assert_eq!(flat(&target), before);
}

#[test]
fn shared_layers_are_refused() {
    let mut run = run_config(CoreKind::None);
    run.policy.shared_encoder = true;
    let error = Trpo::new(&run, &TrpoConfig::default()).unwrap_err().to_string();
    assert!(error.contains("policy.shared_encoder = false"), "{error}");
}

#[test]
fn fitting_values_moves_nothing_that_the_policy_is_made_of() {
    for core in [CoreKind::None, CoreKind::Lstm, CoreKind::Gru] {
        let action = Space::Discrete { n: 3 };
        let target = target_with(&action, core);
        let batch = batch(&target, &action, 1);
        let gradients = target.forward(&batch).unwrap().values.sum_all().unwrap().backward().unwrap();
        let mut of_values = 0;
        for (name, var) in target.parameters().iter() {
            let taught = gradients.get(var).is_some();
            assert_eq!(taught, name.starts_with("value"), "{core:?}: {name}");
            of_values += usize::from(taught);
        }
        assert_eq!(of_values, 6);
    }
}
