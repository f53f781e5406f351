//! Arrays of an unroll between memory and wire, and the checks of those that come.

use bytes::Bytes;

#[cfg(target_endian = "big")]
compile_error!("arrays travel as the little-endian bytes that they are in memory");

use super::array::Array;
use crate::config::Compression;
use crate::kernels::{all_below, all_finite, elements};
use crate::space::{ElementType, Space};
use crate::wire::{WireError, v1};

/// Neither of the ways of compression.
const AS_IT_IS: i32 = v1::Compression::Unspecified as i32;

/// An array as it is in memory.
pub(super) fn encode(array: &Array, shape: Vec<u32>) -> v1::Tensor {
    match array {
        Array::F32(values) => encode_f32(values, shape),
        Array::U8(values) => encode_u8(values, shape),
        Array::I32(values) => v1::Tensor {
            dtype: v1::ElementType::I32.into(),
            shape,
            data: Bytes::copy_from_slice(bytemuck::cast_slice(values)),
            compression: AS_IT_IS,
        },
    }
}

/// An array, compressed if that makes it smaller.
pub(super) fn encode_compressed(array: &Array, shape: Vec<u32>, compression: Compression) -> v1::Tensor {
    let bytes: &[u8] = match array {
        Array::F32(values) => bytemuck::cast_slice(values),
        Array::U8(values) => values.as_slice(),
        Array::I32(values) => bytemuck::cast_slice(values),
    };
    match compression.compress(bytes) {
        None => encode(array, shape),
        Some(compressed) => v1::Tensor {
            dtype: v1::ElementType::from(array.dtype()).into(),
            shape,
            data: compressed.into(),
            compression: v1::Compression::from(compression).into(),
        },
    }
}

pub(super) fn encode_f32(values: &[f32], shape: Vec<u32>) -> v1::Tensor {
    let data = Bytes::copy_from_slice(bytemuck::cast_slice(values));
    v1::Tensor { dtype: v1::ElementType::F32.into(), shape, data, compression: AS_IT_IS }
}

pub(super) fn encode_u8(values: &[u8], shape: Vec<u32>) -> v1::Tensor {
    let data = Bytes::copy_from_slice(values);
    v1::Tensor { dtype: v1::ElementType::U8.into(), shape, data, compression: AS_IT_IS }
}

/// An array that must have this type and shape, and is not compressed.
pub(super) fn decode(
    field: &str,
    tensor: Option<v1::Tensor>,
    dtype: ElementType,
    shape: &[usize],
) -> Result<Array, WireError> {
    decode_compressed(field, tensor, dtype, shape, Compression::None)
}

/// An array that must have this type and shape, and may be compressed in this way.
pub(super) fn decode_compressed(
    field: &str,
    tensor: Option<v1::Tensor>,
    dtype: ElementType,
    shape: &[usize],
    compression: Compression,
) -> Result<Array, WireError> {
    let tensor = tensor.ok_or_else(|| WireError::field(field, "missing"))?;
    if v1::ElementType::try_from(tensor.dtype) != Ok(dtype.into()) {
        let found = v1::ElementType::try_from(tensor.dtype).map_or("unknown", |d| d.as_str_name());
        return Err(WireError::field(field, format!("element type is {found}, expected {dtype}")));
    }
    if tensor.shape.len() != shape.len() || tensor.shape.iter().zip(shape).any(|(&a, &b)| a as usize != b) {
        return Err(WireError::field(field, format!("shape is {:?}, expected {shape:?}", tensor.shape)));
    }
    let expected = shape.iter().product::<usize>() * dtype.bytes();
    let data = match v1::Compression::try_from(tensor.compression) {
        Ok(v1::Compression::Unspecified) => tensor.data,
        Ok(found) if found == v1::Compression::from(compression) => {
            let bytes = compression.decompress(&tensor.data, expected);
            bytes.map_err(|e| WireError::field(field, e))?.into()
        }
        found => {
            let found = found.map_or("in an unknown way", |found| found.as_str_name());
            return Err(WireError::field(field, format!("compressed as {found}, expected {compression}")));
        }
    };
    if data.len() != expected {
        return Err(WireError::field(field, format!("{} bytes, expected {expected}", data.len())));
    }
    Ok(match dtype {
        ElementType::U8 => Array::U8(owned(data)),
        ElementType::I32 => Array::I32(elements(&data)),
        ElementType::F32 => {
            let values: Vec<f32> = elements(&data);
            finite(field, &values)?;
            Array::F32(values)
        }
    })
}

