//! What actor and Python worker tell each other until the copies are ready: a length and JSON.

use std::collections::BTreeMap;

use impresario_common::composite::Composite;
use impresario_common::config::EnvironmentSection;
use impresario_common::space::{ElementType, EnvironmentSpec, Space};
use serde::{Deserialize, Serialize};

/// What the worker shall make.
#[derive(Debug, Serialize)]
pub(super) struct Request<'a> {
    /// Gymnasium's name for the environment.
    pub(super) name: &'a str,
    /// E.
    pub(super) copies: usize,
    /// The run's section on it.
    pub(super) options: &'a EnvironmentSection,
    /// Whether the first copy shall draw itself.
    pub(super) filmed: bool,
}

/// What the worker has made.
#[derive(Debug, Deserialize)]
pub(super) struct Description {
    observation: Described,
    action: Described,
    max_episode_steps: Option<u32>,
    reward_threshold: Option<f64>,
    /// How it steps the copies.
    pub(super) stepping: String,
    /// What its pictures are like, if it draws itself.
    pub(super) picture: Option<Drawn>,
}

/// What pictures are like.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Drawn {
    /// In pixels.
    pub(super) height: usize,
    /// In pixels.
    pub(super) width: usize,
    /// For which one is to be seen.
    pub(super) seconds: f64,
}

/// What the worker could not do.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Told {
    Unsupported {
        message: String,
    },
    /// `old` if Gymnasium says itself what came of it.
    Unknown {
        message: String,
        old: bool,
        known: Vec<String>,
    },
    Missing {
        message: String,
        package: String,
    },
    Exception {
        message: String,
    },
}

/// A space of Gymnasium.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Described {
    Discrete { n: u32 },
    MultiDiscrete { nvec: Vec<u32> },
    Box { low: String, high: String, shape: Vec<usize>, dtype: ElementType },
    Dict { parts: BTreeMap<String, Described> },
    Tuple { parts: Vec<Described> },
}

impl Description {
    /// The environment called `id`.
    ///
    /// # Errors
    /// If the description contradicts itself.
    pub(super) fn spec(self, id: &str) -> Result<EnvironmentSpec, String> {
        let Composite::Leaf(action) = self.action.composite()? else {
            return Err("actions have parts".into());
        };
        let spec = EnvironmentSpec {
            max_episode_steps: self.max_episode_steps,
            solved_return: self.reward_threshold,
            ..EnvironmentSpec::new(id, self.observation.composite()?, action)
        };
        if spec.observation.is_empty() || spec.action.is_empty() {
            return Err(format!(
                "observations {} or actions {} hold no number",
                spec.observation, spec.action
            ));
        }
        Ok(spec)
    }
}

impl Described {
    fn composite(self) -> Result<Composite, String> {
        Ok(match self {
            Self::Discrete { n } => Space::Discrete { n }.into(),
            Self::MultiDiscrete { nvec } => Space::MultiDiscrete { nvec }.into(),
            Self::Box { low, high, shape, dtype } => {
                let (low, high) = (bounds(&low)?, bounds(&high)?);
                let len = shape.iter().try_fold(1usize, |len, &size| len.checked_mul(size));
                if (Some(low.len()), Some(high.len())) != (len, len) {
                    return Err(format!("a box of {shape:?} has {} and {} bounds", low.len(), high.len()));
                }
                Space::Box { low, high, shape, dtype }.into()
            }
            Self::Dict { parts } => {
                let parts = parts.into_iter().map(|(name, part)| Ok((name, part.composite()?)));
                Composite::Dict(parts.collect::<Result<_, String>>()?)
            }
            Self::Tuple { parts } => {
                Composite::Tuple(parts.into_iter().map(Self::composite).collect::<Result<_, _>>()?)
            }
        })
    }
}

/// Bounds from the hexadecimal bytes of little-endian `f32`.
fn bounds(hex: &str) -> Result<Vec<f32>, String> {
    let number = |digits: &[u8]| {
        let digits = std::str::from_utf8(digits).ok()?;
        let bits = u32::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 8)?;
        Some(f32::from_bits(bits.swap_bytes()))
    };
    let numbers: Option<Vec<f32>> = hex.as_bytes().chunks(8).map(number).collect();
    numbers.ok_or_else(|| "bounds are not the bytes of numbers".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_bit_for_bit() {
        assert_eq!(bounds("0000807f000080ff0000c03f").unwrap(), [f32::INFINITY, f32::NEG_INFINITY, 1.5]);
        assert!(bounds("0000807").is_err() && bounds("0000807fxx").is_err());
    }

    #[test]
    fn a_description_that_contradicts_itself_is_refused() {
        let spec = |observation: &str| {
            let json = format!(
                r#"{{"observation": {observation}, "action": {{"type": "discrete", "n": 2}}, "max_episode_steps": null,
                "reward_threshold": null, "stepping": "loop", "picture": null}}"#
            );
            serde_json::from_str::<Description>(&json).unwrap().spec("Thing-v0")
        };
        let boxed = |low: &str| {
            format!(r#"{{"type": "box", "low": "{low}", "high": "0000803f", "shape": [1], "dtype": "f32"}}"#)
        };
        assert_eq!(spec(&boxed("00000000")).unwrap().observation, Space::boxed(&[0.0], &[1.0]));
        assert!(spec(&boxed("0000000000000000")).unwrap_err().contains("2 and 1 bounds"));
        assert!(spec(r#"{"type": "multi_discrete", "nvec": []}"#).unwrap_err().contains("no number"));
    }
}
