//! [`Failure`]: what can go wrong with a Python worker, and what to do about it.

use std::time::Duration;

use super::interpreter::Interpreter;
use super::old_names::successor;
use super::protocol::Told;
use crate::env::registry::closest;

/// Why a Python worker is of no use, or no more.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// There is no such interpreter.
    #[error(
        "cannot start Python with {interpreter}: {source}; name an interpreter with --python or IMPRESARIO_PYTHON, or activate a virtual environment"
    )]
    NoPython {
        /// Which one was tried.
        interpreter: Interpreter,
        /// Why it did not start.
        source: std::io::Error,
    },
    /// A package is missing.
    #[error("Python ({interpreter}) lacks a package: {message}\ninstall it with: {pip_line}")]
    MissingPackage {
        /// Where it is missing.
        interpreter: Interpreter,
        /// The module that is missing.
        module: String,
        /// What Python said.
        message: String,
        /// What to type.
        pip_line: String,
    },
    /// Gymnasium knows no such environment.
    #[error("{message}{}", did_you_mean(message, closest))]
    Unknown {
        /// What Gymnasium said.
        message: String,
        /// The known name most like it, if one is like it at all.
        closest: Option<String>,
    },
    /// The name is one of old.
    #[error("{message}{hint}")]
    Old {
        /// What Gymnasium said.
        message: String,
        /// What it is called now, where that is known and not in the message.
        hint: String,
    },
    /// The environment cannot be trained in as it is.
    #[error("{0}")]
    Unsupported(String),
    /// The environment, a wrapper or the worker raised an exception.
    #[error("Python raised an exception:\n{0}")]
    Exception(String),
    /// The process ended by itself.
    #[error("the Python worker {how}; its last words:\n{last_words}")]
    Died {
        /// By which signal or with which status.
        how: String,
        /// The end of its standard error.
        last_words: String,
    },
    /// The process did not answer in time.
    #[error(
        "the Python worker did not answer within {} s ({key}) and was ended; its last words:\n{last_words}",
        limit.as_secs_f64()
    )]
    Hung {
        /// How long it was waited for.
        limit: Duration,
        /// What sets that.
        key: &'static str,
        /// The end of its standard error.
        last_words: String,
    },
    /// The operating system refused memory or sockets, or the worker broke the contract between them.
    #[error("cannot work with the Python worker: {0}")]
    Link(String),
}

/// What Gymnasium does not ask itself already.
fn did_you_mean(message: &str, closest: &Option<String>) -> String {
    match closest {
        Some(name) if !message.contains(name.as_str()) => format!("; did you mean {name:?}?"),
        _ => String::new(),
    }
}

impl Failure {
    /// Whether it leaves open if Gymnasium has an environment of that name.
    pub(crate) fn precedes_gymnasium(&self) -> bool {
        match self {
            Self::NoPython { .. } => true,
            Self::MissingPackage { module, .. } => ["gymnasium", "numpy"].contains(&module.as_str()),
            _ => false,
        }
    }

    /// Whether another worker may do better.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Exception(_) | Self::Died { .. } | Self::Hung { .. })
    }

    /// What a worker told, explained.
    pub(super) fn told(told: Told, name: &str, interpreter: &Interpreter) -> Self {
        match told {
            Told::Unsupported { message } => Self::Unsupported(message),
            Told::Unknown { message, old, known } => {
                let message = first_line(&message);
                match successor(name, &known) {
                    Some(successor) if message.contains(&successor.name) => {
                        Self::Old { message, hint: String::new() }
                    }
                    Some(successor) => Self::Old { message, hint: format!(" {successor}") },
                    None if old => Self::Old { message, hint: String::new() },
                    None => {
                        let closest = closest(name, known.iter().map(String::as_str)).map(Into::into);
                        Self::Unknown { message, closest }
                    }
                }
            }
            Told::Missing { message, package } => Self::MissingPackage {
                pip_line: interpreter.pip_line(requirement(&package)),
                interpreter: interpreter.clone(),
                message: first_line(&message),
                module: package,
            },
            Told::Exception { message } => Self::Exception(message),
        }
    }
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
}

/// What to ask pip for to have a module, or a requirement that was named already.
fn requirement(module: &str) -> &str {
    match module.split('.').next().unwrap_or(module) {
        "" => "gymnasium[all]",
        "numpy" => "gymnasium",
        "Box2D" => "gymnasium[box2d]",
        "mujoco" => "gymnasium[mujoco]",
        "pygame" => "gymnasium[classic-control]",
        "jax" | "jaxlib" | "flax" => "gymnasium[functional]",
        "ale_py" => "ale-py",
        "cv2" => "opencv-python-headless",
        "minatar" => "minatar",
        _ => module,
    }
}
