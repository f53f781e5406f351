//! [`CheckpointWriter`]: the thread that writes, so that the trainer never waits for a disk.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::{Checkpoint, CheckpointError, Retention, skipped, store};
use crate::batch::Batch;

/// Skipped batches written in one run: the first ones tell the cause.
const SKIPPED_BATCHES: u32 = 10;

/// Milestones that may wait for the disk before the trainer does.
const MOST_MILESTONES: usize = 4;

/// A thread that writes what it is handed: at most one checkpoint and one batch wait, and a newer checkpoint
/// replaces one that waits; of milestones none is left out, and the trainer waits when several do. Errors (a full
/// disk) are logged and counted; training goes on.
///
/// Dropping it waits for what was handed over.
#[derive(Debug)]
pub struct CheckpointWriter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<(), CheckpointError>>>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    failures: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    checkpoint: Option<Checkpoint>,
    /// Oldest first.
    milestones: VecDeque<Checkpoint>,
    /// With the policy version whose update was skipped.
    batch: Option<(u64, Batch)>,
    closing: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that holds the lock can leave it half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand_over(&self, change: impl FnOnce(&mut Waiting)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Takes what waits; blocks until there is something. `None` once closed and empty.
    fn take(&self) -> Option<Waiting> {
        let mut waiting = self.lock();
        while waiting.checkpoint.is_none() && waiting.milestones.is_empty() && waiting.batch.is_none() {
            if waiting.closing {
                return None;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        // One milestone at a time, so that no more are in memory than may wait, and the one being written.
        let milestones = waiting.milestones.pop_front().into_iter().collect();
        let (checkpoint, batch) = (waiting.checkpoint.take(), waiting.batch.take());
        self.changed.notify_all();
        Some(Waiting { checkpoint, milestones, batch, closing: waiting.closing })
    }
}

impl CheckpointWriter {
    /// Starts the thread: checkpoints go to `run_dir/checkpoints`, where those stay that `retention` keeps.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn start(run_dir: &Path, retention: Retention) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (run_dir, theirs) = (run_dir.to_owned(), shared.clone());
        let thread = thread::Builder::new()
            .name("checkpoints".into())
            .spawn(move || write_all(&theirs, &run_dir, retention))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Hands over a checkpoint; one that still waits is forgotten in favour of it.
    pub fn submit(&self, checkpoint: Checkpoint) {
        self.shared.hand_over(|waiting| waiting.checkpoint = Some(checkpoint));
    }

    /// Hands over a checkpoint that is written whatever comes after it; waits while several such ones do.
    pub fn submit_milestone(&self, checkpoint: Checkpoint) {
        let waiting = self.shared.lock();
        let full = |waiting: &mut Waiting| waiting.milestones.len() >= MOST_MILESTONES;
        let mut waiting =
            self.shared.changed.wait_while(waiting, full).unwrap_or_else(PoisonError::into_inner);
        waiting.milestones.push_back(checkpoint);
        self.shared.changed.notify_all();
    }

    /// Hands over the batch whose update of policy `version` was skipped; it goes to
    /// `skipped-<version>.safetensors` in the run directory, unless one still waits.
    pub fn submit_skipped(&self, version: u64, batch: Batch) {
        self.shared.hand_over(|waiting| {
            waiting.batch.get_or_insert((version, batch));
        });
    }

    /// Writes that failed.
    pub fn failures(&self) -> u64 {
        self.shared.failures.load(Ordering::Relaxed)
    }

    /// Waits until all that was handed over is written, and ends the thread.
    ///
    /// # Errors
    /// If the last checkpoint could not be written.
    pub fn finish(mut self) -> Result<(), CheckpointError> {
        self.close()
    }

    fn close(&mut self) -> Result<(), CheckpointError> {
        self.shared.hand_over(|waiting| waiting.closing = true);
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for CheckpointWriter {
    fn drop(&mut self) {
        if self.thread.is_some() && !thread::panicking() {
            // Failures were logged where they happened.
            let _ = self.close();
        }
    }
}

/// The thread: writes until closed; returns what became of the last checkpoint.
fn write_all(shared: &Shared, run_dir: &Path, retention: Retention) -> Result<(), CheckpointError> {
    let folder = run_dir.join("checkpoints");
    let mut last = Ok(());
    let mut batches = 0;
    while let Some(taken) = shared.take() {
        if let Some((version, batch)) = taken.batch
            && batches < SKIPPED_BATCHES
        {
            batches += 1;
            let result = skipped::save(run_dir, version, &batch);
            note(shared, "the batch of a skipped update", &result);
        }
        for checkpoint in taken.milestones.into_iter().chain(taken.checkpoint) {
            let result = store::save(&folder, &checkpoint, retention);
            note(shared, "a checkpoint", &result);
            last = result.map(drop);
        }
    }
    last
}

fn note(shared: &Shared, what: &str, result: &Result<PathBuf, CheckpointError>) {
    match result {
        Ok(path) => tracing::debug!(path = %path.display(), "wrote {what}"),
        Err(error) => {
            shared.failures.fetch_add(1, Ordering::Relaxed);
            tracing::error!(%error, "could not write {what}; training goes on without it");
        }
    }
}
