//! Whole updates of A2C, IMPALA, REINFORCE, PPO and APPO against PyTorch: what they report, and the weights after two or more
//! of them, with values as they are and normalised (PopArt). `tests/oracles/torch_policy_gradient.py` wrote the fixture, in `f64`.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod oracle;

use std::collections::{BTreeSet, HashMap};

use impresario_common::config::{AlgorithmConfig, OptimizerKind, OptimizerSection, RunConfig};
use impresario_common::policy::PolicySpec;
use impresario_learner::algorithm::appo::Appo;
use impresario_learner::algorithm::ppo::Ppo;
use impresario_learner::algorithm::{self, Outcome, Progress, TargetPolicy, UpdateReport};
use impresario_learner::batch::Batch;
use oracle::{Parameter, World, assert_close, assert_tensors_close, policy_section};
use serde::Deserialize;

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
    popart: Option<PopArt>,
    optimizer: Knobs,
    run_steps: u64,
    env_steps: u64,
    orders: Vec<Vec<Vec<usize>>>,
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

#[derive(Deserialize)]
struct PopArt {
    value_statistics_step: f32,
    min_value_deviation: f32,
    max_value_deviation: f32,
}

impl Case {
    fn config(&self) -> RunConfig {
        let Knobs { learning_rate, beta1, beta2, epsilon, max_grad_norm } = self.optimizer;
        let mut config = RunConfig {
            policy: policy_section(),
            algorithm: self.algorithm.clone(),
            optimizer: OptimizerSection {
                kind: OptimizerKind::Adam,
                learning_rate,
                beta1,
                beta2,
                epsilon,
                max_grad_norm,
                ..OptimizerSection::default()
            },
            ..RunConfig::default()
        };
        config.run.steps = self.run_steps;
        if let Some(popart) = &self.popart {
            config.policy.normalize_values = true;
            config.policy.value_statistics_step = popart.value_statistics_step;
            config.policy.min_value_deviation = popart.min_value_deviation;
            config.policy.max_value_deviation = popart.max_value_deviation;
        }
        config
    }

    /// Update number `index`, its minibatches dealt as the reference deals them.
    fn update(&self, index: usize, world: &World, target: &mut TargetPolicy, batch: &Batch) -> UpdateReport {
        let config = self.config();
        let progress = Progress { env_steps: self.env_steps, version: index as u64 };
        let mut orders = self.orders[index].iter();
        let mut shuffle = |order: &mut [usize]| order.copy_from_slice(orders.next().unwrap());
        match &self.algorithm {
            AlgorithmConfig::Ppo(knobs) => {
                Ppo::new(knobs, &config).update_in_order(target, batch, progress, &mut shuffle).unwrap()
            }
            AlgorithmConfig::Appo(knobs) => {
                Appo::new(knobs, &config).update_in_order(target, batch, progress, &mut shuffle).unwrap()
            }
            _ => {
                let environment = world.environment();
                let spec = PolicySpec::new(&environment, &config.policy).unwrap();
                let mut method = algorithm::build(&config, &environment, &spec).unwrap();
                method.update(target, batch, progress).unwrap()
            }
        }
    }
}

#[test]
fn updates_are_those_of_pytorch() {
    let fixture: Fixture = serde_json::from_str(include_str!("fixtures/torch_policy_gradient.json")).unwrap();
    let mut methods = BTreeSet::new();
    for case in &fixture.cases {
        let world = &fixture.worlds[&case.world];
        let (mut target, batch) = (world.target(&case.config()), world.batch());
        assert_eq!(case.updates.len(), if case.popart.is_some() { 4 } else { 2 });
        for (index, reference) in case.updates.iter().enumerate() {
            let report = case.update(index, world, &mut target, &batch);
            assert_eq!(report.outcome, Outcome::Applied);
            for (name, reference) in reference {
                let what = format!("{} in the {} world, update {index}: {name}", case.name, case.world);
                let ours = report.metrics.get(name).unwrap_or_else(|| panic!("{what} is missing"));
                assert_close(ours, *reference, &what);
            }
        }
        for (name, var) in target.parameters().iter() {
            let what = format!("{} in the {} world: {name}", case.name, case.world);
            assert_tensors_close(var, &case.parameters_after[name], &what);
        }
        methods.insert((case.algorithm.name(), case.popart.is_some()));
    }
    let with = ["a2c", "appo", "impala", "ppo", "reinforce"].map(|name| (name, true));
    let without = ["a2c", "appo", "ppo", "reinforce"].map(|name| (name, false));
    assert_eq!(methods, with.into_iter().chain(without).collect::<BTreeSet<_>>());
}
