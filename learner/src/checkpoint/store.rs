//! The folder of checkpoints: written atomically, the newest kept, the newest whole one found.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::{Checkpoint, CheckpointError, file};

const PREFIX: &str = "step-";
const SUFFIX: &str = ".safetensors";
/// Files of this ending are unfinished: a crash left them.
const UNFINISHED: &str = ".unfinished";

/// Writes `checkpoint` into `folder`, then removes all but the newest `kept`; returns its path.
///
/// The file gets its name only once it is whole and on the disk.
///
/// # Errors
/// If it cannot be encoded or written; older checkpoints are untouched then.
pub fn save(folder: &Path, checkpoint: &Checkpoint, kept: usize) -> Result<PathBuf, CheckpointError> {
    let bytes = file::encode(checkpoint)?;
    let path = folder.join(format!("{PREFIX}{:012}{SUFFIX}", checkpoint.env_steps));
    fs::create_dir_all(folder).map_err(|source| failed("create", folder, source))?;
    write_atomically(&path, &bytes)?;
    for (_, old) in list(folder)?.into_iter().skip(kept.max(1)).filter(|(_, old)| *old != path) {
        fs::remove_file(&old).map_err(|source| failed("remove", &old, source))?;
    }
    Ok(path)
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