/// Bytes taken over where nobody shares their memory, and copied where somebody does.
pub(super) fn owned(data: Bytes) -> Vec<u8> {
    let owned = Vec::from(data);
    // The last to go of a frame that held much else must not keep all of it.
    if owned.capacity() / 2 > owned.len() { owned.as_slice().to_vec() } else { owned }
}

pub(super) fn decode_f32(
    field: &str,
    tensor: Option<v1::Tensor>,
    shape: &[usize],
) -> Result<Vec<f32>, WireError> {
    match decode(field, tensor, ElementType::F32, shape)? {
        Array::F32(values) => Ok(values),
        other => Err(WireError::field(field, format!("element type is {}", other.dtype()))),
    }
}

pub(super) fn decode_flags(
    field: &str,
    tensor: Option<v1::Tensor>,
    shape: &[usize],
) -> Result<Vec<u8>, WireError> {
    match decode(field, tensor, ElementType::U8, shape)? {
        // Without an early exit the pass vectorises.
        Array::U8(values) if values.iter().fold(0, |all, &v| all | v) <= 1 => Ok(values),
        _ => Err(WireError::field(field, "a flag is neither 0 nor 1")),
    }
}

pub(super) fn finite(field: &str, values: &[f32]) -> Result<(), WireError> {
    if all_finite(values) {
        return Ok(());
    }
    let index = values.iter().position(|v| !v.is_finite()).unwrap_or(0);
    Err(WireError::field(field, format!("element {index} is {}, not a finite number", values[index])))
}

pub(super) fn check_choices(field: &str, choices: &Array, space: &Space) -> Result<(), WireError> {
    let out_of_range = |index: usize, choice: i32, n: u32| {
        Err(WireError::field(field, format!("element {index} is {choice}, out of range 0..{n}")))
    };
    match (choices, space) {
        (Array::I32(values), Space::Discrete { n }) => {
            if all_below(values, *n) {
                return Ok(());
            }
            match values.iter().position(|&a| a as u32 >= *n) {
                Some(index) => out_of_range(index, values[index], *n),
                None => Ok(()),
            }
        }
        (Array::I32(values), Space::MultiDiscrete { nvec }) => {
            match values.iter().zip(nvec.iter().cycle()).position(|(&a, &n)| a as u32 >= n) {
                Some(index) => out_of_range(index, values[index], nvec[index % nvec.len()]),
                None => Ok(()),
            }
        }
        // A Gaussian policy acts beyond the box, and the environment clips: any finite number is in range.
        _ => Ok(()),
    }
}

/// Refuses masks that leave a choice no legal alternative, and actions that their own masks call illegal.
pub(super) fn check_masks(masks: &[u8], actions: &Array, space: &Space) -> Result<(), WireError> {
    let Array::I32(actions) = actions else { return Ok(()) };
    let mut rest = masks;
    // Without masks there is nothing to look at; with them, there are as many as actions.
    for (at, (&action, &alternatives)) in actions.iter().zip(space.choices().iter().cycle()).enumerate() {
        if rest.is_empty() {
            break;
        }
        let (flags, after) = rest.split_at(alternatives as usize);
        if flags[action as usize] == 0 {
            let problem = match flags.contains(&1) {
                true => format!("action {action}, element {at} of the actions, is illegal by its own mask"),
                false => format!("no alternative is legal for element {at} of the actions"),
            };
            return Err(WireError::field("action_masks", problem));
        }
        rest = after;
    }
    Ok(())
}
