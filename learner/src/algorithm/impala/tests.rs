use candle_core::Var;
use impresario_common::config::{CoreKind, LossReduction, OptimizerKind, PolicySection};
use impresario_common::policy::PolicySpec;
use impresario_common::policy::value_scale::ValueScale;
use impresario_common::space::Space;

use super::*;
use crate::testing;

fn spaces() -> [Space; 3] {
    [Space::Discrete { n: 3 }, Space::MultiDiscrete { nvec: vec![2, 3] }, Space::boxed(&[-1.0; 2], &[1.0; 2])]
}

fn target(action: &Space) -> TargetPolicy {
    target_with(action, CoreKind::None)
}

fn target_with(action: &Space, core: CoreKind) -> TargetPolicy {
    target_of(action, core, |_| ())
}

fn target_of(action: &Space, core: CoreKind, change: impl Fn(&mut PolicySection)) -> TargetPolicy {
    let (mut config, environment) =
        (testing::config(OptimizerKind::Adam), testing::environment(action.clone()));
    config.policy.core = core;
    config.policy.core_size = 3;
    change(&mut config.policy);
    let spec = PolicySpec::new(&environment, &config.policy).unwrap();
    TargetPolicy::new(&config, &spec, &spec.initialise(7).unwrap()).unwrap()
}

/// Every kind of action without memory, and every kind of memory.
fn cases() -> Vec<(Space, CoreKind)> {
    let cores = [CoreKind::Lstm, CoreKind::Gru].map(|core| (Space::Discrete { n: 3 }, core));
    spaces().map(|action| (action, CoreKind::None)).into_iter().chain(cores).collect()
}

/// [`testing::batch`] with states for such a policy.
fn batch(action: &Space, core: CoreKind, seed: u64) -> Batch {
    let mut batch = testing::batch(action, seed);
    let state_len = match core {
        CoreKind::None => 0,
        CoreKind::Lstm => 6,
        CoreKind::Gru => 3,
    };
    batch.core_states = (0..batch.columns * state_len).map(|i| (i as f32).sin() / 2.0).collect();
    batch
}

fn impala() -> Impala {
    let loss_reduction = LossReduction::Sum;
    Impala::new(
        &ImpalaConfig { loss_reduction, entropy_cost: 0.1, ..ImpalaConfig::default() },
        &RunConfig::default(),
    )
}

const START: Progress = Progress { env_steps: 0, version: 0 };

fn shift(var: &Var, index: usize, by: f32) {
    kernels::update_in_place(var, |values| values[index] += by).unwrap();
}

#[test]
fn every_parameter_of_every_policy_gets_a_gradient() {
    for (action, core) in cases() {
        let (target, batch) = (target_with(&action, core), batch(&action, core, 1));
        let (_, loss) = impala().loss(&target, &batch, START, &mut Metrics::default()).unwrap();
        let gradients = loss.backward().unwrap();
        for (name, var) in target.parameters().iter() {
            let gradient = gradients.get(var).unwrap_or_else(|| panic!("{name} has no gradient"));
            let gradient = gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(
                gradient.iter().any(|g| *g != 0.0),
                "the gradient of {name} is zero in {action}, {core:?}"
            );
        }
    }
}

/// The loss with targets and advantages as they stand in `impala`, by the formula of the module.
fn loss_with_frozen_targets(impala: &Impala, target: &TargetPolicy, batch: &Batch) -> f64 {
    let output = target.forward(batch).unwrap();
    let rows = target.log_prob_entropy(&output, batch).unwrap().to_vec2::<f32>().unwrap();
    let values = output.values.to_vec1::<f32>().unwrap();
    (0..batch.steps())
        .map(|i| {
            let (log_prob, entropy, value) =
                (f64::from(rows[i][0]), f64::from(rows[i][1]), f64::from(values[i]));
            let (vs, advantage) = (f64::from(impala.vs[i]), f64::from(impala.pg_advantages[i]));
            -advantage * log_prob + f64::from(impala.config.baseline_cost) * 0.5 * (vs - value).powi(2)
                - f64::from(impala.config.entropy_cost) * entropy
        })
        .sum()
}

