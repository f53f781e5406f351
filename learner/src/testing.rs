//! What several unit tests of the learner share: a small environment, configuration and batch.

use impresario_common::config::{OptimizerKind, RunConfig};
use impresario_common::random::{self, Purpose};
use impresario_common::space::{ElementType, EnvironmentSpec, Space};
use impresario_common::unroll::Array;
use rand::RngExt;

use crate::batch::Batch;

/// An environment of three numbers, one of them unbounded, in which `action` is possible.
pub(crate) fn environment(action: Space) -> EnvironmentSpec {
    EnvironmentSpec::new(
        "Test-v0",
        Space::boxed(&[-1.0, f32::NEG_INFINITY, 0.0], &[1.0, f32::INFINITY, 1.0]),
        action,
    )
    .with_max_episode_steps(9)
}

/// A configuration with a tiny network and optimiser `kind`.
pub(crate) fn config(kind: OptimizerKind) -> RunConfig {
    let mut config = RunConfig::default();
    config.policy.hidden = vec![5, 4].into();
    config.policy.policy_gain = 1.0;
    config.optimizer.kind = kind;
    config.optimizer.momentum = 0.5;
    config.learner.max_skipped_updates = 3;
    config
}

/// A batch `[4, 3]` of random experience with every kind of ending, drawn from `seed`.
pub(crate) fn batch(action: &Space, seed: u64) -> Batch {
    let (length, columns) = (4, 3);
    let steps = length * columns;
    let mut random = random::stream(seed, Purpose::Learner, [0; 3]);
    let mut floats =
        |len: usize| -> Vec<f32> { (0..len).map(|_| random.random::<f32>() * 2.0 - 1.0).collect() };
    let observations = Array::F32(floats(((length + 1) * columns + 2) * 3));
    let rewards = floats(steps);
    let behaviour_log_probs = floats(steps).into_iter().map(|x| x - 1.0).collect();
    let actions = match action {
        Space::Box { .. } => Array::F32(floats(steps * action.len())),
        _ => Array::I32(floats(steps * action.len()).into_iter().map(|x| i32::from(x > 0.0)).collect()),
    };
    let mut batch = Batch {
        length,
        columns,
        observations,
        frame_stack: 1,
        history: Array::F32(vec![]),
        actions,
        rewards,
        terminated: vec![0; steps],
        truncated: vec![0; steps],
        behaviour_log_probs,
        final_steps: vec![4, 11],
        action_masks: vec![],
        core_states: vec![],
        policy_versions: vec![0; columns],
    };
    batch.terminated[2] = 1;
    batch.terminated[6] = 1;
    batch.truncated[6] = 1;
    batch.truncated[4] = 1;
    batch.truncated[11] = 1;
    batch
}

/// An environment of images, 6 x 5 pixels in 3 channels of bytes, in which `action` is possible.
pub(crate) fn pixel_environment(action: Space) -> EnvironmentSpec {
    let (low, high) = (vec![0.0; PIXELS], vec![255.0; PIXELS]);
    let observation = Space::Box { low, high, shape: vec![6, 5, 3], dtype: ElementType::U8 };
    EnvironmentSpec { observation, ..environment(action) }
}

/// [`batch`] in such an environment.
pub(crate) fn pixel_batch(action: &Space, seed: u64) -> Batch {
    let batch = batch(action, seed);
    let rows = batch.observations.len() / 3;
    let mut random = random::stream(seed, Purpose::Learner, [1, 0, 0]);
    Batch { observations: Array::U8((0..rows * PIXELS).map(|_| random.random()).collect()), ..batch }
}

/// Numbers of an image.
const PIXELS: usize = 6 * 5 * 3;
