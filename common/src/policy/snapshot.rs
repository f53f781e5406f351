//! [`Snapshot`]: one version of the weights, immutable, and its way to and from the wire.
//!
//! The encoding is safetensors, so that a client in any language can read it; the version stands in its
//! metadata. Checkpoints use the same encoding.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::error::PolicyError;

/// Name of the metadata entry that holds the version.
const VERSION_KEY: &str = "policy_version";

/// Named tensors in the policy's own order.
#[derive(Debug, Clone, Default)]
pub struct Weights(pub Vec<(String, Tensor)>);

impl Weights {
    /// The tensor called `name`.
    ///
    /// # Errors
    /// If there is none, or its shape is not `shape`.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor, PolicyError> {
        let tensor = self
            .0
            .iter()
            .find_map(|(n, tensor)| (n == name).then_some(tensor))
            .ok_or_else(|| PolicyError::Weights(format!("there is no tensor {name}")))?;
        if tensor.dims() != shape {
            return Err(PolicyError::Weights(format!(
                "{name} has shape {:?}, expected {shape:?}",
                tensor.dims()
            )));
        }
        Ok(tensor.clone())
    }

    /// Numbers in all tensors together.
    pub fn elements(&self) -> usize {
        self.0.iter().map(|(_, tensor)| tensor.elem_count()).sum()
    }

    /// The same weights on `device`; where they are there already they share their storage.
    ///
    /// # Errors
    /// If they cannot be copied there.
    pub fn on(&self, device: &Device) -> Result<Self, PolicyError> {
        let there = |(name, tensor): &(String, Tensor)| Ok((name.clone(), tensor.to_device(device)?));
        Ok(Self(self.0.iter().map(there).collect::<Result<_, PolicyError>>()?))
    }

    /// A deep copy on the CPU that shares no storage with `self`.
    ///
    /// # Errors
    /// If a tensor cannot be read.
    pub fn copied(&self) -> Result<Self, PolicyError> {
        let copy = |(name, tensor): &(String, Tensor)| {
            let tensor = tensor.detach().force_contiguous()?.copy()?;
            Ok((name.clone(), tensor.to_device(&Device::Cpu)?))
        };
        Ok(Self(self.0.iter().map(copy).collect::<Result<_, PolicyError>>()?))
    }
}

/// One version of the weights. Never changed after it is made.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Updates applied to the policy.
    pub version: u64,
    /// The weights.
    pub weights: Weights,
}

impl Snapshot {
    /// The encoding for wire and disk.
    ///
    /// # Errors
    /// If a tensor cannot be read.
    pub fn encode(&self) -> Result<Vec<u8>, PolicyError> {
        let metadata = HashMap::from([(VERSION_KEY.to_owned(), self.version.to_string())]);
        encode_tensors(&self.weights, metadata)
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// If the bytes are not such an encoding.
    pub fn decode(bytes: &[u8]) -> Result<Self, PolicyError> {
        let (weights, metadata) = decode_tensors(bytes)?;
        let version = metadata
            .get(VERSION_KEY)
            .and_then(|v| v.parse().ok())
            .ok_or_else(|| PolicyError::Weights("the encoding does not say its policy version".into()))?;
        Ok(Self { version, weights })
    }
}

/// Encodes `f32` tensors and metadata as safetensors.
///
/// # Errors
/// If a tensor cannot be read.
pub fn encode_tensors(weights: &Weights, metadata: HashMap<String, String>) -> Result<Vec<u8>, PolicyError> {
    let raw = |tensor: &Tensor| -> Result<Vec<u8>, PolicyError> {
        let values = tensor.flatten_all()?.to_vec1::<f32>()?;
        Ok(bytemuck::cast_slice(&values).to_vec())
    };
    let data = weights.0.iter().map(|(_, tensor)| raw(tensor)).collect::<Result<Vec<_>, _>>()?;
    let views = weights
        .0
        .iter()
        .zip(&data)
        .map(|((name, tensor), data)| {
            let view = TensorView::new(Dtype::F32, tensor.dims().to_vec(), data)
                .map_err(|e| PolicyError::Weights(format!("{name}: {e}")))?;
            Ok((name.as_str(), view))
        })
        .collect::<Result<Vec<_>, PolicyError>>()?;
    safetensors::serialize(views, Some(metadata)).map_err(|e| PolicyError::Weights(e.to_string()))
}

/// Reads what [`encode_tensors`] wrote; tensors come sorted as they lie in the file.
///
/// # Errors
/// If the bytes are not safetensors of `f32`.
pub fn decode_tensors(bytes: &[u8]) -> Result<(Weights, HashMap<String, String>), PolicyError> {
    let invalid = |e: safetensors::SafeTensorError| PolicyError::Weights(format!("not safetensors: {e}"));
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(invalid)?;
    let tensors = SafeTensors::deserialize(bytes).map_err(invalid)?;
    let mut weights = Weights::default();
    for name in header.offset_keys() {
        let view = tensors.tensor(&name).map_err(invalid)?;
        if view.dtype() != Dtype::F32 {
            return Err(PolicyError::Weights(format!("{name} is {:?}, expected F32", view.dtype())));
        }
        let tensor = Tensor::from_raw_buffer(view.data(), DType::F32, view.shape(), &Device::Cpu)?;
        weights.0.push((name, tensor));
    }
    Ok((weights, header.metadata().clone().unwrap_or_default()))
}
