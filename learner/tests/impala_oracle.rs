//! Whole IMPALA updates against PyTorch: losses, the gradient of every parameter, its norm, and the weights
//! after three updates with RMSProp. `tests/oracles/torch_impala.py` wrote the fixture, in `f64`.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use impresario_common::config::{
    AlgorithmConfig, ImpalaConfig, LossReduction, OptimizerKind, PolicySection, RunConfig,
};
use impresario_common::policy::{PolicySpec, Weights};
use impresario_common::space::{EnvironmentSpec, Space};
use impresario_common::unroll::Array;
use impresario_learner::algorithm::impala::Impala;
use impresario_learner::algorithm::{Algorithm, Metrics, Outcome, Progress, TargetPolicy};
use impresario_learner::batch::Batch;
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    parameter_names: Vec<String>,
    parameters: HashMap<String, Parameter>,
    batch: BatchOf,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Parameter {
    shape: Vec<usize>,
    data: Vec<f64>,
}

#[derive(Deserialize)]
struct BatchOf {
    time: usize,
    batch: usize,
    observations: Vec<Vec<Vec<f32>>>,
    actions: Vec<Vec<i32>>,
    rewards: Vec<Vec<f32>>,
    behaviour_log_probs: Vec<Vec<f32>>,
    terminated: Vec<Vec<bool>>,
    truncated: Vec<Vec<bool>>,
    final_observations: Vec<FinalObservation>,
}

#[derive(Deserialize)]
struct FinalObservation {
    t: usize,
    b: usize,
    observation: Vec<f32>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    config: Knobs,
    gradients: HashMap<String, Parameter>,
    updates: Vec<Update>,
    parameters_after: HashMap<String, Parameter>,
}

#[derive(Deserialize)]
struct Knobs {
    reduction: LossReduction,
    gamma: f32,
    baseline_cost: f32,
    entropy_cost: f32,
    reward_clip: Option<f32>,
    lambda: f32,
    clip_rho: f32,
    clip_pg_rho: f32,
    clip_c: f32,
    learning_rate: f64,
    alpha: f64,
    eps: f64,
    max_grad_norm: f64,
}

#[derive(Deserialize)]
struct Update {
    policy_loss: f64,
    baseline_loss: f64,
    entropy: f64,
    total_loss: f64,
    grad_norm: f64,
}

impl Fixture {
    fn read() -> Self {
        serde_json::from_str(include_str!("fixtures/torch_impala.json")).unwrap()
    }

    fn weights(&self) -> Weights {
        let tensor = |name: &String| {
            let parameter = &self.parameters[name];
            let values = parameter.data.iter().map(|v| *v as f32).collect();
            (name.clone(), Tensor::from_vec(values, parameter.shape.as_slice(), &Device::Cpu).unwrap())
        };
        Weights(self.parameter_names.iter().map(tensor).collect())
    }

    fn batch(&self) -> Batch {
        let batch = &self.batch;
        let mut observations: Vec<f32> = batch.observations.iter().flatten().flatten().copied().collect();
        observations.extend(batch.final_observations.iter().flat_map(|f| &f.observation));
        let flags = |flags: &[Vec<bool>]| flags.iter().flatten().map(|flag| u8::from(*flag)).collect();
        Batch {
            length: batch.time,
            columns: batch.batch,
            observations: Array::F32(observations),
            actions: Array::I32(batch.actions.concat()),
            rewards: batch.rewards.concat(),
            terminated: flags(&batch.terminated),
            truncated: flags(&batch.truncated),
            behaviour_log_probs: batch.behaviour_log_probs.concat(),
            final_steps: batch.final_observations.iter().map(|f| f.t * batch.batch + f.b).collect(),
            action_masks: vec![],
            core_states: vec![],
            policy_versions: vec![0; batch.batch],
        }
    }
}

impl Knobs {
    fn run_config(&self) -> RunConfig {
        let mut config = RunConfig {
            policy: PolicySection { hidden: vec![8, 8], ..PolicySection::default() },
            algorithm: AlgorithmConfig::Impala(self.impala()),
            ..RunConfig::default()
        };
        config.optimizer.kind = OptimizerKind::RmsProp;
        config.optimizer.learning_rate = self.learning_rate;
        config.optimizer.decay = self.alpha;
        config.optimizer.epsilon = self.eps;
        config.optimizer.momentum = 0.0;
        config.optimizer.max_grad_norm = self.max_grad_norm;
        config
    }

