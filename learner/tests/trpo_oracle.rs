//! Whole updates of TRPO against PyTorch: what they report, and the weights after two of them.
//! `tests/oracles/torch_trpo.py` wrote the fixture, in `f64`, with Fisher products by differentiating twice.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod oracle;

use std::collections::HashMap;

use impresario_common::config::{AlgorithmConfig, OptimizerKind, OptimizerSection, PolicySection, RunConfig};
use impresario_common::policy::PolicySpec;
use impresario_learner::algorithm::{self, Outcome, Progress};
use oracle::{
    Parameter, World, assert_close, assert_near, assert_tensors_close, assert_tensors_near, policy_section,
};
use serde::Deserialize;

/// Of what the policy's step decides: ours measures derivatives of a Fisher product by differences in `f32`, and conjugate
/// gradients add to their error.
const TOLERANCE: f64 = 2e-3;

#[derive(Deserialize)]
struct Fixture {
    worlds: HashMap<String, World>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    world: String,
    algorithm: AlgorithmConfig,
    optimizer: Knobs,
    updates: Vec<HashMap<String, f64>>,
    parameters_after: HashMap<String, Parameter>,
}

#[derive(Deserialize)]
struct Knobs {
    learning_rate: f64,
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    max_grad_norm: f64,
}

impl Case {
    fn config(&self) -> RunConfig {
        let Knobs { learning_rate, beta1, beta2, epsilon, max_grad_norm } = self.optimizer;
        let optimizer = OptimizerSection {
            kind: OptimizerKind::Adam,
            learning_rate,
            beta1,
            beta2,
            epsilon,
            max_grad_norm,
            ..OptimizerSection::default()
        };
        let policy = PolicySection { shared_encoder: false, ..policy_section() };
        RunConfig { policy, algorithm: self.algorithm.clone(), optimizer, ..RunConfig::default() }
    }
}

#[test]
fn updates_are_those_of_pytorch() {
    let fixture: Fixture = serde_json::from_str(include_str!("fixtures/torch_trpo.json")).unwrap();
    assert_eq!(fixture.cases.len(), 6);
    for case in &fixture.cases {
        let (world, config) = (&fixture.worlds[&case.world], case.config());
        let (mut target, batch, environment) = (world.target(&config), world.batch(), world.environment());
        let spec = PolicySpec::new(&environment, &config.policy).unwrap();
        let mut method = algorithm::build(&config, &environment, &spec).unwrap();
        assert_eq!(case.updates.len(), 2);
        for (version, reference) in (0..).zip(&case.updates) {
            let report = method.update(&mut target, &batch, Progress { env_steps: 0, version }).unwrap();
            assert_eq!(report.outcome, Outcome::Applied);
            for (name, reference) in reference {
                let what = format!("{} in the {} world, update {version}: {name}", case.name, case.world);
                let ours = report.metrics.get(name).unwrap_or_else(|| panic!("{what} is missing"));
                match name.as_str() {
                    "value_loss" | "mean_value" | "explained_variance" => {
                        assert_close(ours, *reference, &what)
                    }
                    _ => assert_near(ours, *reference, TOLERANCE, &what),
                }
            }
        }
        for (name, var) in target.parameters().iter() {
            let what = format!("{} in the {} world: {name}", case.name, case.world);
            match name.starts_with("value") {
                true => assert_tensors_close(var, &case.parameters_after[name], &what),
                false => assert_tensors_near(var, &case.parameters_after[name], TOLERANCE, &what),
            }
        }
    }
}
