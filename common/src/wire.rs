//! The wire contract in Rust: generated types, the protocol's constants, and conversions of spaces.
//!
//! Experience has a module of its own ([`crate::unroll`]).

use std::collections::HashSet;

use crate::composite::{Field, Layout};
use crate::space::{ElementType, EnvironmentSpec, Space};

/// Types and clients generated from `proto/impresario.proto`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod v1 {
    tonic::include_proto!("impresario.v1");
}

/// The compiled contract, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/impresario.bin"));

/// Version of the contract; both sides must speak the same.
pub const PROTOCOL_VERSION: u32 = 3;

/// Largest message that either side accepts, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 256 << 20;

/// Largest HTTP/2 frame that either side takes, in bytes. With the usual 16 KiB the system calls and wake-ups of
/// a large message cost more than its bytes; a connection's buffer may grow to this size.
pub const MAX_FRAME_BYTES: u32 = 512 << 10;

/// Name of the gRPC metadata entry that names the [`v1::Refusal`] behind a failed call.
pub const REFUSAL_METADATA: &str = "impresario-refusal";

/// A message that breaks the contract.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct WireError(pub String);

impl WireError {
    /// An error about the field called `field`.
    pub fn field(field: &str, problem: impl std::fmt::Display) -> Self {
        Self(format!("{field}: {problem}"))
    }
}

impl From<ElementType> for v1::ElementType {
    fn from(dtype: ElementType) -> Self {
        match dtype {
            ElementType::F32 => Self::F32,
            ElementType::U8 => Self::U8,
            ElementType::I32 => Self::I32,
        }
    }
}

impl TryFrom<v1::ElementType> for ElementType {
    type Error = WireError;

    fn try_from(dtype: v1::ElementType) -> Result<Self, WireError> {
        match dtype {
            v1::ElementType::F32 => Ok(Self::F32),
            v1::ElementType::U8 => Ok(Self::U8),
            v1::ElementType::I32 => Ok(Self::I32),
            v1::ElementType::Unspecified => Err(WireError("element type is missing or unknown".into())),
        }
    }
}

impl From<&Space> for v1::Space {
    fn from(space: &Space) -> Self {
        let kind = match space {
            Space::Discrete { n } => v1::space::Kind::Discrete(*n),
            Space::MultiDiscrete { nvec } => {
                v1::space::Kind::MultiDiscrete(v1::MultiDiscrete { nvec: nvec.clone() })
            }
            Space::Box { low, high, shape, dtype } => v1::space::Kind::Box(v1::Box {
                low: low.clone(),
                high: high.clone(),
                shape: shape.iter().map(|&d| d as u32).collect(),
                dtype: v1::ElementType::from(*dtype).into(),
            }),
        };
        Self { kind: Some(kind) }
    }
}

/// Largest number of elements that one observation or action may have on the wire.
const MAX_SPACE_ELEMENTS: usize = 1 << 24;

/// Most dimensions of a box, and most choices of a multi-discrete space.
const MAX_DIMENSIONS: usize = 8;
const MAX_CHOICES: usize = 256;

/// Most parts of an observation.
const MAX_PARTS: usize = 1024;

/// Longest name of an environment, and longest path of a part of its observations, in bytes.
const MAX_ID_BYTES: usize = 200;

impl TryFrom<v1::Space> for Space {
    type Error = WireError;

    fn try_from(space: v1::Space) -> Result<Self, WireError> {
        match space.kind {
            None => Err(WireError("space is missing".into())),
            Some(v1::space::Kind::Discrete(0)) => {
                Err(WireError("discrete space without alternatives".into()))
            }
            Some(v1::space::Kind::Discrete(n)) => Ok(Self::Discrete { n }),
            Some(v1::space::Kind::MultiDiscrete(v1::MultiDiscrete { nvec })) => {
                if nvec.len() > MAX_CHOICES {
                    return Err(WireError(format!(
                        "multi-discrete space of {} choices, at most {MAX_CHOICES}",
                        nvec.len()
                    )));
                }
                if nvec.is_empty() || nvec.contains(&0) {
                    return Err(WireError(format!("multi-discrete space with alternatives {nvec:?}")));
                }
                Ok(Self::MultiDiscrete { nvec })
            }
            Some(v1::space::Kind::Box(v1::Box { low, high, shape, dtype })) => {
                let dtype = v1::ElementType::try_from(dtype)
                    .map_err(|_| WireError(format!("box of unknown element type {dtype}")))?
                    .try_into()?;
                if shape.len() > MAX_DIMENSIONS {
                    let dimensions = shape.len();
                    return Err(WireError(format!(
                        "box of {dimensions} dimensions, at most {MAX_DIMENSIONS}"
                    )));
                }
                let elements = shape
                    .iter()
                    .try_fold(1usize, |n, &d| n.checked_mul(d as usize))
                    .filter(|&n| n > 0 && n <= MAX_SPACE_ELEMENTS)
                    .ok_or_else(|| WireError(format!("box of shape {shape:?} is empty or too large")))?;
                if low.len() != elements || high.len() != elements {
                    return Err(WireError(format!(
                        "box of shape {shape:?} needs {elements} bounds, not {} and {}",
                        low.len(),
                        high.len()
                    )));
                }
                if low.iter().zip(&high).any(|(l, h)| l.is_nan() || h.is_nan() || l > h) {
                    return Err(WireError("box whose lower bound exceeds its upper".into()));
                }
                Ok(Self::Box { low, high, shape: shape.iter().map(|&d| d as usize).collect(), dtype })
            }
        }
    }
}

