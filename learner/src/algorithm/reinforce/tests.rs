use impresario_common::config::OptimizerKind;
use impresario_common::policy::PolicySpec;
use impresario_common::space::Space;

use super::*;
use crate::algorithm::Outcome;
use crate::testing;

const ACTION: Space = Space::Discrete { n: 2 };
const START: Progress = Progress { env_steps: 0, version: 0 };

fn target() -> TargetPolicy {
    let (config, environment) = (testing::config(OptimizerKind::Adam), testing::environment(ACTION));
    let spec = PolicySpec::new(&environment, &config.policy).unwrap();
    TargetPolicy::new(&config, &spec, &spec.initialise(7).unwrap()).unwrap()
}

fn plain() -> ReinforceConfig {
    ReinforceConfig {
        gamma: 0.5,
        normalize_advantages: false,
        reward_scale: 1.0,
        ..ReinforceConfig::default()
    }
}

/// `[4, 3]`: column 0 ends at step 1 (cut), 2 at steps 0, 2 (terminated) and 3 (cut), 1 never.
fn batch() -> Batch {
    let mut batch = testing::batch(&ACTION, 1);
    batch.rewards = (0..12).map(|i| i as f32).collect();
    batch.terminated = vec![0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0];
    batch.truncated = vec![0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
    batch.final_steps = vec![3, 11];
    batch
}

#[test]
fn only_steps_of_finished_episodes_have_returns_and_gradients() {
    let (target, batch) = (target(), batch());
    for baseline in [true, false] {
        let mut method = Reinforce::new(&ReinforceConfig { baseline, ..plain() }, &RunConfig::default());
        let mut metrics = Metrics::default();
        method.loss(&target, &batch, START, &mut metrics).unwrap();
        assert_eq!(method.finished, [0, 2, 3, 5, 8, 11]);
        assert_eq!(metrics.get("unfinished_fraction"), Some(0.5));
        let values = target.forward(&batch).unwrap().values.to_vec1::<f32>().unwrap();
        // Behind [5, 3] rows of observations come the final ones.
        let follows = if baseline { [0.5 * values[15], 0.5 * values[16]] } else { [0.0, 0.0] };
        let returns = [1.5 + 0.5 * follows[0], 2.0, 3.0 + follows[0], 5.0 + 4.0, 8.0, 11.0 + follows[1]];
        for ((&step, &weight), expected) in method.finished.iter().zip(&method.weights).zip(returns) {
            assert!((method.returns[step] - expected).abs() < 1e-5, "{step}: {}", method.returns[step]);
            let expected = if baseline { expected - values[step] } else { expected };
            assert!((weight - expected).abs() < 1e-5, "{step}: {weight}");
        }
        let rows = vec![-0.5; 2 * values.len()];
        let objective =
            method.objective(&rows, &values, ValueScale::IDENTITY, START, &mut Metrics::default());
        for step in 0..values.len() {
            let finished = method.finished.contains(&step);
            assert_eq!(objective.d_log_prob_entropy[2 * step] != 0.0, finished);
            assert_eq!(objective.d_log_prob_entropy[2 * step + 1] != 0.0, finished);
            assert_eq!(objective.d_values[step] != 0.0, finished && baseline);
        }
    }
}

#[test]
fn a_batch_without_an_end_changes_nothing() {
    let (mut target, mut batch) = (target(), batch());
    batch.terminated.fill(0);
    batch.truncated.fill(0);
    batch.final_steps.clear();
    batch.observations = testing::batch(&ACTION, 1).observations;
    let impresario_common::unroll::Array::F32(observations) = &mut batch.observations else { unreachable!() };
    observations.truncate(15 * 3);
    let numbers = |target: &TargetPolicy| {
        let weights = target.parameters().copied().unwrap();
        weights
            .0
            .iter()
            .flat_map(|(_, t)| t.flatten_all().unwrap().to_vec1::<f32>().unwrap())
            .collect::<Vec<_>>()
    };
    let before = numbers(&target);
    let mut method = Reinforce::new(&plain(), &RunConfig::default());
    let report = method.update(&mut target, &batch, START).unwrap();
    assert_eq!(report.outcome, Outcome::Applied);
    assert_eq!(report.metrics.get("unfinished_fraction"), Some(1.0));
    assert_eq!(numbers(&target), before);
}
