//! Cost of whole updates: forward, V-trace, backward, clipping, optimiser step, on one thread.
//!
//! `cargo bench -p impresario-learner --bench update`. The setting is one that other frameworks can be timed
//! in: T 20 x B 32 steps, observations `[4]`, a 64-64 tanh network with two actions and a value, RMSProp,
//! gradients clipped to norm 40; `impala_with_memory` puts a core of H outputs between network and heads. `snapshot` is
//! what publishing the result costs the trainer.

use divan::Bencher;
use impresario_common::config::{
    AlgorithmConfig, CoreKind, ImpalaConfig, LossReduction, OptimizerKind, RunConfig,
};
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
    let (mut trainer, batch) = (trainer(CoreKind::None, 0), batch(0));
    bencher.bench_local(|| trainer.train(&batch, 0));
}

#[divan::bench(sample_count = 100, sample_size = 5, args = [("lstm", 64), ("lstm", 256), ("gru", 64), ("gru", 256)])]
fn impala_with_memory(bencher: Bencher<'_, '_>, (core, size): (&str, usize)) {
    let (core, state_len) = match core {
        "lstm" => (CoreKind::Lstm, 2 * size),
        _ => (CoreKind::Gru, size),
    };
    let (mut trainer, batch) = (trainer(core, size), batch(state_len));
    bencher.bench_local(|| trainer.train(&batch, 0));
}

#[divan::bench(sample_count = 500, sample_size = 5)]
fn snapshot(bencher: Bencher<'_, '_>) {
    let trainer = trainer(CoreKind::None, 0);
    bencher.bench_local(|| trainer.snapshot());
}

fn trainer(core: CoreKind, core_size: usize) -> Trainer {
    let mut config = RunConfig::default();
    config.policy.core = core;
    config.policy.core_size = core_size;
    let impala = ImpalaConfig { loss_reduction: LossReduction::Sum, ..ImpalaConfig::default() };
    config.algorithm = AlgorithmConfig::Impala(impala);
    config.optimizer.kind = OptimizerKind::RmsProp;
    config.optimizer.learning_rate = 4.8e-4;
    config.optimizer.epsilon = 0.01;
    config.optimizer.max_grad_norm = 40.0;
    let environment =
        EnvironmentSpec::new("Benchmark-v0", Space::boxed(&[-1.0; 4], &[1.0; 4]), Space::Discrete { n: 2 });
    Trainer::new(&config, &environment).expect("there is a policy for these spaces")
}

fn batch(state_len: usize) -> Batch {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut uniform =
        |len: usize| -> Vec<f32> { (0..len).map(|_| random.random::<f32>() * 2.0 - 1.0).collect() };
    Batch {
        length: T,
        columns: B,
        observations: Array::F32(uniform((T + 1) * B * 4)),
        frame_stack: 1,
        history: Array::F32(vec![]),
        actions: Array::I32(uniform(T * B).into_iter().map(|x| i32::from(x > 0.0)).collect()),
        rewards: uniform(T * B),
        terminated: vec![0; T * B],
        truncated: vec![0; T * B],
        behaviour_log_probs: vec![-0.7; T * B],
        final_steps: vec![],
        action_masks: vec![],
        core_states: vec![0.1; B * state_len],
        policy_versions: vec![0; B],
    }
}
