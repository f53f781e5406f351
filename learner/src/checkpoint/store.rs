//! The folder of checkpoints: written atomically, kept by a rule, the newest whole one found.

use std::cmp::Ordering;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use impresario_common::config::RunConfig;

use super::{Checkpoint, CheckpointError, file};

const PREFIX: &str = "step-";
const SUFFIX: &str = ".safetensors";
/// Files of this ending are unfinished: a crash left them.
const UNFINISHED: &str = ".unfinished";

/// Which checkpoints stay when a new one is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// So many of the newest; at least the one just written.
    pub newest: usize,
    /// So many of those with the best mean return of the last 100 episodes, of equals the newest.
    pub best: usize,
    /// The first one at or after each multiple of so many environment steps; 0 for none.
    pub every_steps: u64,
}

impl Retention {
    /// As the run's configuration says.
    pub fn of_run(config: &RunConfig) -> Self {
        let report = &config.report;
        Self {
            newest: report.checkpoints_kept,
            best: report.checkpoints_best,
            every_steps: report.checkpoint_steps,
        }
    }

    /// Those of `found`, environment steps and mean return, the newest first, that may go.
    fn dispensable(self, found: &[(u64, Option<f64>)]) -> Vec<usize> {
        let mut ranked: Vec<usize> = (0..found.len()).filter(|&at| found[at].1.is_some()).collect();
        // Stable: of equals the newest stays first.
        ranked.sort_by(|&a, &b| found[b].1.partial_cmp(&found[a].1).unwrap_or(Ordering::Equal));
        ranked.truncate(self.best);
        let stretch = |at: usize| found.get(at).and_then(|(steps, _)| steps.checked_div(self.every_steps));
        let is_milestone = |at: usize| self.every_steps > 0 && stretch(at) != stretch(at + 1);
        (self.newest.max(1)..found.len()).filter(|at| !ranked.contains(at) && !is_milestone(*at)).collect()
    }
}

/// Writes `checkpoint` into `folder`, then removes those that `retention` does not keep; returns its path.
///
/// The file gets its name only once it is whole and on the disk.
///
/// # Errors
/// If it cannot be encoded or written; older checkpoints are untouched then.
pub fn save(
    folder: &Path,
    checkpoint: &Checkpoint,
    retention: Retention,
) -> Result<PathBuf, CheckpointError> {
    let bytes = file::encode(checkpoint)?;
    let path = folder.join(format!("{PREFIX}{:012}{SUFFIX}", checkpoint.env_steps));
    fs::create_dir_all(folder).map_err(|source| failed("create", folder, source))?;
    write_atomically(&path, &bytes)?;
    let listed = list(folder)?;
    let mean_return = |path: &Path| if retention.best > 0 { file::mean_return(path) } else { None };
    let found: Vec<_> = listed.iter().map(|(steps, path)| (*steps, mean_return(path))).collect();
    for old in retention.dispensable(&found).into_iter().map(|at| &listed[at].1).filter(|old| **old != path) {
        fs::remove_file(old).map_err(|source| failed("remove", old, source))?;
    }
    Ok(path)
}

/// Writes `checkpoint` to `path`, whole or not at all.
///
/// # Errors
/// If it cannot be encoded or written.
pub fn write(path: &Path, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
    write_atomically(path, &file::encode(checkpoint)?)
}

/// Reads and verifies one checkpoint.
///
/// # Errors
/// If it cannot be read or is not what was written.
pub fn load(path: &Path) -> Result<Checkpoint, CheckpointError> {
    let bytes = fs::read(path).map_err(|source| failed("read", path, source))?;
    file::decode(&bytes).map_err(|reason| CheckpointError::Damaged { path: path.to_owned(), reason })
}

/// The newest checkpoint in `folder` that is whole, with its path; `None` if there is none.
///
/// Damaged ones are reported in the log and passed over.
///
/// # Errors
/// If the folder exists and cannot be read.
pub fn latest(folder: &Path) -> Result<Option<(PathBuf, Checkpoint)>, CheckpointError> {
    for (_, path) in list(folder)? {
        match load(&path) {
            Ok(checkpoint) => return Ok(Some((path, checkpoint))),
            Err(error) => tracing::warn!(%error, "passing over a checkpoint"),
        }
    }
    Ok(None)
}

/// The files in `folder` that bear a checkpoint's name, oldest first; none if there is no such folder.
///
/// # Errors
/// If the folder exists and cannot be read.
pub fn paths(folder: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    Ok(list(folder)?.into_iter().rev().map(|(_, path)| path).collect())
}

/// Environment steps and paths of the files that bear a checkpoint's name, newest first.
fn list(folder: &Path) -> Result<Vec<(u64, PathBuf)>, CheckpointError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(source) => return Err(failed("read", folder, source)),
    };
    let mut found = vec![];
    for entry in entries {
        let path = entry.map_err(|source| failed("read", folder, source))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let steps = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX));
        if let Some(steps) = steps.and_then(|steps| steps.parse().ok()) {
            found.push((steps, path));
        }
    }
    found.sort_by(|a, b| b.cmp(a));
    Ok(found)
}

/// Writes a file that appears under its name whole or not at all, even if the machine loses power.
pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(UNFINISHED);
    let unfinished = PathBuf::from(unfinished);
    let write = || -> io::Result<()> {
        let mut file = File::create(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        // The new name is an entry of the folder, which has to reach the disk as well.
        #[cfg(unix)]
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    };
    write().map_err(|source| {
        // Gives the space back on a full disk; the file may not exist.
        let _ = fs::remove_file(&unfinished);
        failed("write", path, source)
    })
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> CheckpointError {
    CheckpointError::Io { action, path: path.to_owned(), source }
}
