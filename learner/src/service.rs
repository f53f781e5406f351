//! The gRPC service: moves messages between streams and the roster, intake and broadcast. No tensor work.

mod inbound;

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use impresario_common::unroll::{Unroll, UnrollLayout};
use impresario_common::wire::REFUSAL_METADATA;
use impresario_common::wire::v1::actor_message::Kind;
use impresario_common::wire::v1::learner_server::Learner;
use impresario_common::wire::v1::{self, Refusal};

use crate::access::Rate;
use crate::broadcast::{Broadcast, Subscription};
use crate::intake::{AdmissionError, Arrival, Intake, Mail, OpenStream, StreamKey};
use crate::roster::{Refused, Roster};
use inbound::Inbound;

pub(crate) use inbound::SetAside;

/// How long a new stream may take to say who it is.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Messages that wait in a stream's channel; the transport has buffers of its own.
const OUTBOX: usize = 1;

/// Bytes of experience after which unrolls that have come together are admitted, before more are decoded.
const AT_ONCE: usize = 256 << 10;

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        if refused.refusal == Refusal::Unspecified {
            return Self::unavailable(refused.message);
        }
        let code = match refused.refusal {
            Refusal::Malformed => Code::InvalidArgument,
            Refusal::Identity => Code::NotFound,
            Refusal::Finished => Code::Aborted,
            _ => Code::FailedPrecondition,
        };
        let mut status = Self::new(code, refused.message);
        let name = tonic::metadata::MetadataValue::from_static(refused.refusal.as_str_name());
        status.metadata_mut().insert(REFUSAL_METADATA, name);
        status
    }
}

impl From<AdmissionError> for Refused {
    fn from(error: AdmissionError) -> Self {
        let refusal = match &error {
            AdmissionError::Finished => Refusal::Finished,
            AdmissionError::Unknown(..) | AdmissionError::Replaced => Refusal::Identity,
            AdmissionError::Malformed(_) => Refusal::Malformed,
        };
        Self::new(refusal, error)
    }
}

fn malformed(message: impl std::fmt::Display) -> Refused {
    Refused::new(Refusal::Malformed, message)
}

/// The service's handle on the learner.
#[derive(Debug, Clone)]
pub struct LearnerService {
    roster: Arc<Roster>,
    intake: Arc<Intake>,
    broadcast: Arc<Broadcast>,
    joins: Arc<Rate>,
}

impl LearnerService {
    /// The roster that it serves.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// A service over these parts.
    pub fn new(roster: Arc<Roster>, intake: Arc<Intake>, broadcast: Arc<Broadcast>) -> Self {
        let joins = Arc::new(Rate::new(roster.limits().joins_per_second));
        Self { roster, intake, broadcast, joins }
    }

    /// Serves a stream until the actor says goodbye, the stream ends, or a newer one replaces it.
    async fn exchange(
        &self,
        stream: &OpenStream,
        inbound: &mut Inbound,
        outbox: &mpsc::Sender<Result<v1::LearnerMessage, Status>>,
    ) -> Result<(), Status> {
        tokio::select! {
            biased;
            () = stream.replaced.cancelled() => {
                // Its account may be closed altogether.
                let why = self.intake.mail(stream.key).err().unwrap_or(AdmissionError::Replaced);
                Err(Refused::from(why).into())
            }
            ended = self.receive(stream.key, inbound) => ended,
            ended = self.send(stream, outbox) => ended,
        }
    }

    /// Reads an actor's messages until it says goodbye or the stream ends.
    async fn receive(&self, stream: StreamKey, inbound: &mut Inbound) -> Result<(), Status> {
        let (layout, columns) = self.intake.shape(stream.actor).map_err(Refused::from)?;
        let mut arrivals = VecDeque::new();
        loop {
            let next = take_unrolls(inbound, &layout, columns, &mut arrivals).await;
            match self.intake.admit_all(stream, &mut arrivals).await {
                Ok(()) => {}
                // Steps that come after the end are in the actor's goodbye.
                Err(AdmissionError::Finished) => arrivals.clear(),
                Err(refused) => return Err(Refused::from(refused).into()),
            }
            match next? {
                // The acknowledgement's turn, and that of whoever reads the connection.
                Next::MoreToCome => tokio::task::yield_now().await,
                Next::End => return Ok(()),
                Next::Progress(progress) => {
                    self.intake.progress(stream, progress).map_err(Refused::from)?;
                }
                Next::Goodbye(goodbye) => {
                    let progress = goodbye.progress.unwrap_or_default();
                    self.intake.stands(stream, goodbye.rollout.into()).map_err(Refused::from)?;
                    self.intake.goodbye(stream, progress).map_err(Refused::from)?;
                    self.roster.remove(stream.actor);
                    return Ok(());
                }
            }
        }
    }

