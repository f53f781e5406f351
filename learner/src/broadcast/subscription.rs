//! [`Subscription`]: which versions an actor gets, and when.
//!
//! A learner that makes two thousand versions a second for hundreds of actors would do little but send: an actor
//! acts with one of them for a whole unroll. So all deliveries together take a share of the machine's time at most. Beyond it every
//! subscriber pauses after each delivery; but one that is granted an unroll on a newer version gets that at once.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Broadcast, Published};
use crate::intake::ActorKey;

/// Share of all processors' time that sending weights may take.
const SHARE: f64 = 1.0 / 16.0;

/// What a delivery takes of it, beside its bytes.
const DELIVERY: Duration = Duration::from_micros(15);

/// How fast its bytes go.
const BYTES_A_SECOND: f64 = 1e9;

/// Shorter pauses than this are none: they would cost more than they save.
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);

/// Who subscribes, and which versions they need.
#[derive(Debug)]
pub(super) struct Needs {
    /// Processors whose time sending may take.
    processors: f64,
    subscriptions: AtomicUsize,
    of: Mutex<HashMap<ActorKey, watch::Sender<u64>>>,
}

impl Default for Needs {
    fn default() -> Self {
        let all = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let (subscriptions, of) = Default::default();
        Self { processors: all as f64 * SHARE, subscriptions, of }
    }
}

impl Needs {
    /// See [`Broadcast::need`].
    pub(super) fn raise(&self, actor: ActorKey, version: u64) {
        if let Some(needed) = self.of.lock().get(&actor) {
            needed.send_if_modified(|needed| {
                let more = version > *needed;
                *needed = version.max(*needed);
                more
            });
        }
    }

    /// How long each subscriber pauses after a delivery of `bytes` bytes, if at all.
    fn pause(&self, bytes: u64) -> Option<Duration> {
        let one = DELIVERY + Duration::from_secs_f64(bytes as f64 / BYTES_A_SECOND);
        let all = self.subscriptions.load(Ordering::Relaxed) as f64;
        let pause = one.mul_f64(all / self.processors);
        (pause >= SHORTEST_PAUSE).then_some(pause)
    }

    #[cfg(test)]
    pub(super) fn crowd(&self) {
        self.subscriptions.fetch_add(1_000_000_000, Ordering::Relaxed);
    }
}

/// One of an actor's streams of weights.
#[derive(Debug)]
pub struct Subscription {
    broadcast: Arc<Broadcast>,
    actor: ActorKey,
    newest: watch::Receiver<Option<Arc<Published>>>,
    needed: watch::Receiver<u64>,
    /// The version that it has.
    version: Option<u64>,
    /// End of the pause, if there is one.
    due: Option<Instant>,
}

impl Subscription {
    pub(super) fn new(broadcast: Arc<Broadcast>, actor: ActorKey) -> Self {
        let needs = &broadcast.needs;
        needs.subscriptions.fetch_add(1, Ordering::Relaxed);
        let needed = needs.of.lock().entry(actor).or_default().subscribe();
        let newest = broadcast.newest.subscribe();
        Self { broadcast, actor, newest, needed, version: None, due: None }
    }

    /// The newest version, as soon as there is one that this subscriber does not have and its pause is over; `None` when there will
    /// be none any more. Nothing is lost if the call is dropped.
    pub async fn next(&mut self) -> Option<Arc<Published>> {
        if let (Some(version), Some(due)) = (self.version, self.due) {
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                needed = self.needed.wait_for(|needed| *needed > version) => drop(needed.ok()?),
            }
        }
        let newer = |newest: &Option<Arc<Published>>| {
            newest.as_ref().is_some_and(|newest| Some(newest.snapshot.version) > self.version)
        };
        let newest = self.newest.wait_for(newer).await.ok()?.clone()?;
        self.version = Some(newest.snapshot.version);
        Some(newest)
    }

    /// Begins the pause after a delivery of `bytes` bytes.
    pub fn delivered(&mut self, bytes: u64) {
        self.due = self.broadcast.needs.pause(bytes).map(|pause| Instant::now() + pause);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let needs = &self.broadcast.needs;
        needs.subscriptions.fetch_sub(1, Ordering::Relaxed);
        let mut of = needs.of.lock();
        // The last of the actor's own; this one still listens.
        if of.get(&self.actor).is_some_and(|needed| needed.receiver_count() <= 1) {
            of.remove(&self.actor);
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use impresario_common::policy::{Snapshot, Weights};

    use super::*;

    const ACTOR: ActorKey = ActorKey { actor: 3, incarnation: 1 };

    fn publish(broadcast: &Broadcast, version: u64) {
        let tensor = Tensor::zeros(8, candle_core::DType::F32, &Device::Cpu).unwrap();
        broadcast.publish(Snapshot { version, weights: Weights(vec![("w".into(), tensor)]) });
    }

    /// The version that a subscriber gets at once, if any.
    async fn at_once(subscription: &mut Subscription) -> Option<u64> {
        tokio::select! {
            biased;
            next = subscription.next() => {
                subscription.delivered(1000);
                next.map(|next| next.snapshot.version)
            }
            () = std::future::ready(()) => None,
        }
    }

    #[tokio::test]
    async fn few_subscribers_get_each_version_at_once() {
        let broadcast = Arc::new(Broadcast::default());
        let mut subscription = broadcast.subscribe(ACTOR);
        assert_eq!(at_once(&mut subscription).await, None, "there is none yet");
        for version in 1..4 {
            publish(&broadcast, version);
            assert_eq!(at_once(&mut subscription).await, Some(version));
            assert_eq!(at_once(&mut subscription).await, None, "once each");
        }
    }

    #[tokio::test]
    async fn many_pause_unless_they_need_a_newer_version() {
        let broadcast = Arc::new(Broadcast::default());
        let mut subscription = broadcast.subscribe(ACTOR);
        broadcast.crowd();
        publish(&broadcast, 1);
        assert_eq!(at_once(&mut subscription).await, Some(1), "the first has nothing to wait for");
        publish(&broadcast, 2);
        publish(&broadcast, 3);
        assert_eq!(at_once(&mut subscription).await, None);
        broadcast.need(ACTOR, 1);
        broadcast.need(ActorKey { actor: 4, ..ACTOR }, 3);
        assert_eq!(at_once(&mut subscription).await, None, "it has what it needs");
        broadcast.need(ACTOR, 2);
        assert_eq!(at_once(&mut subscription).await, Some(3), "the newest is as good");
        broadcast.need(ACTOR, 4);
        assert_eq!(at_once(&mut subscription).await, None, "it is not there yet");
        publish(&broadcast, 4);
        assert_eq!(at_once(&mut subscription).await, Some(4));
    }

    #[tokio::test]
    async fn those_who_leave_are_forgotten() {
        let broadcast = Arc::new(Broadcast::default());
        let (first, second) = (broadcast.subscribe(ACTOR), broadcast.subscribe(ACTOR));
        drop(first);
        assert_eq!(broadcast.needs.of.lock().len(), 1);
        drop(second);
        assert!(broadcast.needs.of.lock().is_empty());
        assert_eq!(broadcast.needs.subscriptions.load(Ordering::Relaxed), 0);
    }
}
