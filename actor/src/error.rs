//! Why an actor ends without having finished.

use impresario_common::policy::PolicyError;
use impresario_common::security::SecurityError;

use crate::env::registry::MakeVectorError;
use crate::env::source::SourceError;

/// What ended an actor.
#[derive(Debug, thiserror::Error)]
pub enum ActorError {
    /// The learner's address cannot be used.
    #[error(
        "{url:?} is not the address of a learner: {problem}; write --learner http://HOST:PORT or https://HOST:PORT"
    )]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A flag or file of TLS or the token cannot be used.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// The security of the two sides does not fit.
    #[error("this actor and the learner at {url} do not get together: {problem}")]
    Untrusted {
        /// The learner's address.
        url: String,
        /// What does not fit, and what to change.
        problem: String,
    },
    /// Copies cannot be divided among workers.
    #[error(
        "{envs} environment copies cannot be divided evenly among {workers} workers; choose --envs (a multiple \
         of the workers, at least 1) or --workers"
    )]
    Division {
        /// Environment copies.
        envs: usize,
        /// Workers.
        workers: usize,
    },
    /// The learner stayed away for too long.
    #[error("gave up after {seconds:.0} s without the learner at {url}: {problem}")]
    GaveUp {
        /// The learner's address.
        url: String,
        /// How long the actor kept trying.
        seconds: f64,
        /// Why the last attempt failed.
        problem: String,
    },
    /// The learner speaks another version of the protocol.
    #[error(
        "the learner at {url} speaks version {learner} of the protocol and this actor version {actor}; run the \
         same release on both sides"
    )]
    Protocol {
        /// The learner's address.
        url: String,
        /// The learner's version.
        learner: u32,
        /// This actor's version.
        actor: u32,
    },
    /// The learner does not want this actor.
    #[error("the learner at {url} refused this actor: {message}")]
    Refused {
        /// The learner's address.
        url: String,
        /// The learner's reason.
        message: String,
    },
    /// The run's configuration is of no use to this actor.
    #[error("the learner's configuration cannot be used: {0}")]
    Configuration(String),
    /// The run's environment cannot be had here.
    #[error("the run's environment is not available here: {0}")]
    Environment(#[from] SourceError),
    /// The copies of the run's environment cannot be made here.
    #[error(transparent)]
    Copies(#[from] MakeVectorError),
    /// The policy cannot be built here, or the weights received do not fit it.
    #[error("the run's policy cannot act here: {0}")]
    Policy(#[from] PolicyError),
    /// The learner's messages contradict the contract or one another.
    #[error("the learner broke the contract: {0}")]
    Contract(String),
    /// A rollout worker failed.
    #[error("rollout worker {worker} failed: {message}")]
    Worker {
        /// Which, from 0.
        worker: usize,
        /// Why.
        message: String,
    },
    /// No thread could be started.
    #[error("cannot start a thread for rollout worker {worker}: {source}")]
    Thread {
        /// Which, from 0.
        worker: usize,
        /// Why.
        source: std::io::Error,
    },
}
