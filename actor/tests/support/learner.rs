//! A learner that does what the test tells it, behind a real gRPC server.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use impresario_common::config::RunConfig;
use impresario_common::policy::Snapshot;
use impresario_common::wire::v1::learner_server::{Learner, LearnerServer};
use impresario_common::wire::v1::{self, actor_message::Kind};
use impresario_common::wire::{PROTOCOL_VERSION, REFUSAL_METADATA};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Code, Request, Response, Status, Streaming};

use super::DEADLINE;

/// What the learner has seen so far.
#[derive(Debug, Default)]
pub struct Seen {
    pub joins: Vec<v1::JoinRequest>,
    /// Unrolls with the number of the stream, from 1, that brought them.
    pub unrolls: Vec<(usize, v1::Unroll)>,
    pub progress: Vec<v1::Progress>,
    pub goodbyes: Vec<v1::Progress>,
    pub streams: usize,
    pub weight_streams: usize,
    pub acknowledged: u64,
}

type Outgoing = mpsc::Sender<Result<v1::LearnerMessage, Status>>;

#[derive(Clone)]
pub struct ScriptedLearner {
    pub url: String,
    inner: Arc<Inner>,
}

struct Inner {
    configuration_json: String,
    protocol_version: Mutex<u32>,
    seen: watch::Sender<Seen>,
    /// Whether each unroll is acknowledged as it comes.
    acknowledges: AtomicBool,
    refusal: Mutex<Option<Status>>,
    incarnation: Mutex<u64>,
    outgoing: Mutex<Option<Outgoing>>,
    /// What a subscriber is sent, now and when it changes.
    weights: watch::Sender<Vec<v1::WeightsChunk>>,
    /// Ends streams of weights.
    weights_end: Notify,
}

/// A refusal in the contract's form.
pub fn refusal(refusal: v1::Refusal, message: &str) -> Status {
    let mut status = Status::new(Code::FailedPrecondition, message);
    status.metadata_mut().insert(REFUSAL_METADATA, refusal.as_str_name().parse().unwrap());
    status
}

/// The messages for `snapshot`.
pub fn chunks(snapshot: &Snapshot) -> Vec<v1::WeightsChunk> {
    let encoding = snapshot.encode().unwrap();
    let (length, crc32c) = (encoding.len() as u64, crc32c::crc32c(&encoding));
    let parts = encoding.chunks(1000).enumerate();
    let chunk = |(i, data): (usize, &[u8])| v1::WeightsChunk {
        version: snapshot.version,
        length,
        crc32c,
        offset: 1000 * i as u64,
        data: data.to_vec().into(),
        life: 0,
    };
    parts.map(chunk).collect()
}

impl ScriptedLearner {
    /// Serves a run on a port of its own.
    pub async fn start(config: &RunConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let inner = Arc::new(Inner {
            configuration_json: serde_json::to_string(config).unwrap(),
            protocol_version: Mutex::new(PROTOCOL_VERSION),
            seen: watch::Sender::new(Seen::default()),
            acknowledges: AtomicBool::new(true),
            refusal: Mutex::new(None),
            incarnation: Mutex::new(1),
            outgoing: Mutex::new(None),
            weights: watch::Sender::new(vec![]),
            weights_end: Notify::new(),
        });
        let learner = Self { url, inner };
        let service = LearnerServer::new(learner.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        learner
    }

    pub fn speak_version(&self, version: u32) {
        *self.inner.protocol_version.lock().unwrap() = version;
    }

    /// Acknowledges nothing by itself from now on.
    pub fn withhold_acknowledgements(&self) {
        self.inner.acknowledges.store(false, SeqCst);
    }

    /// Refuses to admit anyone from now on; `None` ends that.
    pub fn refuse(&self, refusal: Option<Status>) {
        *self.inner.refusal.lock().unwrap() = refusal;
    }

    /// Knows no identity any more.
    pub fn forget_actors(&self) {
        *self.inner.incarnation.lock().unwrap() += 1;
        self.inner.seen.send_modify(|seen| seen.acknowledged = 0);
    }

    pub async fn grant(&self, from: u64, upto: u64, min_version: u64) {
        let grants = vec![v1::Grant { from, upto, min_version }];
        let acknowledged = self.inner.seen.borrow().acknowledged;
        self.send(Ok(v1::LearnerMessage { acknowledged, grants, finished: false })).await;
    }

    pub async fn acknowledge(&self, acknowledged: u64) {
        self.inner.seen.send_modify(|seen| seen.acknowledged = acknowledged);
        self.send(Ok(v1::LearnerMessage { acknowledged, ..Default::default() })).await;
    }

    pub async fn finish(&self) {
        let acknowledged = self.inner.seen.borrow().acknowledged;
        self.send(Ok(v1::LearnerMessage { acknowledged, grants: vec![], finished: true })).await;
    }

    /// Breaks the stream of unrolls.
    pub async fn cut(&self) {
        self.send(Err(Status::unavailable("cut by the test"))).await;
        *self.inner.outgoing.lock().unwrap() = None;
    }

    async fn send(&self, message: Result<v1::LearnerMessage, Status>) {
        let outgoing = self.inner.outgoing.lock().unwrap().clone();
        outgoing.expect("there is no stream").send(message).await.expect("the stream has ended");
    }

    /// Ends the streams of weights there are.
    pub fn end_weights(&self) {
        self.inner.weights_end.notify_waiters();
    }

    pub fn publish(&self, chunks: Vec<v1::WeightsChunk>) {
        self.inner.weights.send_replace(chunks);
    }

    /// Looks at what was seen.
    pub fn seen<R>(&self, look: impl FnOnce(&Seen) -> R) -> R {
        look(&self.inner.seen.borrow())
    }

    /// Waits until what was seen is as expected.
    pub async fn until(&self, what: &str, expected: impl FnMut(&Seen) -> bool) {
        let mut seen = self.inner.seen.subscribe();
        let wait = tokio::time::timeout(DEADLINE, seen.wait_for(expected)).await.map(|seen| seen.is_ok());
        if wait != Ok(true) {
            panic!("waited in vain until {what}; seen: {:?}", self.inner.seen.borrow());
        }
    }

    fn know(&self, identity: &v1::Identity) -> Result<(), Status> {
        match identity.incarnation == *self.inner.incarnation.lock().unwrap() {
            true => Ok(()),
            false => Err(refusal(v1::Refusal::Identity, "unknown here")),
        }
    }
}

#[tonic::async_trait]
impl Learner for ScriptedLearner {
    type StreamUnrollsStream = ReceiverStream<Result<v1::LearnerMessage, Status>>;
    type WatchWeightsStream = ReceiverStream<Result<v1::WeightsChunk, Status>>;

