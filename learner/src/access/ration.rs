//! [`Ration`]: a warning a second, however many there would be, so that a flood of bad calls is no flood in the log.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

const INTERVAL: Duration = Duration::from_secs(1);

/// When the last warning was, and how many were left out since.
#[derive(Debug, Default)]
pub(crate) struct Ration(Mutex<(Option<Instant>, u64)>);

impl Ration {
    /// Logs what `message` says, unless another was logged a moment ago.
    pub(crate) fn warn(&self, message: impl FnOnce() -> String) {
        let now = Instant::now();
        let left_out = {
            let (last, left_out) = &mut *self.0.lock();
            if last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
                *left_out += 1;
                return;
            }
            *last = Some(now);
            std::mem::take(left_out)
        };
        match left_out {
            0 => tracing::warn!("{}", message()),
            more => tracing::warn!("{} (and {more} more like it since the last time)", message()),
        }
    }
}