#[test]
fn gradients_match_finite_differences_with_targets_held() {
    const H: f32 = 1e-2;
    for (action, core) in cases() {
        let (target, mut impala) = (target_with(&action, core), impala());
        let batch = batch(&action, core, 2);
        let (value, loss) = impala.loss(&target, &batch, START, &mut Metrics::default()).unwrap();
        let slow = loss_with_frozen_targets(&impala, &target, &batch);
        assert!((value - slow).abs() < 1e-4 * slow.abs().max(1.0), "{value} is not {slow}");
        let gradients = loss.backward().unwrap();
        for (name, var) in target.parameters().iter() {
            let gradient = gradients.get(var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for (index, &analytic) in gradient.iter().enumerate() {
                let at = |offset: f32| {
                    shift(var, index, offset);
                    let loss = loss_with_frozen_targets(&impala, &target, &batch);
                    shift(var, index, -offset);
                    loss
                };
                // Fourth order: the step must be large enough for f32.
                let numeric = (8.0 * (at(H) - at(-H)) - (at(2.0 * H) - at(-2.0 * H))) / (12.0 * f64::from(H));
                let error = (f64::from(analytic) - numeric).abs();
                assert!(
                    error < 2e-3 * numeric.abs().max(1.0),
                    "{action}, {core:?}, {name}[{index}]: {analytic}, but by differences {numeric}"
                );
            }
        }
    }
}

/// The loss with targets and advantages as they stand in `impala`, by the formula of the module, with the value head's
/// numbers and targets on `scale`.
fn loss_on_scale(impala: &Impala, target: &TargetPolicy, batch: &Batch, scale: ValueScale) -> f64 {
    let output = target.forward(batch).unwrap();
    let rows = target.log_prob_entropy(&output, batch).unwrap().to_vec2::<f32>().unwrap();
    let numbers = output.values.to_vec1::<f32>().unwrap();
    (0..batch.steps())
        .map(|i| {
            let goal = (f64::from(impala.vs[i]) - f64::from(scale.mean)) / f64::from(scale.deviation);
            -f64::from(impala.pg_advantages[i]) * f64::from(rows[i][0])
                + f64::from(impala.config.baseline_cost) * 0.5 * (goal - f64::from(numbers[i])).powi(2)
                - f64::from(impala.config.entropy_cost) * f64::from(rows[i][1])
        })
        .sum()
}

#[test]
fn gradients_of_normalised_values_are_those_of_the_head_after_it_moved() {
    const H: f32 = 1e-2;
    for core in [CoreKind::None, CoreKind::Lstm] {
        let action = Space::Discrete { n: 3 };
        let (target, batch) =
            (target_of(&action, core, |p| p.normalize_values = true), batch(&action, core, 2));
        let config = ImpalaConfig { reward_scale: 100.0, ..impala().config };
        let mut impala = Impala::new(&config, &RunConfig::default());
        // So that the statistics have moved before.
        target.absorb_values(&[-20.0, 80.0], &mut Metrics::default()).unwrap();
        let before = target.values(&target.forward(&batch).unwrap()).unwrap();
        let mut metrics = Metrics::default();
        let (value, loss) = impala.loss(&target, &batch, START, &mut metrics).unwrap();
        let scale = target.value_scale().unwrap();
        assert_eq!(metrics.get("value_target_mean"), Some(scale.mean));
        assert_eq!(metrics.get("value_target_deviation"), Some(scale.deviation));
        for (before, after) in before.iter().zip(target.values(&target.forward(&batch).unwrap()).unwrap()) {
            assert!((before - after).abs() < 1e-3, "{before} became {after}");
        }
        let slow = loss_on_scale(&impala, &target, &batch, scale);
        assert!((value - slow).abs() < 1e-4 * slow.abs().max(1.0), "{value} is not {slow}");
        let gradients = loss.backward().unwrap();
        for (name, var) in target.parameters().iter() {
            let Some(gradient) = gradients.get(var) else {
                assert!(name.starts_with("value_target."), "{name} has no gradient");
                continue;
            };
            for (index, &analytic) in
                gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().enumerate()
            {
                let at = |offset: f32| {
                    shift(var, index, offset);
                    let loss = loss_on_scale(&impala, &target, &batch, scale);
                    shift(var, index, -offset);
                    loss
                };
                let numeric = (8.0 * (at(H) - at(-H)) - (at(2.0 * H) - at(-2.0 * H))) / (12.0 * f64::from(H));
                let error = (f64::from(analytic) - numeric).abs();
                assert!(
                    error < 2e-3 * numeric.abs().max(1.0),
                    "{core:?}, {name}[{index}]: {analytic}, but by differences {numeric}"
                );
            }
        }
    }
}

#[test]
fn a_batch_without_the_states_that_the_core_needs_is_refused() {
    let action = Space::Discrete { n: 3 };
    let (target, batch) = (target_with(&action, CoreKind::Gru), testing::batch(&action, 1));
    let error = target.forward(&batch).unwrap_err().to_string();
    assert!(error.contains("3 columns need initial states of 3 numbers each, got 0"), "{error}");
}

#[test]
fn the_mean_is_the_sum_over_the_number_of_steps() {
    let action = Space::Discrete { n: 3 };
    let (target, batch) = (target(&action), testing::batch(&action, 3));
    let of = |loss_reduction| {
        let config = ImpalaConfig { loss_reduction, ..ImpalaConfig::default() };
        let mut metrics = Metrics::default();
        let (loss, _) =
            Impala::new(&config, &RunConfig::default()).loss(&target, &batch, START, &mut metrics).unwrap();
        (loss, metrics)
    };
    let ((sum, in_sum), (mean, in_mean)) = (of(LossReduction::Sum), of(LossReduction::Mean));
    assert!((sum / batch.steps() as f64 - mean).abs() < 1e-6);
    for name in ["entropy", "mean_value", "explained_variance", "mean_rho", "approx_kl", "clip_fraction"] {
        assert_eq!(in_sum.get(name), in_mean.get(name), "{name} depends on the reduction");
    }
}

#[test]
fn on_policy_the_two_policies_are_at_no_distance() {
    let action = Space::Discrete { n: 3 };
    let (target, mut batch) = (target(&action), testing::batch(&action, 4));
    let output = target.forward(&batch).unwrap();
    let rows = target.log_prob_entropy(&output, &batch).unwrap().to_vec2::<f32>().unwrap();
    batch.behaviour_log_probs = rows[..batch.steps()].iter().map(|row| row[0]).collect();
    let mut metrics = Metrics::default();
    impala().loss(&target, &batch, START, &mut metrics).unwrap();
    assert_eq!(metrics.get("mean_rho"), Some(1.0));
    assert_eq!(metrics.get("approx_kl"), Some(0.0));
    assert_eq!(metrics.get("clip_fraction"), Some(0.0));
}

#[test]
fn buffers_forget_the_batch_before() {
    let action = Space::Discrete { n: 3 };
    let (target, mut used) = (target(&action), impala());
    used.loss(&target, &testing::batch(&action, 5), START, &mut Metrics::default()).unwrap();
    let (batch, mut of_used, mut of_fresh) =
        (testing::batch(&action, 6), Metrics::default(), Metrics::default());
    used.loss(&target, &batch, START, &mut of_used).unwrap();
    impala().loss(&target, &batch, START, &mut of_fresh).unwrap();
    assert_eq!(of_used, of_fresh);
}
