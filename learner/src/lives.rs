//! [`RunRecord`]: a run's name and its lives, in `run.json` of its directory.
//!
//! A life begins when a learner starts, and ends with it, in whatever way. It is on record before the learner listens, so that
//! no two lives take one another's place: actors tell the weights of one life from those of another by its number, and the
//! places of the roster are given out in a stretch of its own to each.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::report::{RunDirError, write_atomically};

/// Name of the file in a run directory.
pub const RUN_FILE: &str = "run.json";

/// How a life of the run began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// The policy version that it began from: that of the checkpoint, or 0.
    pub policy_version: u64,
    /// Whether actors of the life before may go on in it: what concerns them in the configuration has not changed.
    pub takes_actors_over: bool,
}

/// A run's name and its lives so far, the present one last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The run, as actors know it.
    pub run_id: String,
    /// At least one.
    pub lives: Vec<Life>,
}

impl RunRecord {
    /// The record of a new run.
    pub fn new() -> Self {
        Self { run_id: new_run_id(), lives: vec![Life { policy_version: 0, takes_actors_over: false }] }
    }

    /// Number of the present life, from 0.
    pub fn life(&self) -> usize {
        self.lives.len().saturating_sub(1)
    }

    /// Whether actors that joined in life `former` may go on in the present one.
    pub fn takes_over_from(&self, former: usize) -> bool {
        self.lives.get(former + 1..).is_some_and(|later| later.iter().all(|life| life.takes_actors_over))
    }

    /// Reads the record of the run in `run_dir`; `None` if it has none.
    ///
    /// # Errors
    /// If the file cannot be read or is not such a record.
    pub fn read(run_dir: &Path) -> Result<Option<Self>, RunDirError> {
        let path = run_dir.join(RUN_FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(RunDirError::File { path, source }),
        };
        let damaged = |what: String| file_error(&path, std::io::Error::other(what));
        let record: Self =
            serde_json::from_str(&text).map_err(|e| damaged(format!("not a run's record: {e}")))?;
        match record.lives.is_empty() {
            true => Err(damaged("it names no life of the run".into())),
            false => Ok(Some(record)),
        }
    }

    /// Writes the record into `run_dir`: whole or not at all.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, run_dir: &Path) -> Result<(), RunDirError> {
        let path = run_dir.join(RUN_FILE);
        let text = serde_json::to_vec_pretty(self).map_err(std::io::Error::other);
        text.and_then(|text| write_atomically(&path, &text)).map_err(|source| file_error(&path, source))
    }
}

impl Default for RunRecord {
    fn default() -> Self {
        Self::new()
    }
}

fn file_error(path: &Path, source: std::io::Error) -> RunDirError {
    RunDirError::File { path: PathBuf::from(path), source }
}

/// A name that no other run of any learner has.
fn new_run_id() -> String {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{:x}", since_epoch.as_nanos(), std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_as_it_was_and_a_damaged_one_says_where() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(RunRecord::read(folder.path()).unwrap(), None);
        let mut record = RunRecord::new();
        record.lives.push(Life { policy_version: 40, takes_actors_over: true });
        record.write(folder.path()).unwrap();
        assert_eq!(RunRecord::read(folder.path()).unwrap(), Some(record));
        std::fs::write(folder.path().join(RUN_FILE), "{\"run_id\": \"x\", \"lives\": []}").unwrap();
        let error = RunRecord::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains(RUN_FILE) && error.contains("no life"), "{error}");
    }

    #[test]
    fn actors_go_on_where_no_restart_since_has_changed_what_concerns_them() {
        let life = |takes_actors_over| Life { policy_version: 0, takes_actors_over };
        let record = RunRecord { run_id: "r".into(), lives: vec![life(false), life(false), life(true)] };
        assert_eq!([0, 1].map(|former| record.takes_over_from(former)), [false, true]);
    }
}