    /// Sends acknowledgements and grants as they come up, until nobody takes them any more.
    async fn send(
        &self,
        stream: &OpenStream,
        outbox: &mpsc::Sender<Result<v1::LearnerMessage, Status>>,
    ) -> Result<(), Status> {
        let mut acknowledged = None;
        let mut told_finished = false;
        let gone = || Status::cancelled("the actor has closed the stream");
        loop {
            let ring = stream.bell.notified();
            let mail = self.intake.mail(stream.key).map_err(Refused::from)?;
            let news = acknowledged != Some(mail.acknowledged)
                || !mail.grants.is_empty()
                || (mail.finished && !told_finished);
            if let Some(needed) = mail.grants.iter().map(|grant| grant.min_version).max() {
                self.broadcast.need(stream.key.actor, needed);
            }
            if news {
                acknowledged = Some(mail.acknowledged);
                told_finished = mail.finished;
                outbox.send(Ok(learner_message(mail))).await.map_err(|_| gone())?;
            }
            tokio::select! {
                () = ring => {}
                () = outbox.closed() => return Err(gone()),
            }
        }
    }
}

/// What an actor's unrolls are followed by.
enum Next {
    /// By others, in a moment.
    MoreToCome,
    Progress(v1::Progress),
    Goodbye(v1::Goodbye),
    /// By nothing: the stream has ended.
    End,
}

/// Waits for a message, and decodes the unrolls that are here. To admit them together takes one turn at the lock, one
/// wake-up of the trainer and one acknowledgement.
async fn take_unrolls(
    inbound: &mut Inbound,
    layout: &Arc<UnrollLayout>,
    columns: usize,
    arrivals: &mut VecDeque<Arrival>,
) -> Result<Next, Status> {
    let mut message = inbound.message().await?;
    let mut bytes = 0;
    loop {
        match message.map(|m| m.kind) {
            None => return Ok(Next::End),
            Some(Some(Kind::Unroll(unroll))) => {
                arrivals.push_back(arrival(unroll, layout, columns).await?);
            }
            Some(Some(Kind::Progress(progress))) => return Ok(Next::Progress(progress)),
            Some(Some(Kind::Goodbye(goodbye))) => return Ok(Next::Goodbye(goodbye)),
            Some(Some(Kind::Hello(_))) => return Err(malformed("a stream says hello once").into()),
            Some(None) => return Err(malformed("a message of no known kind").into()),
        }
        bytes += arrivals.back().map_or(0, |arrival| arrival.unroll.bytes());
        if bytes >= AT_ONCE {
            return Ok(Next::MoreToCome);
        }
        match inbound.message_at_hand().await {
            Poll::Ready(next) => message = next?,
            Poll::Pending => return Ok(Next::MoreToCome),
        }
    }
}

/// Decodes and checks an unroll; off the runtime's workers, if it is to be decompressed.
async fn arrival(
    message: v1::Unroll,
    layout: &Arc<UnrollLayout>,
    columns: usize,
) -> Result<Arrival, Refused> {
    if !Unroll::is_compressed(&message) {
        return decode(message, layout, columns);
    }
    let layout = layout.clone();
    let decoding = tokio::task::spawn_blocking(move || decode(message, &layout, columns));
    decoding
        .await
        .unwrap_or_else(|failed| Err(malformed(format!("an unroll could not be decoded: {failed}"))))
}

fn decode(mut message: v1::Unroll, layout: &UnrollLayout, columns: usize) -> Result<Arrival, Refused> {
    let sequence = message.sequence;
    let progress = message.progress.take().ok_or_else(|| malformed("progress: missing"))?;
    let unroll = Unroll::from_wire(message, layout, columns)
        .map_err(|e| malformed(format!("unroll {sequence}: {e}")))?;
    Ok(Arrival { sequence, progress, unroll })
}

fn learner_message(mail: Mail) -> v1::LearnerMessage {
    let grant =
        |g: crate::pacing::Grant| v1::Grant { from: g.from, upto: g.upto, min_version: g.min_version };
    v1::LearnerMessage {
        acknowledged: mail.acknowledged,
        grants: mail.grants.into_iter().map(grant).collect(),
        finished: mail.finished,
    }
}

/// Sends versions as their turn comes, until nobody takes them any more.
async fn send_weights(
    broadcast: &Broadcast,
    mut subscription: Subscription,
    outbox: &mpsc::Sender<Result<v1::WeightsChunk, Status>>,
) {
    loop {
        let published = tokio::select! {
            next = subscription.next() => next,
            () = outbox.closed() => return,
        };
        let Some(published) = published else { return };
        let chunks = match published.chunks(broadcast) {
            Ok(chunks) => chunks,
            Err(message) => {
                let _ = outbox.send(Err(Status::internal(message))).await;
                return;
            }
        };
        for chunk in chunks {
            broadcast.sent(chunk.data.len());
            if outbox.send(Ok(chunk.clone())).await.is_err() {
                return;
            }
        }
        subscription.delivered(chunks.first().map_or(0, |chunk| chunk.length));
    }
}

#[tonic::async_trait]
impl Learner for LearnerService {
    type StreamUnrollsStream = ReceiverStream<Result<v1::LearnerMessage, Status>>;
    type WatchWeightsStream = ReceiverStream<Result<v1::WeightsChunk, Status>>;

