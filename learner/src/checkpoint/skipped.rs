//! Batches whose update was skipped, kept so that somebody can find out why.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use impresario_common::unroll::Array;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::CheckpointError;
use super::store::write_atomically;
use crate::batch::Batch;

/// Writes `batch` to `skipped-<version>.safetensors` in `run_dir`; returns its path.
///
/// Tensors bear the names of [`Batch`]'s fields; all are flat but those of `[T, B]`, and integers that name
/// steps and versions are `I64`.
pub(super) fn save(run_dir: &Path, version: u64, batch: &Batch) -> Result<PathBuf, CheckpointError> {
    let path = run_dir.join(format!("skipped-{version}.safetensors"));
    write_atomically(&path, &encode(batch).map_err(|e| CheckpointError::Encode(e.to_string()))?)?;
    Ok(path)
}

fn encode(batch: &Batch) -> Result<Vec<u8>, safetensors::SafeTensorError> {
    let floats = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    let array = |array: &Array| match array {
        Array::F32(values) => (Dtype::F32, floats(values)),
        Array::U8(values) => (Dtype::U8, values.clone()),
        Array::I32(values) => (Dtype::I32, values.iter().flat_map(|v| v.to_le_bytes()).collect()),
    };
    let integers = |values: &mut dyn Iterator<Item = u64>| {
        (Dtype::I64, values.flat_map(|v| (v as i64).to_le_bytes()).collect::<Vec<_>>())
    };
    let steps = vec![batch.length, batch.columns];
    let flat = |len: usize| vec![len];
    let final_steps = integers(&mut batch.final_steps.iter().map(|&step| step as u64));
    let versions = integers(&mut batch.policy_versions.iter().copied());
    let data = [
        ("observations", flat(batch.observations.len()), array(&batch.observations)),
        ("history", flat(batch.history.len()), array(&batch.history)),
        ("actions", flat(batch.actions.len()), array(&batch.actions)),
        ("rewards", steps.clone(), (Dtype::F32, floats(&batch.rewards))),
        ("terminated", steps.clone(), (Dtype::U8, batch.terminated.clone())),
        ("truncated", steps.clone(), (Dtype::U8, batch.truncated.clone())),
        ("behaviour_log_probs", steps, (Dtype::F32, floats(&batch.behaviour_log_probs))),
        ("final_steps", flat(batch.final_steps.len()), final_steps),
        ("action_masks", flat(batch.action_masks.len()), (Dtype::U8, batch.action_masks.clone())),
        ("core_states", flat(batch.core_states.len()), (Dtype::F32, floats(&batch.core_states))),
        ("policy_versions", flat(batch.policy_versions.len()), versions),
    ];
    let views = data
        .iter()
        .map(|(name, shape, (dtype, bytes))| Ok((*name, TensorView::new(*dtype, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    safetensors::serialize(views, None::<HashMap<String, String>>)
}
