//! What the tests against PyTorch share: `tests/oracles/torch_support.py` in the file's form, and as ours.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use impresario_common::config::{PolicySection, RunConfig};
use impresario_common::policy::{PolicySpec, Weights};
use impresario_common::space::{EnvironmentSpec, Space};
use impresario_common::unroll::Array;
use impresario_learner::algorithm::TargetPolicy;
use impresario_learner::batch::Batch;
use serde::Deserialize;

/// Weights to start from and the batch to learn from.
#[derive(Deserialize)]
pub(crate) struct World {
    parameter_names: Vec<String>,
    parameters: HashMap<String, Parameter>,
    batch: BatchOf,
}

#[derive(Deserialize)]
pub(crate) struct Parameter {
    shape: Vec<usize>,
    data: Vec<f64>,
}

#[derive(Deserialize)]
struct BatchOf {
    time: usize,
    batch: usize,
    observations: Vec<Vec<Vec<f32>>>,
    actions: ActionsOf,
    rewards: Vec<Vec<f32>>,
    behaviour_log_probs: Vec<Vec<f32>>,
    terminated: Vec<Vec<bool>>,
    truncated: Vec<Vec<bool>>,
    final_observations: Vec<FinalObservation>,
    /// Of a policy with memory.
    #[serde(default)]
    core_states: Vec<Vec<f32>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ActionsOf {
    Discrete(Vec<Vec<i32>>),
    Continuous(Vec<Vec<Vec<f32>>>),
}

#[derive(Deserialize)]
struct FinalObservation {
    t: usize,
    b: usize,
    observation: Vec<f32>,
}

impl World {
    fn weights(&self) -> Weights {
        let tensor = |name: &String| {
            let parameter = &self.parameters[name];
            let values = parameter.data.iter().map(|v| *v as f32).collect();
            (name.clone(), Tensor::from_vec(values, parameter.shape.as_slice(), &Device::Cpu).unwrap())
        };
        Weights(self.parameter_names.iter().map(tensor).collect())
    }

    pub(crate) fn batch(&self) -> Batch {
        let batch = &self.batch;
        let mut observations: Vec<f32> = batch.observations.iter().flatten().flatten().copied().collect();
        observations.extend(batch.final_observations.iter().flat_map(|f| &f.observation));
        let flags = |flags: &[Vec<bool>]| flags.iter().flatten().map(|flag| u8::from(*flag)).collect();
        Batch {
            length: batch.time,
            columns: batch.batch,
            observations: Array::F32(observations),
            frame_stack: 1,
            history: Array::F32(vec![]),
            actions: match &batch.actions {
                ActionsOf::Discrete(actions) => Array::I32(actions.concat()),
                ActionsOf::Continuous(actions) => Array::F32(actions.concat().concat()),
            },
            rewards: batch.rewards.concat(),
            terminated: flags(&batch.terminated),
            truncated: flags(&batch.truncated),
            behaviour_log_probs: batch.behaviour_log_probs.concat(),
            final_steps: batch.final_observations.iter().map(|f| f.t * batch.batch + f.b).collect(),
            action_masks: vec![],
            core_states: batch.core_states.concat(),
            policy_versions: vec![0; batch.batch],
        }
    }

    pub(crate) fn environment(&self) -> EnvironmentSpec {
        let action = match self.batch.actions {
            ActionsOf::Discrete(_) => Space::Discrete { n: 3 },
            ActionsOf::Continuous(_) => Space::boxed(&[-1.0; 2], &[1.0; 2]),
        };
        EnvironmentSpec::new("Oracle-v0", Space::boxed(&[f32::NEG_INFINITY; 4], &[f32::INFINITY; 4]), action)
    }

    /// The policy of a run with `config`, whose network is [`policy_section`]'s.
    pub(crate) fn target(&self, config: &RunConfig) -> TargetPolicy {
        let environment = self.environment();
        let spec = PolicySpec::new(&environment, &config.policy).unwrap();
        let mut weights = self.weights();
        // Statistics of value targets are not the oracle's to choose.
        let initial = spec.initialise(0).unwrap().0;
        weights.0.extend(initial.into_iter().filter(|(name, _)| name.starts_with("value_target.")));
        TargetPolicy::new(config, &spec, &weights).unwrap()
    }
}

/// The oracle's network.
pub(crate) fn policy_section() -> PolicySection {
    PolicySection { hidden: vec![8, 8].into(), ..PolicySection::default() }
}

/// How far rounding may lead: the reference is in `f64`; ours is not.
const ROUNDING: f64 = 2e-5;

#[track_caller]
pub(crate) fn assert_close(ours: impl Into<f64>, reference: f64, what: &str) {
    assert_near(ours, reference, ROUNDING, what);
}

#[track_caller]
pub(crate) fn assert_near(ours: impl Into<f64>, reference: f64, tolerance: f64, what: &str) {
    let ours = ours.into();
    assert!(
        (ours - reference).abs() < tolerance * reference.abs().max(1.0),
        "{what}: {ours}, expected {reference}"
    );
}

#[track_caller]
pub(crate) fn assert_tensors_close(ours: &Tensor, reference: &Parameter, what: &str) {
    assert_tensors_near(ours, reference, ROUNDING, what);
}

#[track_caller]
pub(crate) fn assert_tensors_near(ours: &Tensor, reference: &Parameter, tolerance: f64, what: &str) {
    assert_eq!(ours.dims(), reference.shape, "{what}");
    for (ours, reference) in ours.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().zip(&reference.data)
    {
        assert_near(*ours, *reference, tolerance, what);
    }
}
