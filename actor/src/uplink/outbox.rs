//! [`Outbox`]: finished unrolls, from the worker that filled them to the learner's acknowledgement.
//!
//! Bounded in bytes. When it is full, workers wait, and their environments with them; nothing is discarded.

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;

use impresario_common::wire::v1;
use prost::Message;
use tokio::sync::Notify;

use crate::gate::Gate;

/// Unrolls that the learner has not acknowledged.
#[derive(Debug)]
pub(crate) struct Outbox {
    gate: Gate<State>,
    /// Tells the stream that there is something to send.
    filled: Notify,
    limit: u64,
}

#[derive(Debug, Default)]
struct State {
    held: VecDeque<Held>,
    /// Sequence number of the first unroll held.
    base: u64,
    /// Sequence number of the next unroll to send on the present stream.
    cursor: u64,
    bytes: u64,
    /// Workers wait no more.
    closed: bool,
    acknowledged_steps: u64,
}

#[derive(Debug)]
struct Held {
    /// Its arrays are shared, so that sending it again costs little.
    message: v1::Unroll,
    bytes: u64,
    steps: u64,
}

impl State {
    fn end(&self) -> u64 {
        self.base + self.held.len() as u64
    }

    /// Removes the unrolls before `sequence`, which are acknowledged.
    fn release(&mut self, sequence: u64) {
        let count = (sequence - self.base) as usize;
        self.base = sequence;
        self.cursor = self.cursor.max(sequence);
        for held in self.held.drain(..count) {
            self.bytes -= held.bytes;
            self.acknowledged_steps += held.steps;
        }
    }
}

/// Which unrolls are given up when an actor leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Abandon {
    /// All that are not acknowledged: the learner takes in nothing any more.
    Unacknowledged,
    /// Those not sent on the present stream: what was sent arrives before the Goodbye.
    Unsent,
}

impl Outbox {
    /// An empty outbox for `limit` bytes of encoded unrolls. One unroll fits whatever its size.
    pub(crate) fn new(limit: u64) -> Self {
        Self { gate: Gate::new(State::default()), filled: Notify::new(), limit }
    }

    /// Takes in an unroll of `steps` environment steps and gives it its sequence number. Blocks the worker
    /// until there is room; an outbox that is closed takes the unroll in at once.
    pub(crate) fn push(&self, mut message: v1::Unroll, steps: u64, spent: &AtomicU64) {
        let bytes = message.encoded_len() as u64;
        let has_room = |s: &mut State| s.closed || s.held.is_empty() || s.bytes + bytes <= self.limit;
        self.gate.wait(spent, |state| {
            if !has_room(state) {
                return None;
            }
            let mut message = std::mem::take(&mut message);
            message.sequence = state.end();
            state.bytes += bytes;
            state.held.push_back(Held { message, bytes, steps });
            Some(())
        });
        self.filled.notify_one();
    }

    /// Waits until something may have come to send.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Whether an unroll waits to be sent on the present stream.
    pub(crate) fn has_unsent(&self) -> bool {
        self.gate.read(|state| state.cursor < state.end())
    }

    /// The next unroll to send on the present stream.
    pub(crate) fn next_unsent(&self) -> Option<v1::Unroll> {
        self.gate.update(|state| {
            let held = state.held.get((state.cursor - state.base) as usize)?;
            state.cursor += 1;
            Some(held.message.clone())
        })
    }

    /// Forgets the unrolls before `sequence`.
    ///
    /// # Errors
    /// If `sequence` goes beyond the unrolls there are.
    pub(crate) fn acknowledge(&self, sequence: u64) -> Result<(), String> {
        self.gate.update(|state| {
            if sequence > state.end() {
                return Err(format!("it acknowledges {sequence} unrolls of {}", state.end()));
            }
            if sequence > state.base {
                state.release(sequence);
            }
            Ok(())
        })
    }

    /// Begins a new stream at `sequence`, where the learner wants it to begin.
    ///
    /// # Errors
    /// If the unroll at `sequence` is forgotten already, or beyond those there are.
    pub(crate) fn resume(&self, sequence: u64) -> Result<(), String> {
        self.acknowledge(sequence)?;
        self.gate.update(|state| {
            if sequence < state.base {
                let base = state.base;
                return Err(format!("it resumes at unroll {sequence}, and has acknowledged {base}"));
            }
            state.cursor = sequence;
            Ok(())
        })
    }

    /// Whether everything is acknowledged.
    pub(crate) fn is_empty(&self) -> bool {
        self.gate.read(|state| state.held.is_empty())
    }

    /// Lets no worker wait any more.
    pub(crate) fn close(&self) {
        self.gate.update(|state| state.closed = true);
    }

    /// Gives unrolls up, and returns their environment steps.
    pub(crate) fn abandon(&self, which: Abandon) -> u64 {
        self.gate.update(|state| {
            let kept = match which {
                Abandon::Unacknowledged => 0,
                Abandon::Unsent => (state.cursor - state.base) as usize,
            };
            let abandoned: Vec<Held> = state.held.drain(kept..).collect();
            state.bytes -= abandoned.iter().map(|held| held.bytes).sum::<u64>();
            state.cursor = state.cursor.min(state.end());
            abandoned.iter().map(|held| held.steps).sum()
        })
    }

    /// Unrolls acknowledged so far, and environment steps in them.
    pub(crate) fn acknowledged(&self) -> (u64, u64) {
        self.gate.read(|state| (state.base, state.acknowledged_steps))
    }

    /// Environment steps acknowledged so far.
    pub(crate) fn acknowledged_steps(&self) -> u64 {
        self.gate.read(|state| state.acknowledged_steps)
    }

    /// Unrolls acknowledged so far.
    pub(crate) fn acknowledged_unrolls(&self) -> u64 {
        self.gate.read(|state| state.base)
    }
}