impl From<&EnvironmentSpec> for v1::EnvironmentSpec {
    fn from(spec: &EnvironmentSpec) -> Self {
        Self {
            id: spec.id.clone(),
            observation: Some((&spec.observation).into()),
            action: Some((&spec.action).into()),
            max_episode_steps: spec.max_episode_steps.unwrap_or(0),
            solved_return: spec.solved_return,
            masks_actions: spec.masks_actions,
            layout: spec.layout.iter().flat_map(|layout| layout.fields()).map(Into::into).collect(),
        }
    }
}

impl From<&Field> for v1::Field {
    fn from(field: &Field) -> Self {
        Self { path: field.path.clone(), space: Some((&field.space).into()) }
    }
}

/// The layout of a flat `observation` space; `None` if it has no parts.
fn layout_from(fields: Vec<v1::Field>, observation: &Space) -> Result<Option<Layout>, WireError> {
    const FIELD: &str = "environment.layout";
    if fields.is_empty() {
        return Ok(None);
    }
    if fields.len() > MAX_PARTS {
        return Err(WireError::field(FIELD, format!("{} parts, at most {MAX_PARTS}", fields.len())));
    }
    let mut paths = HashSet::new();
    let mut room = observation.len();
    let part = |v1::Field { path, space }: v1::Field| {
        if path.len() > MAX_ID_BYTES {
            return Err(WireError::field(
                FIELD,
                format!("path of {} bytes, at most {MAX_ID_BYTES}", path.len()),
            ));
        }
        let space: Space = space
            .ok_or_else(|| WireError("space is missing".into()))
            .and_then(TryInto::try_into)
            .map_err(|e| WireError::field(FIELD, format!("part {path:?}: {e}")))?;
        if !paths.insert(path.clone()) {
            return Err(WireError::field(FIELD, format!("two parts have the path {path:?}")));
        }
        // Choices are cheap to name and dear to lay out: nothing is built that the observation has no room for.
        let len = space.flat_len();
        room = room.checked_sub(len).ok_or_else(|| {
            WireError::field(FIELD, format!("part {path:?} lies beyond the observation, {observation}"))
        })?;
        Ok((path, space))
    };
    let layout: Layout = fields.into_iter().map(part).collect::<Result<_, WireError>>()?;
    if layout.space() != *observation {
        let problem = format!("its parts make {}, but observations are {observation}", layout.space());
        return Err(WireError::field(FIELD, problem));
    }
    Ok(Some(layout))
}

impl TryFrom<v1::EnvironmentSpec> for EnvironmentSpec {
    type Error = WireError;

