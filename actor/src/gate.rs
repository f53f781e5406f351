//! Where worker threads wait for what the network brings: state under a lock, and a condition on it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a waiting thread reports the time it has spent so far.
const REPORT_INTERVAL: Duration = Duration::from_millis(250);

/// State that threads wait on.
#[derive(Debug, Default)]
pub(crate) struct Gate<T> {
    state: Mutex<T>,
    changed: Condvar,
}

impl<T> Gate<T> {
    pub(crate) fn new(state: T) -> Self {
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Changes the state, and lets every waiting thread look at it again.
    pub(crate) fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Looks at the state.
    pub(crate) fn read<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.lock())
    }

    /// Blocks this thread until `attempt` succeeds on the state. Time spent waiting is added to `spent`, in
    /// nanoseconds, while it passes.
    pub(crate) fn wait<R>(&self, spent: &AtomicU64, mut attempt: impl FnMut(&mut T) -> Option<R>) -> R {
        let mut state = self.lock();
        if let Some(result) = attempt(&mut state) {
            return result;
        }
        let mut since = Instant::now();
        loop {
            let waited = self.changed.wait_timeout(state, REPORT_INTERVAL);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            let result = attempt(&mut state);
            let now = Instant::now();
            spent.fetch_add((now - since).as_nanos() as u64, Ordering::Relaxed);
            since = now;
            if let Some(result) = result {
                return result;
            }
        }
    }

    /// A thread that panicked while it held the lock ends the actor; until then the state is still whole,
    /// because no code that runs under the lock leaves it half changed.
    fn lock(&self) -> MutexGuard<'_, T> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