    async fn describe(&self, _: Request<v1::DescribeRequest>) -> Result<Response<v1::Run>, Status> {
        Ok(Response::new(self.roster.run()))
    }

    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        if !self.joins.permits() {
            let limit = self.roster.limits().joins_per_second;
            return Err(Status::resource_exhausted(format!(
                "more actors join than the {limit} a second of limits.joins_per_second: come again later"
            )));
        }
        let request = request.into_inner();
        let from = request.description.clone();
        match self.roster.join(request) {
            Ok(response) => Ok(Response::new(response)),
            Err(refused) => {
                tracing::warn!(from, reason = refused.refusal.as_str_name(), "refused an actor: {refused}");
                Err(refused.into())
            }
        }
    }

    async fn stream_unrolls(
        &self,
        request: Request<Streaming<v1::ActorMessage>>,
    ) -> Result<Response<Self::StreamUnrollsStream>, Status> {
        let mut inbound = Inbound::of(request.extensions(), self.roster.limits().message_bytes)
            .ok_or_else(|| Status::internal("the service is not wrapped in SetAside"))?;
        let first = tokio::time::timeout(HELLO_TIMEOUT, inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("the stream's first message did not come"))??;
        let Some(Kind::Hello(v1::Hello { identity: Some(identity) })) = first.and_then(|m| m.kind) else {
            return Err(malformed("a stream's first message is a Hello with an identity").into());
        };
        let seat = self.roster.seat(&identity)?;
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let service = self.clone();
        tokio::spawn(async move {
            let stream = &seat.stream;
            let Err(status) = service.exchange(stream, &mut inbound, &outbox).await else { return };
            let actor = stream.key.actor;
            if status.code() == Code::InvalidArgument {
                service.intake.expel(stream.key);
                service.roster.remove(actor);
            }
            tracing::warn!(actor = actor.actor, "stream ended: {}", status.message());
            drop(seat);
            // The reader may be gone already; there is nobody else to tell.
            let _ = outbox.send(Err(status)).await;
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    async fn watch_weights(
        &self,
        request: Request<v1::WatchWeightsRequest>,
    ) -> Result<Response<Self::WatchWeightsStream>, Status> {
        let identity = request.into_inner().identity.ok_or_else(|| malformed("identity: missing"))?;
        let (actor, closed) = self.roster.authenticate(&identity)?;
        let (broadcast, subscription) = (self.broadcast.clone(), self.broadcast.subscribe(actor));
        let (outbox, stream) = mpsc::channel(OUTBOX);
        tokio::spawn(async move {
            tokio::select! {
                // Whoever is out needs no weights; the stream of unrolls says why.
                () = closed.cancelled() => {}
                () = send_weights(&broadcast, subscription, &outbox) => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};
    use impresario_common::config::RunConfig;
    use impresario_common::policy::{Snapshot, Weights};
    use impresario_common::space::{EnvironmentSpec, Space};
    use impresario_common::wire::PROTOCOL_VERSION;
    use tokio_stream::StreamExt;

    use crate::accounting::Accounting;
    use crate::lives::RunRecord;

    use super::*;

    /// A service of a policy that is at `version`, and the identity of the one actor that has joined.
    fn service(version: u64) -> (LearnerService, v1::Identity) {
        let config = RunConfig::default();
        let action = Space::Discrete { n: 2 };
        let environment = EnvironmentSpec::new(&config.environment.id, Space::boxed(&[-1.0], &[1.0]), action);
        let intake = Arc::new(Intake::new(&config, version, Accounting::default()));
        let roster = Roster::new(RunRecord::new(), &config, None, intake.clone()).unwrap();
        let joined = roster.join(v1::JoinRequest {
            protocol_version: PROTOCOL_VERSION,
            environment: Some((&environment).into()),
            workers: 1,
            copies_per_worker: 1,
            ..v1::JoinRequest::default()
        });
        let identity = joined.unwrap().identity.unwrap();
        (LearnerService::new(Arc::new(roster), intake, Arc::default()), identity)
    }

    fn publish(broadcast: &Broadcast, version: u64) {
        let tensor = Tensor::zeros(8, DType::F32, &Device::Cpu).unwrap();
        broadcast.publish(Snapshot { version, weights: Weights(vec![("w".into(), tensor)]) });
    }

    #[tokio::test]
    async fn whoever_is_granted_an_unroll_gets_the_version_for_it_before_its_turn_comes() {
        let (service, identity) = service(5);
        service.broadcast.crowd();
        let seat = service.roster.seat(&identity).unwrap();
        let request = Request::new(v1::WatchWeightsRequest { identity: Some(identity) });
        let mut weights = service.watch_weights(request).await.unwrap().into_inner();
        let (outbox, _messages) = mpsc::channel(OUTBOX);

        let watching = async {
            publish(&service.broadcast, 4);
            assert_eq!(weights.next().await.unwrap().unwrap().version, 4);
            publish(&service.broadcast, 5);
            assert_eq!(weights.next().await.unwrap().unwrap().version, 5);
        };
        tokio::select! {
            () = watching => {}
            ended = service.send(&seat.stream, &outbox) => panic!("nobody reads any more: {ended:?}"),
            () = tokio::time::sleep(Duration::from_secs(20)) => panic!("version 5 is not sent"),
        }
    }
}
