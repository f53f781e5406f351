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

/// Numbers that an observation or an action may have, one-hot codes of choices included: as many as the learner accepts.
const MAX_NUMBERS: usize = 1 << 24;

/// Pixels of a picture along either side: more than any screen has.
const MAX_PIXELS: usize = 1 << 14;

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
    /// Height and width of its pictures; nothing if it does not draw itself.
    pub(super) fn picture_size(&self) -> [usize; 2] {
        self.picture.map_or([0; 2], |drawn| [drawn.height, drawn.width])
    }

    /// The environment called `id`.
    ///
    /// # Errors
    /// If the description contradicts itself.
    pub(super) fn spec(self, id: &str) -> Result<EnvironmentSpec, String> {
        if let Some(Drawn { height, width, seconds }) = self.picture
            && !(height.max(width) <= MAX_PIXELS && (0.0..f64::MAX).contains(&seconds))
        {
            return Err(format!("pictures of {width} x {height} pixels for {seconds} s"));
        }
        for (what, space) in [("observations", &self.observation), ("actions", &self.action)] {
            if space.numbers().is_none_or(|numbers| numbers > MAX_NUMBERS) {
                return Err(format!("{what} of more than {MAX_NUMBERS} numbers, one for each alternative"));
            }
        }
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
    /// Numbers in an element, one-hot codes of choices included; `None` if they cannot be counted.
    fn numbers(&self) -> Option<usize> {
        fn sum(mut parts: impl Iterator<Item = Option<usize>>) -> Option<usize> {
            parts.try_fold(0usize, |sum, numbers| sum.checked_add(numbers?))
        }
        match self {
            Self::Discrete { n } => Some(*n as usize),
            Self::MultiDiscrete { nvec } => sum(nvec.iter().map(|&n| Some(n as usize))),
            Self::Box { shape, .. } => shape.iter().try_fold(1usize, |len, &size| len.checked_mul(size)),
            Self::Dict { parts } => sum(parts.values().map(Self::numbers)),
            Self::Tuple { parts } => sum(parts.iter().map(Self::numbers)),
        }
    }

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
        let code = r#"{"type": "tuple", "parts": [{"type": "discrete", "n": 4000000000}]}"#;
        assert!(spec(code).unwrap_err().contains("observations of more than 16777216 numbers"));
        let boundless =
            r#"{"type": "box", "low": "", "high": "", "shape": [4294967296, 4294967296], "dtype": "u8"}"#;
        assert!(spec(boundless).unwrap_err().contains("observations of more than"));
    }

    #[test]
    fn pictures_that_no_screen_has_are_refused() {
        let drawn = |height: usize, seconds: &str| {
            let space = r#"{"type": "discrete", "n": 2}"#;
            let json = format!(
                r#"{{"observation": {space}, "action": {space}, "max_episode_steps": null, "reward_threshold": null,
                "stepping": "loop", "picture": {{"height": {height}, "width": 2, "seconds": {seconds}}}}}"#
            );
            serde_json::from_str::<Description>(&json).unwrap().spec("Thing-v0")
        };
        assert!(drawn(400, "0.02").is_ok());
        assert!(drawn(usize::MAX, "0.02").unwrap_err().contains("pictures of 2 x"));
        assert!(drawn(400, "-1").unwrap_err().contains("for -1 s"));
    }
}
