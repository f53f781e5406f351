//! [`AppendFile`]: a file that records are appended to, each one whole or not at all, and whose troubles do
//! not stop the run.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A growing file of records. A record that cannot be written (a full disk, say) is cut off again and left
/// out; trouble is logged when it starts and when it ends.
#[derive(Debug)]
pub(super) struct AppendFile {
    file: File,
    path: PathBuf,
    /// Bytes of whole records.
    length: u64,
    /// Records left out since trouble started.
    left_out: u64,
}

impl AppendFile {
    /// Opens `path` for appending, creating it where it does not exist.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        let length = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, path: path.into(), length, left_out: 0 })
    }

    /// Appends `record`, handing it to the operating system before returning.
    pub(super) fn append(&mut self, record: &[u8]) {
        match self.file.write_all(record) {
            Ok(()) => {
                self.length += record.len() as u64;
                if self.left_out > 0 {
                    let (path, left_out) = (self.path.display(), self.left_out);
                    tracing::warn!("{path} can be written again; {left_out} records are missing");
                    self.left_out = 0;
                }
            }
            Err(error) => {
                if self.left_out == 0 {
                    tracing::error!("cannot write {}: {error}; the run goes on without", self.path.display());
                }
                self.left_out += 1;
                self.cut_off_what_was_written();
            }
        }
    }

    /// Best effort: where even this fails, the file ends in part of a record.
    fn cut_off_what_was_written(&mut self) {
        let _ = self.file.set_len(self.length);
        let _ = self.file.seek(SeekFrom::Start(self.length));
    }

    #[cfg(test)]
    pub(super) fn left_out(&self) -> u64 {
        self.left_out
    }
}

/// Replaces `path` by a file of `bytes`: readers see the old one or the new one, never part of it.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let mut file = File::create(&temporary)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.and_then(|()| std::fs::rename(&temporary, path)).inspect_err(|_| {
        let _ = std::fs::remove_file(&temporary);
    })?;
    // The new name is an entry of the folder, which has to reach the disk as well.
    #[cfg(unix)]
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_appended_to_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records");
        AppendFile::open(&path).unwrap().append(b"one\n");
        AppendFile::open(&path).unwrap().append(b"two\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo\n");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_leaves_records_out_and_does_not_stop_the_run() {
        let mut file = AppendFile::open(Path::new("/dev/full")).unwrap();
        file.append(b"one\n");
        file.append(b"two\n");
        assert_eq!((file.left_out(), file.length), (2, 0));
    }

    #[test]
    fn an_atomic_write_replaces_the_file_and_leaves_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("summary.json");
        write_atomically(&path, b"old").unwrap();
        write_atomically(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(write_atomically(&dir.path().join("missing/summary.json"), b"").is_err());
    }
}
