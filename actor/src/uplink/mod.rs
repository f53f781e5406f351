//! Unrolls to the learner, grants back: a stream that is taken up again where it broke off.
//!
//! # Layout
//!
//! * `outbox`: unrolls until they are acknowledged, bounded in bytes.
//! * `exchange`: one stream, from Hello to Goodbye or to the break.
//! * here: joining again after a break.

mod exchange;
mod outbox;
#[cfg(test)]
mod outbox_tests;

use std::sync::Arc;

use impresario_common::wire::v1;
use tokio::sync::watch;

use crate::connection::{Address, CallError, Client, Patience, with_deadline};
use crate::error::ActorError;
use crate::rollout::Crew;

pub(crate) use outbox::{Abandon, Outbox};

/// How the uplink ended without an error of this actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UplinkEnd {
    /// The run is over.
    Finished,
    /// The actor was told to stop.
    Stopped,
    /// The learner does not know this actor any more, or has lost what it acknowledged.
    IdentityLost(String),
}

/// The stream of unrolls, kept up for as long as the actor lives.
pub(crate) struct Uplink {
    pub(crate) address: Address,
    /// What to say when joining again, identity included.
    pub(crate) join: v1::JoinRequest,
    pub(crate) crew: Arc<Crew>,
    /// Tells the downlink whether the learner can be reached.
    pub(crate) connected: watch::Sender<bool>,
    pub(crate) patience: Patience,
    /// Bytes that a message may have.
    pub(crate) message_bytes: usize,
}

/// How one stream ended.
enum StreamEnd {
    /// For good.
    Done(UplinkEnd),
    /// By a break: join again.
    Broken(CallError),
    /// By a message that contradicts the contract.
    Contract(String),
}

impl Uplink {
    /// Sends unrolls until the run ends or the actor is told to stop; `first` is the connection on which the
    /// actor has joined.
    ///
    /// # Errors
    /// If the learner refuses, breaks the contract, or stays away too long.
    pub(crate) async fn run(mut self, first: Client) -> Result<UplinkEnd, ActorError> {
        let mut client = Some(first);
        loop {
            let crew = self.crew.clone();
            let call = match client.take() {
                Some(client) => Ok(client),
                None => tokio::select! {
                    joined = self.rejoin() => joined,
                    () = crew.stopping() => return Ok(UplinkEnd::Stopped),
                },
            };
            let end = match call {
                Ok(client) => self.exchange(client).await,
                Err(end) => end,
            };
            self.connected.send_replace(false);
            match end {
                StreamEnd::Done(end) => return Ok(end),
                StreamEnd::Contract(problem) => return Err(ActorError::Contract(problem)),
                StreamEnd::Broken(CallError::Refused { refusal, message }) => match refusal {
                    v1::Refusal::Finished => return Ok(UplinkEnd::Finished),
                    v1::Refusal::Identity => return Ok(UplinkEnd::IdentityLost(message)),
                    _ => return Err(self.address.refused(message)),
                },
                StreamEnd::Broken(CallError::Untrusted(problem)) => {
                    return Err(self.address.untrusted(problem));
                }
                StreamEnd::Broken(CallError::Unreachable(problem)) => tokio::select! {
                    paused = self.patience.pause(&problem) => paused?,
                    () = crew.stopping() => return Ok(UplinkEnd::Stopped),
                },
            }
        }
    }

    /// Joins with the identity held, and turns back to the unroll that the learner wants next.
    async fn rejoin(&self) -> Result<Client, StreamEnd> {
        let mut client = self.address.connect().await.map_err(StreamEnd::Broken)?;
        let (acknowledged_unrolls, acknowledged_steps) = self.crew.outbox.acknowledged();
        let standing = v1::Standing {
            acknowledged_unrolls,
            acknowledged_steps,
            next_grant: self.crew.grants.next(),
            progress: Some(self.crew.counters.progress()),
        };
        let join = v1::JoinRequest { standing: Some(standing), ..self.join.clone() };
        let response = client.join(with_deadline(join)).await;
        let joined = response.map_err(|status| StreamEnd::Broken(status.into()))?.into_inner();
        let lost = |reason: String| StreamEnd::Done(UplinkEnd::IdentityLost(reason));
        if joined.identity != self.join.identity {
            return Err(lost("it gave this actor another identity".into()));
        }
        self.crew.outbox.resume(joined.resume_sequence).map_err(lost)?;
        if joined.life != self.crew.grants.life() {
            tracing::info!(
                "the learner was restarted and goes on from a checkpoint: life {} of the run",
                joined.life
            );
            self.crew.grants.begin_life(joined.life);
            self.crew.latest.look_again();
        }
        tracing::info!(
            "reached the learner at {} again; resuming at unroll {}",
            self.address.url(),
            joined.resume_sequence
        );
        Ok(client)
    }
}
