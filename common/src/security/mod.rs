//! Who may talk to whom: the token that a learner and its actors share, and TLS as a client of a learner speaks it.
//!
//! # Layout
//!
//! * [`token`]: the shared token; from a file or the environment, never from a command line, never shown.
//! * [`client`]: the flags of whoever calls a learner, and what they come to.
//! * [`trouble`]: what went wrong between two sides that do not fit, in words.
//! * [`pem`]: certificates and keys from files.
//!
//! The learner's side is in its own package, `access`.

pub mod client;
pub mod pem;
pub mod token;
pub mod trouble;

pub use client::{Bearer, ClientFlags, ClientSecurity};
pub use token::{Token, TokenFlag};

use std::path::PathBuf;

/// Something that security is made of and that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// A file cannot be read.
    #[error("cannot read {flag} {}: {source}", path.display())]
    Read {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{flag} {}: {problem}", path.display())]
    Content {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is missing or wrong; never the content itself.
        problem: String,
    },
    /// The token in the environment cannot be used.
    #[error("IMPRESARIO_TOKEN: {0}")]
    Variable(String),
    /// Flags that do not go together.
    #[error("{0}")]
    Flags(String),
}
