//! One checkpoint as bytes: safetensors whose checksum covers every byte of the file.

use std::collections::HashMap;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use impresario_common::config::RunConfig;
use impresario_common::policy::Weights;
use impresario_common::unroll::Array;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::de::DeserializeOwned;

use super::{Checkpoint, CheckpointError};
use crate::accounting::Accounting;
use crate::optimizer::OptimizerState;
use crate::report::Totals;
use crate::roster::{Rollout, SavedActors};

const FORMAT: &str = "impresario-checkpoint-2";
/// Before there was experience, a roster and rollouts.
const FORMER_FORMAT: &str = "impresario-checkpoint-1";
const POLICY: &str = "policy/";
const OPTIMIZER: &str = "optimizer/";
const ALGORITHM: &str = "algorithm/";
const EXPERIENCE: &str = "experience/";
const ROLLOUT: &str = "rollout/";

/// What stands before the checksum's digits. Unescaped quotes occur in no other value of the header.
const CHECKSUM_KEY: &[u8] = b"\"crc32c\":\"";
const NO_CHECKSUM: &[u8; 8] = b"00000000";

/// Most bytes of a header that is read for its own sake.
const MAX_HEADER: u64 = 64 << 20;

/// A tensor on its way into the file.
struct Plain {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Plain {
    fn tensor(name: String, tensor: &Tensor) -> Result<Self, candle_core::Error> {
        let values = tensor.flatten_all()?.to_vec1::<f32>()?;
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Ok(Self { name, dtype: Dtype::F32, shape: tensor.dims().to_vec(), bytes })
    }

