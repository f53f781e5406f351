//! Which Python runs Gymnasium's environments.

use std::env;
use std::path::{Path, PathBuf};

/// The flag for the Python interpreter, the same wherever environments are made.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct PythonFlag {
    /// Python interpreter for Gymnasium's environments [default: that of the active virtual environment, or python3]
    #[arg(long, value_name = "PATH", env = "IMPRESARIO_PYTHON")]
    pub python: Option<PathBuf>,
}

/// A Python interpreter, and why it is this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interpreter {
    path: PathBuf,
    chosen_by: &'static str,
}

impl Interpreter {
    /// The interpreter given by `--python` or `IMPRESARIO_PYTHON`, or that of the active virtual environment, or `python3`.
    pub fn choose(flag: &PythonFlag) -> Self {
        Self::among(flag.python.as_deref(), env::var_os("VIRTUAL_ENV").as_deref().map(Path::new))
    }

    fn among(given: Option<&Path>, virtual_environment: Option<&Path>) -> Self {
        let active = virtual_environment.map(|root| root.join("bin/python")).filter(|path| path.exists());
        match (given, active) {
            (Some(path), _) => Self { path: path.into(), chosen_by: "--python or IMPRESARIO_PYTHON" },
            (None, Some(path)) => Self { path, chosen_by: "the active virtual environment" },
            (None, None) => Self { path: "python3".into(), chosen_by: "default" },
        }
    }

    /// Where it is, or its name to be looked for in `PATH`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The line that installs `packages` for it.
    pub fn pip_line(&self, packages: &str) -> String {
        let quote = if packages.contains(['[', ' ']) { "\"" } else { "" };
        format!("{} -m pip install {quote}{packages}{quote}", self.path.display())
    }
}

impl std::fmt::Display for Interpreter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (chosen by {})", self.path.display(), self.chosen_by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_wins_over_the_virtual_environment_and_that_over_the_system() {
        let root = tempfile::tempdir().unwrap();
        let chosen = |given: Option<&str>| {
            Interpreter::among(given.map(Path::new), Some(root.path())).path().to_owned()
        };
        assert_eq!(
            chosen(None),
            Path::new("python3"),
            "a virtual environment without an interpreter is none"
        );
        let active = root.path().join("bin/python");
        std::fs::create_dir(root.path().join("bin")).unwrap();
        std::fs::write(&active, "").unwrap();
        assert_eq!(chosen(None), active);
        assert_eq!(chosen(Some("/opt/python")), Path::new("/opt/python"));
    }

    #[test]
    fn the_line_that_installs_can_be_pasted_into_a_shell() {
        let interpreter = Interpreter::among(None, None);
        assert_eq!(interpreter.pip_line("ale-py"), "python3 -m pip install ale-py");
        assert_eq!(interpreter.pip_line("gymnasium[box2d]"), "python3 -m pip install \"gymnasium[box2d]\"");
    }
}
