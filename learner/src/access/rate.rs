//! [`Rate`]: a limit on events per second.

use std::time::Instant;

use parking_lot::Mutex;

/// Lets so many events a second through, and as many at once after a quiet second.
#[derive(Debug)]
pub(crate) struct Rate {
    per_second: f64,
    /// Events that may happen now, and when that was true.
    available: Mutex<(f64, Instant)>,
}

impl Rate {
    pub(crate) fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second);
        Self { per_second, available: Mutex::new((per_second, Instant::now())) }
    }

    /// Whether an event may happen now.
    pub(crate) fn permits(&self) -> bool {
        self.permits_at(Instant::now())
    }

    fn permits_at(&self, now: Instant) -> bool {
        let (available, then) = &mut *self.available.lock();
        let earned = now.saturating_duration_since(*then).as_secs_f64() * self.per_second;
        *available = (*available + earned).min(self.per_second);
        *then = now.max(*then);
        let permitted = *available >= 1.0;
        if permitted {
            *available -= 1.0;
        }
        permitted
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn as_many_as_a_second_permits_go_through_at_once_and_the_rest_later() {
        let rate = Rate::new(10);
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let count = |time| (0..100).filter(|_| rate.permits_at(time)).count();
        assert_eq!(count(at(0)), 10);
        assert_eq!(count(at(500)), 5);
        assert_eq!(count(at(60_000)), 10, "quiet minutes are not saved up");
        assert_eq!(count(at(1_000)), 0, "time that runs backwards earns nothing");
    }
}
