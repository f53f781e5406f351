//! One stream of unrolls: from Hello to Goodbye, or to the break.

use std::time::Duration;

use impresario_common::wire::v1;
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{Abandon, StreamEnd, Uplink, UplinkEnd};
use crate::connection::{CALL_DEADLINE, CallError, Client};
use crate::counters::Counters;
use crate::rollout::Crew;

/// How often the actor gives a sign of life.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);
/// Time that stopping the workers and delivering their last unrolls may take.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// Time that the learner may take to end the stream after the Goodbye.
const GOODBYE_DEADLINE: Duration = Duration::from_secs(5);
/// Messages handed to the connection ahead of what it can send. Small ones travel together; their arrays are the
/// outbox's own.
const SEND_AHEAD: usize = 32;

/// Bytes that a message has at most around a Goodbye and the position in it: two tags, two lengths.
const FIELDS: usize = 16;

/// What this end of the stream is up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Workers work.
    Running,
    /// Workers are stopping, and what they made is being delivered, until the given time.
    Leaving(Instant),
}

/// What the learner has said about the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    GoesOn,
    /// It takes in nothing any more.
    Finished,
}

fn message(kind: v1::actor_message::Kind) -> v1::ActorMessage {
    v1::ActorMessage { kind: Some(kind) }
}

fn broken(problem: &str) -> StreamEnd {
    StreamEnd::Broken(CallError::Unreachable(problem.into()))
}

impl From<Status> for StreamEnd {
    fn from(status: Status) -> Self {
        Self::Broken(status.into())
    }
}

impl Uplink {
    /// Opens a stream and serves it to its end.
    pub(super) async fn exchange(&mut self, client: Client) -> StreamEnd {
        match self.serve(client).await {
            Ok(end) => StreamEnd::Done(end),
            Err(end) => end,
        }
    }

    async fn serve(&mut self, mut client: Client) -> Result<UplinkEnd, StreamEnd> {
        let (outgoing, messages) = mpsc::channel(SEND_AHEAD);
        let hello = v1::Hello { identity: self.join.identity.clone() };
        let hello = message(v1::actor_message::Kind::Hello(hello));
        outgoing.send(hello).await.map_err(|_| broken("the stream did not begin"))?;
        let opening = client.stream_unrolls(ReceiverStream::new(messages));
        let opened = tokio::select! {
            opened = timeout(CALL_DEADLINE, opening) => opened,
            () = self.crew.stopping() => return Ok(UplinkEnd::Stopped),
        };
        let mut incoming = opened.map_err(|_| broken("no answer to the stream of unrolls"))??.into_inner();
        self.connected.send_replace(true);

        let mut progress = interval(PROGRESS_INTERVAL);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut progress_due, mut phase, mut run) = (false, Phase::Running, Run::GoesOn);
        let crew = self.crew.clone();
        loop {
            if let Phase::Leaving(deadline) = phase {
                let delivered = run == Run::Finished || crew.outbox.is_empty();
                if (crew.is_done() && delivered) || Instant::now() >= deadline {
                    return Ok(self.say_goodbye(outgoing, incoming, run).await);
                }
            }
            let unroll_due = run == Run::GoesOn && crew.outbox.has_unsent();
            tokio::select! {
                received = incoming.message() => {
                    let received = received?.ok_or_else(|| broken("the learner ended the stream of unrolls"))?;
                    self.patience.renew();
                    if self.take_in(&received)? == Run::Finished && run == Run::GoesOn {
                        tracing::info!("the learner says that the run is over");
                        run = Run::Finished;
                        crew.stop();
                    }
                }
                // A closed channel means that the call has ended; `incoming` says how.
                Ok(room) = outgoing.reserve(), if progress_due || unroll_due => {
                    let kind = if std::mem::take(&mut progress_due) {
                        Some(v1::actor_message::Kind::Progress(crew.counters.progress()))
                    } else {
                        crew.outbox.next_unsent().map(|unroll| with_progress(unroll, &crew.counters))
                    };
                    if let Some(kind) = kind {
                        room.send(message(kind));
                    }
                }
                () = crew.outbox.filled(), if !unroll_due && run == Run::GoesOn => {}
                _ = progress.tick() => progress_due = true,
                () = crew.stopping(), if phase == Phase::Running => {
                    phase = Phase::Leaving(Instant::now() + STOP_DEADLINE);
                }
                () = leaving(phase, &crew) => {}
            }
        }
    }

    /// Acts on a message of the learner.
    fn take_in(&self, received: &v1::LearnerMessage) -> Result<Run, StreamEnd> {
        self.crew.outbox.acknowledge(received.acknowledged).map_err(StreamEnd::Contract)?;
        for grant in &received.grants {
            self.crew.grants.add(grant).map_err(StreamEnd::Contract)?;
        }
        Ok(if received.finished { Run::Finished } else { Run::GoesOn })
    }

    /// Closes the books, tells the learner, and waits for it to end the stream.
    async fn say_goodbye(
        &self,
        outgoing: mpsc::Sender<v1::ActorMessage>,
        mut incoming: Streaming<v1::LearnerMessage>,
        run: Run,
    ) -> UplinkEnd {
        let (which, end) = match run {
            Run::Finished => (Abandon::Unacknowledged, UplinkEnd::Finished),
            Run::GoesOn => (Abandon::Unsent, UplinkEnd::Stopped),
        };
        self.crew.abandon(which);
        let mut goodbye =
            v1::Goodbye { progress: Some(self.crew.counters.progress()), rollout: Default::default() };
        let room = self.message_bytes.saturating_sub(message_bytes(&goodbye));
        goodbye.rollout = self.crew.rollout(room).into();
        let goodbye = message(v1::actor_message::Kind::Goodbye(goodbye));
        let deadline = Instant::now() + GOODBYE_DEADLINE;
        let farewell = async {
            // A stream that breaks now has nothing more to carry.
            if outgoing.send(goodbye).await.is_err() {
                return;
            }
            drop(outgoing);
            while let Ok(Some(received)) = incoming.message().await {
                // Unrolls given up are beyond what can be acknowledged, and were of no use to the learner.
                let _ = self.crew.outbox.acknowledge(received.acknowledged);
            }
        };
        if timeout_at(deadline, farewell).await.is_err() {
            tracing::warn!("the learner did not end the stream within {} s", GOODBYE_DEADLINE.as_secs());
        }
        end
    }
}

/// Bytes of a message with this goodbye, but for the position that is to go into it.
fn message_bytes(goodbye: &v1::Goodbye) -> usize {
    goodbye.encoded_len() + FIELDS
}

fn with_progress(mut unroll: v1::Unroll, counters: &Counters) -> v1::actor_message::Kind {
    unroll.progress = Some(counters.progress());
    v1::actor_message::Kind::Unroll(unroll)
}

/// While leaving: returns when the last worker stops or time is up. Otherwise never.
async fn leaving(phase: Phase, crew: &Crew) {
    match phase {
        Phase::Running => std::future::pending().await,
        Phase::Leaving(deadline) if crew.is_done() => sleep_until(deadline).await,
        Phase::Leaving(deadline) => tokio::select! {
            () = crew.done() => {}
            () = sleep_until(deadline) => {}
        },
    }
}
