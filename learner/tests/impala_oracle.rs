//! Whole IMPALA updates against PyTorch: losses, the gradient of every parameter, its norm, and the weights
//! after three updates with RMSProp. `tests/oracles/torch_impala.py` wrote the fixture, in `f64`, and
//! `torch_impala_memory.py` those of policies with memory.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod oracle;

use std::collections::HashMap;

use impresario_common::config::{
    AlgorithmConfig, CoreKind, ImpalaConfig, LossReduction, OptimizerKind, PolicySection, RunConfig, Schedule,
};
use impresario_learner::algorithm::impala::Impala;
use impresario_learner::algorithm::{Algorithm, Metrics, Outcome, Progress};
use oracle::{Parameter, World, assert_close, assert_tensors_close, policy_section};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    #[serde(flatten)]
    world: World,
    cases: Vec<Case>,
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
    /// One for each kind of core.
    fn all() -> [(CoreKind, Self); 3] {
        [
            (CoreKind::None, include_str!("fixtures/torch_impala.json"), 5),
            (CoreKind::Lstm, include_str!("fixtures/torch_impala_lstm.json"), 2),
            (CoreKind::Gru, include_str!("fixtures/torch_impala_gru.json"), 2),
        ]
        .map(|(core, text, cases)| {
            let fixture: Self = serde_json::from_str(text).unwrap();
            assert_eq!(fixture.cases.len(), cases);
            (core, fixture)
        })
    }
}

impl Knobs {
    fn run_config(&self, core: CoreKind) -> RunConfig {
        let mut config = RunConfig {
            policy: PolicySection { core, core_size: 5, ..policy_section() },
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
            entropy_schedule: Schedule::Constant,
            final_entropy_cost: 0.0,
            reward_clip: self.reward_clip.unwrap_or(0.0),
        }
    }
}

const START: Progress = Progress { env_steps: 0, version: 0 };

#[test]
fn gradients_are_those_of_pytorch() {
    let fixtures = Fixture::all();
    for (core, fixture, case) in
        fixtures.iter().flat_map(|(c, f)| f.cases.iter().map(move |case| (*c, f, case)))
    {
        let target = fixture.world.target(&case.config.run_config(core));
        let mut impala = Impala::new(&case.config.impala(), &RunConfig::default());
        let (_, loss) = impala.loss(&target, &fixture.world.batch(), START, &mut Metrics::default()).unwrap();
        let gradients = loss.backward().unwrap();
        for (name, var) in target.parameters().iter() {
            let what = format!("{core:?}, {}: gradient of {name}", case.name);
            assert_tensors_close(gradients.get(var).expect(&what), &case.gradients[name], &what);
        }
    }
}

#[test]
fn three_updates_are_those_of_pytorch() {
    let fixtures = Fixture::all();
    for (core, fixture, case) in
        fixtures.iter().flat_map(|(c, f)| f.cases.iter().map(move |case| (*c, f, case)))
    {
        let batch = fixture.world.batch();
        let mut target = fixture.world.target(&case.config.run_config(core));
        let mut impala = Impala::new(&case.config.impala(), &RunConfig::default());
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
                assert_close(ours, reference, &format!("{core:?}, {}, update {version}: {name}", case.name));
            }
        }
        for (name, var) in target.parameters().iter() {
            assert_tensors_close(
                var,
                &case.parameters_after[name],
                &format!("{core:?}, {}: {name}", case.name),
            );
        }
    }
}