    async fn describe(&self, _: Request<v1::DescribeRequest>) -> Result<Response<v1::Run>, Status> {
        Ok(Response::new(v1::Run {
            run_id: "run".into(),
            protocol_version: *self.inner.protocol_version.lock().unwrap(),
            configuration_json: self.inner.configuration_json.clone(),
        }))
    }

    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        if let Some(refusal) = self.inner.refusal.lock().unwrap().clone() {
            return Err(refusal);
        }
        let request = request.into_inner();
        let held = request.identity.clone();
        self.inner.seen.send_modify(|seen| seen.joins.push(request));
        let incarnation = *self.inner.incarnation.lock().unwrap();
        let identity = v1::Identity { run_id: "run".into(), actor: 0, incarnation };
        if let Some(held) = &held {
            self.know(held)?;
        }
        let resume_sequence = self.inner.seen.borrow().acknowledged;
        Ok(Response::new(v1::JoinResponse {
            identity: Some(identity),
            resume_sequence,
            ..Default::default()
        }))
    }

    async fn stream_unrolls(
        &self,
        request: Request<Streaming<v1::ActorMessage>>,
    ) -> Result<Response<Self::StreamUnrollsStream>, Status> {
        let mut incoming = request.into_inner();
        let first = incoming.message().await?.and_then(|message| message.kind);
        let Some(Kind::Hello(v1::Hello { identity: Some(identity) })) = first else {
            return Err(refusal(v1::Refusal::Malformed, "a stream begins with a Hello"));
        };
        self.know(&identity)?;
        let (outgoing, messages) = mpsc::channel(16);
        *self.inner.outgoing.lock().unwrap() = Some(outgoing);
        let learner = self.clone();
        let mut stream = 0;
        self.inner.seen.send_modify(|seen| {
            seen.streams += 1;
            stream = seen.streams;
        });
        tokio::spawn(async move {
            while let Ok(Some(v1::ActorMessage { kind: Some(kind) })) = incoming.message().await {
                learner.take_in(stream, kind).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    async fn watch_weights(
        &self,
        request: Request<v1::WatchWeightsRequest>,
    ) -> Result<Response<Self::WatchWeightsStream>, Status> {
        self.know(&request.into_inner().identity.unwrap_or_default())?;
        let (outgoing, chunks) = mpsc::channel(16);
        let mut weights = self.inner.weights.subscribe();
        self.inner.seen.send_modify(|seen| seen.weight_streams += 1);
        let inner = self.inner.clone();
        tokio::spawn(async move {
            let end = inner.weights_end.notified();
            tokio::pin!(end);
            loop {
                let current = weights.borrow_and_update().clone();
                for chunk in current {
                    if outgoing.send(Ok(chunk)).await.is_err() {
                        return;
                    }
                }
                tokio::select! {
                    changed = weights.changed() => if changed.is_err() { return },
                    () = &mut end => return,
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(chunks)))
    }
}

impl ScriptedLearner {
    async fn take_in(&self, stream: usize, kind: Kind) {
        match kind {
            Kind::Unroll(unroll) => {
                let acknowledges = self.inner.acknowledges.load(SeqCst);
                let acknowledged = unroll.sequence + 1;
                self.inner.seen.send_modify(|seen| seen.unrolls.push((stream, unroll)));
                if acknowledges {
                    self.acknowledge(acknowledged).await;
                }
            }
            Kind::Progress(progress) => self.inner.seen.send_modify(|seen| seen.progress.push(progress)),
            Kind::Goodbye(goodbye) => {
                let progress = goodbye.progress.expect("a Goodbye has the final counters");
                // Ends the stream.
                *self.inner.outgoing.lock().unwrap() = None;
                self.inner.seen.send_modify(|seen| seen.goodbyes.push(progress));
            }
            Kind::Hello(_) => panic!("a second Hello"),
        }
    }
}