    fn try_from(spec: v1::EnvironmentSpec) -> Result<Self, WireError> {
        let space = |field, space: Option<v1::Space>| {
            space
                .ok_or_else(|| WireError::field(field, "missing"))?
                .try_into()
                .map_err(|e| WireError::field(field, e))
        };
        if spec.id.len() > MAX_ID_BYTES {
            let problem = format!("{} bytes, at most {MAX_ID_BYTES}", spec.id.len());
            return Err(WireError::field("environment.id", problem));
        }
        if let Some(solved) = spec.solved_return.filter(|solved| !solved.is_finite()) {
            let problem = format!("is {solved}, not a finite number; leave it out where there is none");
            return Err(WireError::field("environment.solved_return", problem));
        }
        let action: Space = space("environment.action", spec.action)?;
        if spec.masks_actions && action.alternatives() == 0 {
            let problem = format!("set, but actions of {action} have no alternatives to mask");
            return Err(WireError::field("environment.masks_actions", problem));
        }
        let observation = space("environment.observation", spec.observation)?;
        Ok(Self {
            id: spec.id,
            layout: layout_from(spec.layout, &observation)?,
            observation,
            action,
            max_episode_steps: (spec.max_episode_steps > 0).then_some(spec.max_episode_steps),
            solved_return: spec.solved_return,
            masks_actions: spec.masks_actions,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::composite::Composite;

    #[test]
    fn a_specification_survives_the_wire() {
        let spec = EnvironmentSpec::new(
            "Thing-v0",
            Space::boxed(&[-1.0, f32::NEG_INFINITY], &[1.0, f32::INFINITY]),
            Space::MultiDiscrete { nvec: vec![3, 2] },
        )
        .with_solved_return(9.5)
        .with_masked_actions();
        assert_eq!(EnvironmentSpec::try_from(v1::EnvironmentSpec::from(&spec)).unwrap(), spec);
    }

    /// Joints and gear, one after another.
    fn of_parts() -> EnvironmentSpec {
        let joints = Space::boxed(&[f32::NEG_INFINITY; 2], &[f32::INFINITY; 2]);
        let parts = [("gear", Space::Discrete { n: 3 }.into()), ("joints", joints.into())];
        EnvironmentSpec::new("Parts-v0", Composite::dict(parts), Space::Discrete { n: 2 })
    }

    #[test]
    fn a_layout_survives_the_wire() {
        let spec = of_parts();
        let message = v1::EnvironmentSpec::from(&spec);
        let paths: Vec<_> = message.layout.iter().map(|field| field.path.as_str()).collect();
        assert_eq!(paths, ["gear", "joints"]);
        assert_eq!(EnvironmentSpec::try_from(message).unwrap(), spec);
    }

    #[test]
    fn a_layout_that_is_not_the_observations_is_refused() {
        type Breach = fn(&mut Vec<v1::Field>);
        let breaches: [(Breach, &str); 6] = [
            (|parts| parts[1].path = "gear".into(), "two parts have the path \"gear\""),
            (|parts| parts.swap(0, 1), "its parts make Box"),
            (|parts| parts.truncate(1), "its parts make Box(0..1, [3], f32)"),
            (|parts| parts[0].space = None, "part \"gear\": space is missing"),
            (
                |parts| parts[1].space = Some((&Space::Discrete { n: u32::MAX }).into()),
                "part \"joints\" lies beyond the observation",
            ),
            (|parts| parts.extend(vec![parts[0].clone(); 5000]), "5002 parts, at most 1024"),
        ];
        for (breach, expected) in breaches {
            let mut message = v1::EnvironmentSpec::from(&of_parts());
            breach(&mut message.layout);
            let error = EnvironmentSpec::try_from(message).unwrap_err().to_string();
            assert!(error.starts_with("environment.layout: ") && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn impossible_spaces_are_refused() {
        let empty = v1::Space { kind: Some(v1::space::Kind::Discrete(0)) };
        assert!(Space::try_from(empty).is_err());
        let short = v1::Box { low: vec![0.0], high: vec![1.0], shape: vec![2], dtype: 1 };
        let error = Space::try_from(v1::Space { kind: Some(v1::space::Kind::Box(short)) }).unwrap_err();
        assert!(error.to_string().contains("needs 2 bounds"), "{error}");
        let flat = v1::Box { low: vec![0.0], high: vec![1.0], shape: vec![1; 1 << 20], dtype: 1 };
        let error = Space::try_from(v1::Space { kind: Some(v1::space::Kind::Box(flat)) }).unwrap_err();
        assert!(error.to_string().contains("1048576 dimensions"), "{error}");
        let many = v1::MultiDiscrete { nvec: vec![2; 1 << 20] };
        let error =
            Space::try_from(v1::Space { kind: Some(v1::space::Kind::MultiDiscrete(many)) }).unwrap_err();
        assert!(error.to_string().len() < 100, "{error}");
    }

    #[test]
    fn an_environment_is_solved_at_a_number_masks_choices_only_and_has_a_name_that_can_be_said() {
        let spec = EnvironmentSpec::new("Thing-v0", Space::boxed(&[-1.0], &[1.0]), Space::Discrete { n: 2 })
            .with_solved_return(9.5);
        for solved in [f64::NAN, f64::NEG_INFINITY] {
            let odd = v1::EnvironmentSpec { solved_return: Some(solved), ..(&spec).into() };
            let error = EnvironmentSpec::try_from(odd).unwrap_err().to_string();
            assert!(error.contains("solved_return") && error.contains("not a finite number"), "{error}");
        }
        let masked =
            EnvironmentSpec { action: Space::boxed(&[-1.0], &[1.0]), masks_actions: true, ..spec.clone() };
        let error = EnvironmentSpec::try_from(v1::EnvironmentSpec::from(&masked)).unwrap_err().to_string();
        assert!(error.contains("masks_actions") && error.contains("no alternatives"), "{error}");
        let long = v1::EnvironmentSpec { id: "x".repeat(1 << 20), ..(&spec).into() };
        let error = EnvironmentSpec::try_from(long).unwrap_err().to_string();
        assert!(error.contains("environment.id") && error.len() < 100, "{error}");
    }
}
