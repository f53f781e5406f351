//! From the name and options that a run is configured with to an environment of which copies can be made: a native one, or
//! Gymnasium's.

use impresario_common::config::EnvironmentSection;
use impresario_common::random::Stream;
use impresario_common::space::EnvironmentSpec;

use super::VectorEnvironment;
use super::gymnasium::failure::Failure;
use super::gymnasium::interpreter::{Interpreter, PythonFlag};
use super::gymnasium::listing::{self, Listed};
use super::gymnasium::{self, GymnasiumEnvironment};
use super::measure::Measure;
use super::registry::{MakeVectorError, Registry, UnknownEnvironment};

/// All environments there are: native ones, and those of a Python with Gymnasium.
#[derive(Debug, Clone)]
pub struct Environments {
    native: Registry,
    interpreter: Interpreter,
}

impl Environments {
    /// The native environments of `native`, and Gymnasium's.
    pub fn new(native: Registry, python: &PythonFlag) -> Self {
        Self { native, interpreter: Interpreter::choose(python) }
    }

    /// The native ones.
    pub fn native(&self) -> &Registry {
        &self.native
    }

    /// Gymnasium's, as far as they need no module to be named. Starts Python, which takes a second.
    ///
    /// # Errors
    /// If there is no Python, or no Gymnasium.
    pub fn of_gymnasium(&self) -> Result<Vec<Listed>, Failure> {
        listing::list(&self.interpreter)
    }

    /// The native environment of that name if there is one, and Gymnasium's otherwise or if it is asked for by `gym:`.
    /// For the latter a Python process is started, which takes seconds.
    ///
    /// # Errors
    /// If there is no such environment, it does not take the options, or Python cannot be started.
    pub fn find(&self, options: &EnvironmentSection) -> Result<Source, SourceError> {
        let id = options.id.as_str();
        let native = match self.native.spec(id) {
            Ok(spec) => {
                refuse_options(options)?;
                return Ok(Source::Native { registry: self.native.clone(), spec: Box::new(spec.clone()) });
            }
            Err(unknown) => unknown,
        };
        let found = GymnasiumEnvironment::look_up(self.interpreter.clone(), options);
        found.map(Source::Gymnasium).map_err(|failure| {
            let nobody_knows = matches!(failure, Failure::Unknown { .. }) || failure.precedes_gymnasium();
            let failure = Box::new(failure);
            // A name of this form is Gymnasium's for certain.
            if !nobody_knows || id.contains([':', '/']) {
                return SourceError::Gymnasium { id: id.into(), failure };
            }
            SourceError::Unknown { native: Box::new(native), failure }
        })
    }
}

/// Native environments have no use for what is said to Gymnasium.
fn refuse_options(options: &EnvironmentSection) -> Result<(), SourceError> {
    let given = [
        ("kwargs", !options.kwargs.is_empty()),
        ("wrappers", !options.wrappers.is_empty()),
        ("max_episode_steps", options.max_episode_steps > 0),
    ];
    match given.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((key, _)) => Err(SourceError::NativeOptions { id: options.id.clone(), key }),
    }
}

/// An environment of which copies can be made. Clones are cheap.
#[derive(Debug, Clone)]
pub enum Source {
    /// Of this program.
    Native {
        /// Where it is registered.
        registry: Registry,
        /// Its name, spaces and limits.
        spec: Box<EnvironmentSpec>,
    },
    /// Of Gymnasium.
    Gymnasium(GymnasiumEnvironment),
}

impl Source {
    /// Spaces and limits.
    pub fn spec(&self) -> &EnvironmentSpec {
        match self {
            Self::Native { spec, .. } => spec,
            Self::Gymnasium(environment) => environment.spec(),
        }
    }

    /// What is told of a policy beside its mean return, if anything.
    pub fn measure(&self) -> Option<&Measure> {
        match self {
            Self::Native { registry, spec } => registry.measure(&spec.id).ok().flatten(),
            Self::Gymnasium(_) => None,
        }
    }

    /// How many copies make one game: 1 unless they play one another.
    pub fn players(&self) -> usize {
        match self {
            Self::Native { registry, spec } => registry.players(&spec.id).unwrap_or(1),
            Self::Gymnasium(_) => 1,
        }
    }

    /// Copies, one for each stream; copy `i` draws from `streams[i]`.
    ///
    /// # Errors
    /// If so many copies cannot be divided into games.
    pub fn make_vector(&self, streams: Vec<Stream>) -> Result<Box<dyn VectorEnvironment>, MakeVectorError> {
        match self {
            Self::Native { registry, spec } => registry.make_vector(&spec.id, streams),
            Self::Gymnasium(environment) => Ok(Box::new(environment.vector(streams))),
        }
    }
}

/// Why an environment cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Nobody knows the name, as far as can be told.
    #[error("{native}\nnor can Gymnasium's be had: {failure}")]
    Unknown {
        /// What is known here.
        native: Box<UnknownEnvironment>,
        /// Why Gymnasium does not help.
        failure: Box<Failure>,
    },
    /// Gymnasium cannot make it.
    #[error("cannot make {id} of Gymnasium: {failure}")]
    Gymnasium {
        /// The environment's name.
        id: String,
        /// Why.
        failure: Box<Failure>,
    },
    /// It has options that only Gymnasium's environments take.
    #[error(
        "{id} is a native environment, which takes no environment.{key}; {}{id} is Gymnasium's",
        gymnasium::PREFIX
    )]
    NativeOptions {
        /// The environment's name.
        id: String,
        /// The option.
        key: &'static str,
    },
}
