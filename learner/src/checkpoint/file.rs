//! One checkpoint as bytes: safetensors whose checksum covers every byte of the file.

use std::collections::HashMap;
use std::ops::Range;

use impresario_common::config::RunConfig;
use impresario_common::policy::Weights;
use impresario_common::policy::snapshot::{decode_tensors, encode_tensors};

use super::{Checkpoint, CheckpointError};
use crate::optimizer::OptimizerState;

const FORMAT: &str = "impresario-checkpoint-1";
const POLICY: &str = "policy/";
const OPTIMIZER: &str = "optimizer/";
const ALGORITHM: &str = "algorithm/";

/// What stands before the checksum's digits. Unescaped quotes occur in no other value of the header.
const CHECKSUM_KEY: &[u8] = b"\"crc32c\":\"";
const NO_CHECKSUM: &[u8; 8] = b"00000000";

/// The file's bytes.
pub(super) fn encode(checkpoint: &Checkpoint) -> Result<Vec<u8>, CheckpointError> {
    let failed = |e: &dyn std::fmt::Display| CheckpointError::Encode(e.to_string());
    let groups = [
        (POLICY, &checkpoint.weights),
        (OPTIMIZER, &checkpoint.optimizer.moments),
        (ALGORITHM, &checkpoint.algorithm),
    ];
    let named = |(prefix, weights): (&str, &Weights)| {
        let renamed = |(name, tensor): &(String, _)| (format!("{prefix}{name}"), Clone::clone(tensor));
        weights.0.iter().map(renamed).collect::<Vec<_>>()
    };
    let tensors = Weights(groups.into_iter().flat_map(named).collect());
    let metadata = [
        ("format", FORMAT.to_owned()),
        ("policy_version", checkpoint.policy_version.to_string()),
        ("env_steps", checkpoint.env_steps.to_string()),
        ("optimizer_steps", checkpoint.optimizer.steps.to_string()),
        ("environment", toml::to_string(&checkpoint.environment).map_err(|e| failed(&e))?),
        ("config", checkpoint.config.to_toml().map_err(|e| failed(&e))?),
        ("totals", serde_json::to_string(&checkpoint.totals).map_err(|e| failed(&e))?),
        ("accounting", serde_json::to_string(&checkpoint.accounting).map_err(|e| failed(&e))?),
        ("crc32c", String::from_utf8_lossy(NO_CHECKSUM).into_owned()),
    ];
    let metadata = metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let mut bytes = encode_tensors(&tensors, metadata).map_err(|e| failed(&e))?;
    let digits = checksum_digits(&bytes).ok_or_else(|| failed(&"its header has no place for a checksum"))?;
    let checksum = format!("{:08x}", crc32c::crc32c(&bytes));
    bytes[digits].copy_from_slice(checksum.as_bytes());
    Ok(bytes)
}

/// Reads what [`encode`] wrote; otherwise says what is wrong.
pub(super) fn decode(bytes: &[u8]) -> Result<Checkpoint, String> {
    verify(bytes)?;
    let (tensors, metadata) = decode_tensors(bytes).map_err(|e| e.to_string())?;
    let entry = |key: &str| metadata.get(key).ok_or_else(|| format!("its metadata has no {key}"));
    match entry("format")?.as_str() {
        FORMAT => {}
        other => return Err(format!("its format is {other}; this version reads {FORMAT}")),
    }
    let mut groups = HashMap::from([POLICY, OPTIMIZER, ALGORITHM].map(|group| (group, Weights::default())));
    for (name, tensor) in tensors.0 {
        let group = groups.iter_mut().find_map(|(group, weights)| Some((name.strip_prefix(group)?, weights)));
        let (name, weights) = group.ok_or_else(|| format!("tensor {name} belongs to nothing"))?;
        weights.0.push((name.to_owned(), tensor));
    }
    let mut group = |name| groups.remove(name).unwrap_or_default();
    Ok(Checkpoint {
        policy_version: number(&metadata, "policy_version")?,
        env_steps: number(&metadata, "env_steps")?,
        environment: toml::from_str(entry("environment")?).map_err(|e| format!("environment: {e}"))?,
        config: RunConfig::from_toml(entry("config")?).map_err(|e| e.to_string())?,
        weights: group(POLICY),
        optimizer: OptimizerState { steps: number(&metadata, "optimizer_steps")?, moments: group(OPTIMIZER) },
        algorithm: group(ALGORITHM),
        totals: serde_json::from_str(entry("totals")?).map_err(|e| format!("totals: {e}"))?,
        accounting: serde_json::from_str(entry("accounting")?).map_err(|e| format!("accounting: {e}"))?,
    })
}

fn number(metadata: &HashMap<String, String>, key: &str) -> Result<u64, String> {
    let value = metadata.get(key).and_then(|value| value.parse().ok());
    value.ok_or_else(|| format!("its metadata has no number {key}"))
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
