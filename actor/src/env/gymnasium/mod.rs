//! Gymnasium's environments: a bridge to copies that a Python process steps.
//!
//! Each rollout worker has a process of its own, so that neither Python's lock nor its failures reach further. The program of the
//! process is part of this binary (`python/`). Arrays travel in shared memory, and one byte each way over a socket
//! says that they are ready.
//!
//! # Layout
//!
//! - [`interpreter`]: which Python;
//! - `link`, `ears`: a Python process: started, spoken to, listened to, ended;
//! - `process`: a worker, which is one that has copies of an environment and shares memory;
//! - `memory`: what is shared with it;
//! - `protocol`: what is said until the copies are ready, spaces included;
//! - [`failure`], `old_names`: what can go wrong, and what to do about it;
//! - `vector`: the copies as a [`VectorEnvironment`](super::VectorEnvironment);
//! - [`listing`]: what there is;
//! - [`rehearsal`]: all that is read of a worker, without one, for tests;
//! - here: a name and its options, looked up.

mod ears;
pub mod failure;
pub mod interpreter;
mod link;
pub mod listing;
mod memory;
mod old_names;
mod process;
mod protocol;
pub mod rehearsal;
mod vector;

use std::sync::Arc;

use impresario_common::config::EnvironmentSection;
use impresario_common::random::Stream;
use impresario_common::space::EnvironmentSpec;

use failure::Failure;
use interpreter::Interpreter;
use process::{Camera, Process};
use vector::GymnasiumVector;

/// What a name begins with that asks for Gymnasium's environment even where there is a native one.
pub const PREFIX: &str = "gym:";

/// An environment of Gymnasium with its options, looked up once, of which copies can be made.
#[derive(Debug, Clone)]
pub struct GymnasiumEnvironment(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    interpreter: Interpreter,
    options: EnvironmentSection,
    spec: EnvironmentSpec,
}

impl GymnasiumEnvironment {
    /// Starts a Python process that makes one copy of the environment and tells what it is. Takes seconds.
    ///
    /// # Errors
    /// If there is no Python, no such environment, or no form for its spaces.
    pub fn look_up(interpreter: Interpreter, options: &EnvironmentSection) -> Result<Self, Failure> {
        let (_, spec) = Process::start(&interpreter, options, 1, Camera::Off)?;
        tracing::debug!("{} is Gymnasium's, with {}", spec.id, interpreter.path().display());
        Ok(Self(Arc::new(Inner { interpreter, options: options.clone(), spec })))
    }

    /// Its spaces and limits.
    pub fn spec(&self) -> &EnvironmentSpec {
        &self.0.spec
    }

    /// Copies of it, one for each stream, from which its seeds are drawn. Their process starts with the first reset.
    pub fn vector(&self, streams: Vec<Stream>) -> GymnasiumVector {
        GymnasiumVector::new(self.clone(), streams)
    }
}

/// The name by which Gymnasium knows `id`.
fn name(id: &str) -> &str {
    id.strip_prefix(PREFIX).unwrap_or(id)
}
