//! Cost of whole updates: forward, V-trace, backward, clipping, optimiser step, on one thread.
//!
//! `cargo bench -p impresario-learner --bench update`. The setting is one that other frameworks can be timed
//! in: T 20 x B 32 steps, observations `[4]`, a 64-64 tanh network with two actions and a value, RMSProp,
//! gradients clipped to norm 40. `snapshot` is what publishing the result costs the trainer.

use divan::Bencher;
use impresario_common::config::{AlgorithmConfig, ImpalaConfig, LossReduction, OptimizerKind, RunConfig};
use impresario_common::space::{EnvironmentSpec, Space};
use impresario_common::unroll::Array;
use impresario_learner::batch::Batch;
use impresario_learner::trainer::Trainer;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const T: usize = 20;
const B: usize = 32;

fn main() {
    impresario_common::process::limit_threads(1);
    divan::main();
}

#[divan::bench(sample_count = 500, sample_size = 5)]
fn impala(bencher: Bencher<'_, '_>) {
    let (mut trainer, batch) = (trainer(), batch());
    bencher.bench_local(|| trainer.train(&batch, 0));
}

#[divan::bench(sample_count = 500, sample_size = 5)]
fn snapshot(bencher: Bencher<'_, '_>) {
    let trainer = trainer();
    bencher.bench_local(|| trainer.snapshot());
}

fn trainer() -> Trainer {
    let mut config = RunConfig::default();
    let impala = ImpalaConfig { loss_reduction: LossReduction::Sum, ..ImpalaConfig::default() };
    config.algorithm = AlgorithmConfig::Impala(impala);
    config.optimizer.kind = OptimizerKind::RmsProp;
    config.optimizer.learning_rate = 4.8e-4;
    config.optimizer.epsilon = 0.01;
    config.optimizer.max_grad_norm = 40.0;
    let environment = EnvironmentSpec {
        id: "Benchmark-v0".into(),
        observation: Space::boxed(&[-1.0; 4], &[1.0; 4]),
        action: Space::Discrete { n: 2 },
        max_episode_steps: None,
        solved_return: None,
        masks_actions: false,
    };
    Trainer::new(&config, &environment).expect("there is a policy for these spaces")
}

fn batch() -> Batch {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut uniform =
        |len: usize| -> Vec<f32> { (0..len).map(|_| random.random::<f32>() * 2.0 - 1.0).collect() };
    Batch {
        length: T,
        columns: B,
        observations: Array::F32(uniform((T + 1) * B * 4)),
        actions: Array::I32(uniform(T * B).into_iter().map(|x| i32::from(x > 0.0)).collect()),
        rewards: uniform(T * B),
        terminated: vec![0; T * B],
        truncated: vec![0; T * B],
        behaviour_log_probs: vec![-0.7; T * B],
        final_steps: vec![],
        action_masks: vec![],
        core_states: vec![],
        policy_versions: vec![0; B],
    }
}
