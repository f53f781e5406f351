//! The run's configuration: read, defaulted and validated in one place.
//!
//! The learner owns it. Layers are laid over one another, later ones winning: defaults (which depend on
//! the algorithm), a TOML file, command-line flags, `--set key=value`. The result is written to the run
//! directory and sent to every actor that joins.

mod algorithm;
mod environment;
mod flags;
mod policy;
mod ranges;
mod resolve;
mod sections;

pub use algorithm::*;
pub use environment::*;
pub use flags::RunFlags;
pub use policy::*;
pub use resolve::{ConfigError, RUN_CONFIG_FILE};
pub use sections::*;