    fn array(name: String, array: &Array) -> Self {
        let (dtype, bytes): (_, Vec<u8>) = match array {
            Array::F32(values) => (Dtype::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect()),
            Array::U8(values) => (Dtype::U8, values.clone()),
            Array::I32(values) => (Dtype::I32, values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        };
        Self { name, dtype, shape: vec![array.len()], bytes }
    }
}

/// The file's bytes.
pub(super) fn encode(checkpoint: &Checkpoint) -> Result<Vec<u8>, CheckpointError> {
    let failed = |e: &dyn std::fmt::Display| CheckpointError::Encode(e.to_string());
    let groups = [
        (POLICY, &checkpoint.weights),
        (OPTIMIZER, &checkpoint.optimizer.moments),
        (ALGORITHM, &checkpoint.algorithm),
    ];
    let named = groups.iter().flat_map(|(group, weights)| weights.0.iter().map(move |named| (group, named)));
    let tensors = named.map(|(group, (name, tensor))| Plain::tensor(format!("{group}{name}"), tensor));
    let mut plain: Vec<Plain> = tensors.collect::<Result<_, _>>().map_err(|e| failed(&e))?;
    let experience = checkpoint.experience.iter();
    plain.extend(experience.map(|(name, array)| Plain::array(format!("{EXPERIENCE}{name}"), array)));
    let rollouts = checkpoint.rollouts.iter().enumerate();
    plain.extend(rollouts.map(|(number, rollout)| {
        let bytes = Array::U8(rollout_bytes(rollout));
        Plain::array(format!("{ROLLOUT}{number:06}"), &bytes)
    }));
    let json = |value: serde_json::Result<String>| value.map_err(|e| failed(&e));
    let metadata = [
        ("format", FORMAT.to_owned()),
        ("run_id", checkpoint.run_id.clone()),
        ("policy_version", checkpoint.policy_version.to_string()),
        ("env_steps", checkpoint.env_steps.to_string()),
        ("optimizer_steps", checkpoint.optimizer.steps.to_string()),
        ("skipped_in_a_row", checkpoint.skipped_in_a_row.to_string()),
        ("environment", toml::to_string(&checkpoint.environment).map_err(|e| failed(&e))?),
        ("config", checkpoint.config.to_toml().map_err(|e| failed(&e))?),
        ("totals", json(serde_json::to_string(&checkpoint.totals))?),
        ("accounting", json(serde_json::to_string(&checkpoint.accounting))?),
        ("actors", json(serde_json::to_string(&checkpoint.actors))?),
        ("crc32c", String::from_utf8_lossy(NO_CHECKSUM).into_owned()),
    ];
    let metadata: HashMap<String, String> =
        metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let views = plain.iter().map(|plain| {
        let view = TensorView::new(plain.dtype, plain.shape.clone(), &plain.bytes)?;
        Ok((plain.name.as_str(), view))
    });
    let views = views.collect::<Result<Vec<_>, safetensors::SafeTensorError>>().map_err(|e| failed(&e))?;
    let mut bytes = safetensors::serialize(views, Some(metadata)).map_err(|e| failed(&e))?;
    let digits = checksum_digits(&bytes).ok_or_else(|| failed(&"its header has no place for a checksum"))?;
    let checksum = format!("{:08x}", crc32c::crc32c(&bytes));
    bytes[digits].copy_from_slice(checksum.as_bytes());
    Ok(bytes)
}

/// Reads what [`encode`] wrote; otherwise says what is wrong.
pub(super) fn decode(bytes: &[u8]) -> Result<Checkpoint, String> {
    verify(bytes)?;
    let invalid = |e: safetensors::SafeTensorError| format!("not safetensors: {e}");
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(invalid)?;
    let tensors = SafeTensors::deserialize(bytes).map_err(invalid)?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let entry = |key: &str| metadata.get(key).ok_or_else(|| format!("its metadata has no {key}"));
    match entry("format")?.as_str() {
        FORMAT | FORMER_FORMAT => {}
        other => return Err(format!("its format is {other}; this version reads {FORMAT}")),
    }
    let mut groups = HashMap::from([POLICY, OPTIMIZER, ALGORITHM].map(|group| (group, Weights::default())));
    let (mut experience, mut rollouts) = (vec![], vec![]);
    for full_name in header.offset_keys() {
        let view = tensors.tensor(&full_name).map_err(invalid)?;
        if let Some(name) = full_name.strip_prefix(EXPERIENCE) {
            experience.push((name.to_owned(), array(&full_name, &view)?));
        } else if let Some(number) = full_name.strip_prefix(ROLLOUT) {
            let rollout = rollout(view.data()).ok_or_else(|| format!("{full_name} is cut short"))?;
            rollouts.push((number.to_owned(), rollout));
        } else {
            let group = groups.iter_mut().find_map(|(group, w)| Some((full_name.strip_prefix(group)?, w)));
            let (name, weights) = group.ok_or_else(|| format!("tensor {full_name} belongs to nothing"))?;
            if view.dtype() != Dtype::F32 {
                return Err(format!("{full_name} is {:?}, expected F32", view.dtype()));
            }
            let tensor = Tensor::from_raw_buffer(view.data(), DType::F32, view.shape(), &Device::Cpu);
            weights.0.push((name.to_owned(), tensor.map_err(|e| format!("{full_name}: {e}"))?));
        }
    }
    rollouts.sort_by(|a, b| a.0.cmp(&b.0));
    let accounting: Accounting = required(&metadata, "accounting")?;
    let mut actors: SavedActors = optional(&metadata, "actors")?;
    if !metadata.contains_key("actors") {
        actors = actors.left(&accounting);
    }
    let mut group = |name| groups.remove(name).unwrap_or_default();
    Ok(Checkpoint {
        run_id: metadata.get("run_id").cloned().unwrap_or_default(),
        policy_version: number(&metadata, "policy_version")?,
        env_steps: number(&metadata, "env_steps")?,
        environment: toml::from_str(entry("environment")?).map_err(|e| format!("environment: {e}"))?,
        config: RunConfig::from_toml(entry("config")?).map_err(|e| e.to_string())?,
        weights: group(POLICY),
        optimizer: OptimizerState { steps: number(&metadata, "optimizer_steps")?, moments: group(OPTIMIZER) },
        algorithm: group(ALGORITHM),
        skipped_in_a_row: optional(&metadata, "skipped_in_a_row")?,
        experience,
        totals: required(&metadata, "totals")?,
        accounting,
        actors,
        rollouts: rollouts.into_iter().map(|(_, rollout)| rollout).collect(),
    })
}

/// Mean return of the last 100 episodes when the checkpoint at `path` was written, if there were as many; from the file's
/// header alone, of which nothing is verified.
pub(super) fn mean_return(path: &Path) -> Option<f64> {
    let mut file = std::fs::File::open(path).ok()?;
    let mut length = [0; 8];
    file.read_exact(&mut length).ok()?;
    let length = u64::from_le_bytes(length);
    let mut header = vec![];
    if length > MAX_HEADER || file.take(length).read_to_end(&mut header).ok()? as u64 != length {
        return None;
    }
    let header: serde_json::Value = serde_json::from_slice(&header).ok()?;
    let totals: Totals = serde_json::from_str(header["__metadata__"]["totals"].as_str()?).ok()?;
    totals.recent.mean_return_100()
}

/// Workers and columns (u32), grant (u64), all little-endian, and the actor's own words.
fn rollout_bytes(rollout: &Rollout) -> Vec<u8> {
    let shape = [rollout.workers, rollout.columns].map(|count| (count as u32).to_le_bytes());
    [&shape.concat()[..], &rollout.grant.to_le_bytes(), &rollout.state].concat()
}

fn rollout(bytes: &[u8]) -> Option<Rollout> {
    let (workers, rest) = bytes.split_first_chunk()?;
    let (columns, rest) = rest.split_first_chunk()?;
    let (grant, state) = rest.split_first_chunk()?;
    Some(Rollout {
        workers: u32::from_le_bytes(*workers) as usize,
        columns: u32::from_le_bytes(*columns) as usize,
        grant: u64::from_le_bytes(*grant),
        state: state.to_vec(),
    })
}

fn array(name: &str, view: &TensorView<'_>) -> Result<Array, String> {
    let data = view.data();
    let words = || data.chunks_exact(4).map(|word| [word[0], word[1], word[2], word[3]]);
    match view.dtype() {
        Dtype::F32 => Ok(Array::F32(words().map(f32::from_le_bytes).collect())),
        Dtype::I32 => Ok(Array::I32(words().map(i32::from_le_bytes).collect())),
        Dtype::U8 => Ok(Array::U8(data.to_vec())),
        other => Err(format!("{name} is {other:?}, expected F32, I32 or U8")),
    }
}

fn number(metadata: &HashMap<String, String>, key: &str) -> Result<u64, String> {
    let value = metadata.get(key).and_then(|value| value.parse().ok());
    value.ok_or_else(|| format!("its metadata has no number {key}"))
}

fn required<T: DeserializeOwned>(metadata: &HashMap<String, String>, key: &str) -> Result<T, String> {
    let text = metadata.get(key).ok_or_else(|| format!("its metadata has no {key}"))?;
    serde_json::from_str(text).map_err(|e| format!("{key}: {e}"))
}

/// What files of the former format do not have.
fn optional<T: DeserializeOwned + Default>(
    metadata: &HashMap<String, String>,
    key: &str,
) -> Result<T, String> {
    if metadata.contains_key(key) { required(metadata, key) } else { Ok(T::default()) }
}

/// Compares the checksum in the header with the one of the bytes.
fn verify(bytes: &[u8]) -> Result<(), String> {
    let digits =
        checksum_digits(bytes).ok_or("its header has no checksum; it is cut short or not a checkpoint")?;
    let checksum = crc32c::crc32c(&bytes[..digits.start]);
    let checksum = crc32c::crc32c_append(checksum, NO_CHECKSUM);
    let checksum = format!("{:08x}", crc32c::crc32c_append(checksum, &bytes[digits.end..]));
    let recorded = String::from_utf8_lossy(&bytes[digits]);
    match recorded == checksum {
        true => Ok(()),
        false => Err(format!(
            "its checksum is {checksum}, but {recorded} was recorded: bytes are missing or changed"
        )),
    }
}

/// Where the checksum's digits stand. The header's length is the file's first eight bytes.
fn checksum_digits(bytes: &[u8]) -> Option<Range<usize>> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let header = rest.get(..usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let key = header.windows(CHECKSUM_KEY.len()).position(|window| window == CHECKSUM_KEY)?;
    let start = length.len() + key + CHECKSUM_KEY.len();
    bytes.get(start..start + NO_CHECKSUM.len()).map(|_| start..start + NO_CHECKSUM.len())
}
