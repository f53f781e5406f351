//! An actor by hand: a gRPC client whose every message a test decides.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::future::Future;

use impresario_common::space::{EnvironmentSpec, Space};
use impresario_common::unroll::{Unroll, UnrollLayout};
use impresario_common::wire::v1::actor_message::Kind;
use impresario_common::wire::v1::learner_client::LearnerClient;
use impresario_common::wire::{PROTOCOL_VERSION, REFUSAL_METADATA, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::support;

pub fn cartpole() -> EnvironmentSpec {
    let bound = [4.8, f32::INFINITY, 0.418_879_03, f32::INFINITY];
    EnvironmentSpec::new("CartPole-v1", Space::boxed(&bound.map(|b| -b), &bound), Space::Discrete { n: 2 })
        .with_max_episode_steps(500)
        .with_solved_return(475.0)
}

pub fn join_request(environment: &EnvironmentSpec) -> v1::JoinRequest {
    v1::JoinRequest {
        protocol_version: PROTOCOL_VERSION,
        description: "test".into(),
        identity: None,
        environment: Some(environment.into()),
        workers: 1,
        copies_per_worker: 4,
        standing: None,
    }
}

pub fn refusal(status: &Status) -> &str {
    status.metadata().get(REFUSAL_METADATA).map_or("", |name| name.to_str().unwrap())
}

pub async fn connect(url: &str) -> LearnerClient<Channel> {
    try_connect(url).await.unwrap()
}

/// A connection of its own, unless nobody answers.
pub async fn try_connect(url: &str) -> Result<LearnerClient<Channel>, tonic::transport::Error> {
    LearnerClient::connect(url.to_owned()).await
}

/// An actor by hand: its stream in both directions.
pub struct Hand {
    pub layout: UnrollLayout,
    pub up: mpsc::Sender<v1::ActorMessage>,
    pub down: Streaming<v1::LearnerMessage>,
    pub identity: v1::Identity,
}

impl Hand {
    pub async fn join(client: &mut LearnerClient<Channel>) -> Self {
        let response = client.join(join_request(&cartpole())).await.unwrap().into_inner();
        Self::open(client, response.identity.unwrap()).await
    }

    /// Opens a stream under an identity held.
    pub async fn open(client: &mut LearnerClient<Channel>, identity: v1::Identity) -> Self {
        Self::try_open(client, identity).await.unwrap()
    }

    /// Opens a stream under an identity held, unless the learner refuses.
    pub async fn try_open(
        client: &mut LearnerClient<Channel>,
        identity: v1::Identity,
    ) -> Result<Self, Status> {
        let (up, outbox) = mpsc::channel(8);
        let hello = v1::Hello { identity: Some(identity.clone()) };
        up.send(v1::ActorMessage { kind: Some(Kind::Hello(hello)) }).await.expect("the outbox is there");
        let down = client.stream_unrolls(ReceiverStream::new(outbox)).await?.into_inner();
        Ok(Self { layout: UnrollLayout::new(20, &cartpole()), up, down, identity })
    }

    /// A valid unroll, acted with version 0.
    pub fn unroll(&self, sequence: u64) -> v1::Unroll {
        let mut unroll = Unroll::zeros(&self.layout, 4);
        unroll.behaviour_log_probs.fill(-0.7);
        unroll.grant = sequence;
        let mut message = unroll.to_wire(&self.layout);
        message.sequence = sequence;
        message.progress =
            Some(v1::Progress { produced_steps: 80 * (sequence + 1), ..v1::Progress::default() });
        message
    }

    pub async fn send(&self, unroll: v1::Unroll) {
        self.try_send(unroll).await.unwrap();
    }

    /// Sends an unroll, unless the stream is gone.
    pub async fn try_send(&self, unroll: v1::Unroll) -> Result<(), mpsc::error::SendError<v1::ActorMessage>> {
        self.up.send(v1::ActorMessage { kind: Some(Kind::Unroll(unroll)) }).await
    }

    /// Reads on until the learner ends the stream.
    pub async fn refused(&mut self) -> Status {
        loop {
            match self.down.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended without an error"),
                Err(status) => return status,
            }
        }
    }

    /// Reads on until `sequence` is acknowledged.
    pub async fn acknowledged(&mut self, sequence: u64) {
        while self.down.message().await.unwrap().unwrap().acknowledged < sequence {}
    }
}

/// The outcome of what must happen before the deadline.
pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(support::DEADLINE, future).await.expect("it happens before the deadline")
}