    fn impala(&self) -> ImpalaConfig {
        ImpalaConfig {
            gamma: self.gamma,
            lambda: self.lambda,
            clip_rho: self.clip_rho,
            clip_pg_rho: self.clip_pg_rho,
            clip_c: self.clip_c,
            baseline_cost: self.baseline_cost,
            entropy_cost: self.entropy_cost,
            loss_reduction: self.reduction,
            reward_scale: 1.0,
            reward_clip: self.reward_clip.unwrap_or(0.0),
        }
    }
}

fn target(fixture: &Fixture, config: &RunConfig) -> TargetPolicy {
    let environment = EnvironmentSpec {
        id: "Oracle-v0".into(),
        observation: Space::boxed(&[f32::NEG_INFINITY; 4], &[f32::INFINITY; 4]),
        action: Space::Discrete { n: 3 },
        max_episode_steps: None,
        solved_return: None,
        masks_actions: false,
    };
    let spec = PolicySpec::new(&environment, &config.policy).unwrap();
    TargetPolicy::new(config, &environment, &spec, &fixture.weights()).unwrap()
}

/// The reference is in `f64`; ours is not.
#[track_caller]
fn assert_close(ours: impl Into<f64>, reference: f64, what: &str) {
    let ours = ours.into();
    assert!(
        (ours - reference).abs() < 2e-5 * reference.abs().max(1.0),
        "{what}: {ours}, expected {reference}"
    );
}

#[track_caller]
fn assert_tensors_close(ours: &Tensor, reference: &Parameter, what: &str) {
    assert_eq!(ours.dims(), reference.shape, "{what}");
    for (ours, reference) in ours.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().zip(&reference.data)
    {
        assert_close(*ours, *reference, what);
    }
}

#[test]
fn gradients_are_those_of_pytorch() {
    let fixture = Fixture::read();
    assert_eq!(fixture.cases.len(), 5);
    for case in &fixture.cases {
        let target = target(&fixture, &case.config.run_config());
        let mut impala = Impala::new(&case.config.impala());
        let (_, loss) = impala.loss(&target, &fixture.batch(), &mut Metrics::default()).unwrap();
        let gradients = loss.backward().unwrap();
        for (name, var) in target.parameters().iter() {
            let what = format!("{}: gradient of {name}", case.name);
            assert_tensors_close(gradients.get(var).expect(&what), &case.gradients[name], &what);
        }
    }
}

#[test]
fn three_updates_are_those_of_pytorch() {
    let fixture = Fixture::read();
    let batch = fixture.batch();
    for case in &fixture.cases {
        let mut target = target(&fixture, &case.config.run_config());
        let mut impala = Impala::new(&case.config.impala());
        let count = match case.config.reduction {
            LossReduction::Sum => batch.steps() as f64,
            LossReduction::Mean => 1.0,
        };
        assert_eq!(case.updates.len(), 3);
        for (version, reference) in case.updates.iter().enumerate() {
            let progress = Progress { env_steps: 0, version: version as u64 };
            let report = impala.update(&mut target, &batch, progress).unwrap();
            assert_eq!(report.outcome, Outcome::Applied);
            for (name, reference) in [
                ("policy_loss", reference.policy_loss),
                ("value_loss", reference.baseline_loss),
                ("entropy", reference.entropy / count),
                ("entropy_loss", -f64::from(case.config.entropy_cost) * reference.entropy),
                ("loss", reference.total_loss),
                ("grad_norm", reference.grad_norm),
                ("learning_rate", case.config.learning_rate),
            ] {
                let ours = report.metrics.get(name).unwrap();
                assert_close(ours, reference, &format!("{}, update {version}: {name}", case.name));
            }
        }
        for (name, var) in target.parameters().iter() {
            assert_tensors_close(var, &case.parameters_after[name], &format!("{}: {name}", case.name));
        }
    }
}
