//! What Gymnasium's registry holds.

use std::time::Duration;

use serde::Deserialize;

use super::failure::Failure;
use super::interpreter::Interpreter;
use super::link::{Link, Patience};

/// The program that lists it.
const PROGRAM: &str = concat!(include_str!("python/link.py"), "\n\n", include_str!("python/listing.py"));

/// Time that it may take.
const PATIENCE: Patience = Patience { limit: Duration::from_secs(60), key: "the time to list environments" };

/// An environment that is registered.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Listed {
    /// Its name with version.
    pub id: String,
    /// Where it comes from: its namespace, the part of Gymnasium that it is in, or the package.
    pub group: String,
    /// Steps after which an episode is truncated, if there is a limit.
    pub max_episode_steps: Option<u32>,
    /// Mean return that counts as solved, if there is one.
    pub reward_threshold: Option<f64>,
    /// Its newest version, if that is another one.
    pub newer: Option<String>,
}

/// The environments that Gymnasium knows by itself, and the games of `ale_py` where that is installed; in the order in which they
/// were registered. Starts Python, which takes a second.
///
/// # Errors
/// If there is no Python, or no Gymnasium.
pub fn list(interpreter: &Interpreter) -> Result<Vec<Listed>, Failure> {
    Link::start(interpreter, PROGRAM, None, "", PATIENCE)?.ask(&())
}
