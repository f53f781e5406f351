//! What the learner's streams carry: experience in, weights out, over gRPC on loopback.
//!
//! `cargo bench -p impresario-learner --bench streams`. The real service is served on a free port, on the learner's
//! runtime; the other side is a gRPC client on a runtime of its own, in the same process: for unrolls a thread with
//! the runtime and the settings of an actor.
//!
//! * `ingest`: unrolls until they are acknowledged, hence decoded, checked and in the books. A thread in the
//!   trainer's place takes each batch at once, so that nothing waits for training.
//! * `plain_tcp`: bytes in pieces of the same size, from one thread to another that wants each piece whole. Both
//!   use one buffer for all pieces, which stays in their caches: the least that can be done. It is what ingest is
//!   measured by.
//! * `admission`: what an unroll costs in the books, among 1, 64 and 512 actors.
//! * `broadcast`: one version from its publication until every subscriber has it whole.
//! * `crowd`: with this argument, and nothing else, the same unrolls from 4 actors and from 256 in turns, each with a connection of its
//!   own; then the same with every actor subscribed to weights, of which a version is published for each batch; then with
//!   the default run's updates, too.
//!
//! After the rest, unless a filter other than `ratios` is given, ingest and plain TCP are timed in turns, and their
//! ratio is printed.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::collections::VecDeque;
use std::fmt;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use candle_core::{Device, Tensor};
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use impresario_common::config::{PolicyLagBound, RunConfig};
use impresario_common::policy::{Snapshot, Weights};
use impresario_common::space::{ElementType, EnvironmentSpec, Space};
use impresario_common::unroll::{Unroll, UnrollLayout};
use impresario_common::wire::v1::actor_message::Kind;
use impresario_common::wire::v1::learner_client::LearnerClient;
use impresario_common::wire::{MAX_FRAME_BYTES, MAX_MESSAGE_BYTES, PROTOCOL_VERSION, v1};
use impresario_learner::accounting::Accounting;
use impresario_learner::broadcast::Broadcast;
use impresario_learner::intake::{ActorKey, Intake, StreamKey};
use impresario_learner::lives::RunRecord;
use impresario_learner::roster::Roster;
use impresario_learner::run::serve;
use impresario_learner::service::LearnerService;
use impresario_learner::trainer::Trainer;
use prost::Message;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// T of every unroll.
const UNROLL_LENGTH: usize = 20;

/// Bytes that one timing moves, at least.
const BYTES_A_TIMING: usize = 16 << 20;

/// Messages handed to the connection ahead of what it can send, as an actor does.
const SEND_AHEAD: usize = 32;

/// Timings whose ratios' median counts.
const TURNS: usize = 201;

fn main() {
    impresario_common::process::limit_threads(1);
    divan::main();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments == ["--bench"] || arguments.iter().any(|argument| argument == "ratios") {
        print_ratios();
    }
    if arguments.iter().any(|argument| argument == "crowd") {
        crowd();
    }
}

/// An unroll's size.
#[derive(Debug, Clone, Copy)]
enum Size {
    /// Four numbers from each of 32 copies: the default run's.
    CartPole,
    /// The same of 416 copies.
    Wide,
    /// Images of 84 x 84 bytes from each of 32 copies.
    Pixels,
}

const SIZES: [Size; 3] = [Size::CartPole, Size::Wide, Size::Pixels];

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CartPole => "CartPole x 32",
            Self::Wide => "CartPole x 416",
            Self::Pixels => "pixels x 32",
        })
    }
}

impl Size {
    fn copies(self) -> usize {
        match self {
            Self::CartPole | Self::Pixels => 32,
            Self::Wide => 416,
        }
    }

    fn environment(self) -> EnvironmentSpec {
        let observation = match self {
            Self::CartPole | Self::Wide => Space::boxed(&[-1.0; 4], &[1.0; 4]),
            Self::Pixels => Space::Box {
                low: vec![0.0; 84 * 84],
                high: vec![255.0; 84 * 84],
                shape: vec![84, 84, 1],
                dtype: ElementType::U8,
            },
        };
        EnvironmentSpec::new("Benchmark-v0", observation, Space::Discrete { n: 2 })
    }

    fn message(self) -> v1::Unroll {
        let layout = UnrollLayout::new(UNROLL_LENGTH, &self.environment());
        Unroll::zeros(&layout, self.copies()).to_wire(&layout)
    }

    /// Bytes of one encoded unroll.
    fn bytes(self) -> usize {
        self.message().encoded_len()
    }

    /// Unrolls that make one timing.
    fn unrolls(self) -> usize {
        BYTES_A_TIMING.div_ceil(self.bytes())
    }
}

fn config(size: Size) -> RunConfig {
    let mut config = RunConfig::default();
    config.environment.id = size.environment().id;
    config.rollout.unroll_length = UNROLL_LENGTH;
    config.learner.batch_size = size.copies();
    config.learner.max_policy_lag = PolicyLagBound(None);
    // A crowd comes all at once.
    config.limits.joins_per_second = 10_000;
    config
}

/// A learner without a trainer, and a client's runtime.
struct Learner {
    intake: Arc<Intake>,
    broadcast: Arc<Broadcast>,
    url: String,
    client: Runtime,
    identity: v1::Identity,
    /// Ends the service when dropped.
    _stop: oneshot::Sender<()>,
    /// Serves; dropped last.
    _server: Runtime,
}

impl Learner {
    /// Serves, and lets one actor join.
    fn start(size: Size) -> Self {
        Self::start_with(size, &config(size))
    }

    fn start_with(size: Size, config: &RunConfig) -> Self {
        let intake = Arc::new(Intake::new(config, 0, Accounting::default()));
        let roster = Arc::new(Roster::new(RunRecord::new(), config, None, intake.clone()).unwrap());
        let broadcast = Arc::new(Broadcast::default());
        let service = LearnerService::new(roster, intake.clone(), broadcast.clone());
        let server = impresario_learner::command::runtime().unwrap();
        let listener = server.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        server.spawn(serve(service, listener, Default::default(), async {
            let _ = stopped.await;
        }));
        let client =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let joined = client.block_on(async { connect(&url).await.join(join_request(size)).await }).unwrap();
        let identity = joined.into_inner().identity.unwrap();
        Self { intake, broadcast, url, client, identity, _stop: stop, _server: server }
    }
}

impl Drop for Learner {
    fn drop(&mut self) {
        self.intake.finish();
    }
}

/// A connection of its own, with the settings of an actor's.
async fn connect(url: &str) -> LearnerClient<Channel> {
    let endpoint = Endpoint::from_shared(url.to_owned()).unwrap();
    let endpoint = endpoint.tcp_nodelay(true).initial_stream_window_size(2 << 20);
    let endpoint = endpoint.initial_connection_window_size(4 << 20).max_frame_size(MAX_FRAME_BYTES);
    let channel = endpoint.connect().await.unwrap();
    LearnerClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES)
}

/// One actor's stream of unrolls: a thread that sends as an actor's uplink does.
struct Ingest {
    /// How many to send next.
    send: mpsc::UnboundedSender<usize>,
    acknowledged: std::sync::mpsc::Receiver<()>,
    _learner: Learner,
}

impl Ingest {
    fn start(size: Size) -> Self {
        let learner = Learner::start(size);
        let intake = learner.intake.clone();
        std::thread::spawn(move || {
            let mut version = 0;
            while intake.next_batch().is_some() {
                version += 1;
                intake.trained(false, version);
            }
        });
        let (send, counts) = mpsc::unbounded_channel();
        let (tell, acknowledged) = std::sync::mpsc::channel();
        let (url, identity) = (learner.url.clone(), learner.identity.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(send_unrolls(size, url, identity, counts, tell));
        });
        Self { send, acknowledged, _learner: learner }
    }

    /// Sends `count` unrolls and waits until they are acknowledged.
    fn send(&mut self, count: usize) {
        self.send.send(count).unwrap();
        self.acknowledged.recv().unwrap();
    }
}

/// Sends as many unrolls as `counts` says, and tells when they are acknowledged.
async fn send_unrolls(
    size: Size,
    url: String,
    identity: v1::Identity,
    mut counts: mpsc::UnboundedReceiver<usize>,
    tell: std::sync::mpsc::Sender<()>,
) {
    let (up, outgoing) = mpsc::channel(SEND_AHEAD);
    up.send(v1::ActorMessage { kind: Some(Kind::Hello(v1::Hello { identity: Some(identity) })) })
        .await
        .unwrap();
    let mut client = connect(&url).await;
    let mut down = client.stream_unrolls(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
    let steps = (UNROLL_LENGTH * size.copies()) as u64;
    let message = size.message();
    let mut sequence = 0;
    while let Some(count) = counts.recv().await {
        let end = sequence + count as u64;
        let sending = async {
            while sequence < end {
                let mut unroll = message.clone();
                (unroll.sequence, unroll.grant) = (sequence, sequence);
                sequence += 1;
                let progress = v1::Progress { produced_steps: steps * sequence, ..v1::Progress::default() };
                unroll.progress = Some(progress);
                up.send(v1::ActorMessage { kind: Some(Kind::Unroll(unroll)) }).await.unwrap();
            }
        };
        let acknowledged = async { while down.message().await.unwrap().unwrap().acknowledged < end {} };
        tokio::join!(sending, acknowledged);
        tell.send(()).unwrap();
    }
}

/// The same bytes without gRPC, protobuf, checks or books.
struct PlainTcp {
    piece: Vec<u8>,
    stream: TcpStream,
    /// How many pieces to expect.
    expect: std::sync::mpsc::Sender<usize>,
    received: std::sync::mpsc::Receiver<()>,
}

impl PlainTcp {
    fn start(size: Size) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        let (expect, expected) = std::sync::mpsc::channel::<usize>();
        let (tell, received) = std::sync::mpsc::channel();
        let mut piece = vec![0; size.bytes()];
        std::thread::spawn(move || {
            for count in expected {
                for _ in 0..count {
                    peer.read_exact(&mut piece).unwrap();
                }
                tell.send(()).unwrap();
            }
        });
        Self { piece: vec![0; size.bytes()], stream, expect, received }
    }

    /// Sends `count` pieces and waits until they have arrived.
    fn send(&mut self, count: usize) {
        self.expect.send(count).unwrap();
        for _ in 0..count {
            self.stream.write_all(&self.piece).unwrap();
        }
        self.received.recv().unwrap();
    }
}

#[divan::bench(args = SIZES, sample_count = 30, sample_size = 1)]
fn ingest(bencher: Bencher<'_, '_>, size: Size) {
    let mut ingest = Ingest::start(size);
    let bytes = BytesCount::new(size.unrolls() * size.bytes());
    let unrolls = ItemsCount::new(size.unrolls());
    bencher.counter(bytes).counter(unrolls).bench_local(|| ingest.send(size.unrolls()));
}

#[divan::bench(args = SIZES, sample_count = 30, sample_size = 1)]
fn plain_tcp(bencher: Bencher<'_, '_>, size: Size) {
    let mut tcp = PlainTcp::start(size);
    let bytes = BytesCount::new(size.unrolls() * size.bytes());
    bencher.counter(bytes).bench_local(|| tcp.send(size.unrolls()));
}

fn print_ratios() {
    let seconds = |timed: &mut dyn FnMut()| {
        let start = Instant::now();
        timed();
        start.elapsed().as_secs_f64()
    };
    let median = |mut numbers: Vec<f64>| {
        numbers.sort_by(f64::total_cmp);
        numbers[numbers.len() / 2]
    };
    println!("\ningest by plain TCP: medians of {TURNS} turns, the ratio that of the turns' ratios");
    for size in SIZES {
        let (mut ingest, mut tcp) = (Ingest::start(size), PlainTcp::start(size));
        let count = size.unrolls();
        ingest.send(count);
        tcp.send(count);
        let turn = |_| (seconds(&mut || ingest.send(count)), seconds(&mut || tcp.send(count)));
        let turns: Vec<(f64, f64)> = (0..TURNS).map(turn).collect();
        let ratio = median(turns.iter().map(|(ingest, tcp)| tcp / ingest).collect());
        let rate = |times: Vec<f64>| (count * size.bytes()) as f64 / 1e6 / median(times);
        let ingest = rate(turns.iter().map(|turn| turn.0).collect());
        let tcp = rate(turns.iter().map(|turn| turn.1).collect());
        println!(
            "{:>14}, {:>7} bytes: {ingest:5.0} MB/s by {tcp:5.0} MB/s, ratio {ratio:.2}",
            size.to_string(),
            size.bytes()
        );
    }
}

/// Bookkeeping of one unroll among `actors`, the smallest there is so that nothing else is measured: its turn at the
/// intake, its share of a batch, and what its actor is told.
#[divan::bench(args = [1, 64, 512], sample_count = 100)]
fn admission(bencher: Bencher<'_, '_>, actors: u32) {
    let batch = (actors as usize / 4).max(1);
    let mut config = RunConfig::default();
    config.learner.batch_size = batch;
    config.learner.max_policy_lag = PolicyLagBound(Some(8));
    config.learner.wait_for_actors = actors as usize;
    let environment = Size::CartPole.environment();
    let layout = UnrollLayout::new(1, &environment);
    let intake = Intake::new(&config, 0, Accounting::default());
    let key = |actor| ActorKey { actor, incarnation: 1 };
    for actor in 0..actors {
        intake.join(key(actor), 1, 1, &layout);
    }
    let streams: Vec<StreamKey> = (0..actors).map(|actor| intake.connect(key(actor)).unwrap().key).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut sequences = vec![0; actors as usize];
    let (mut granted, mut queued, mut version) = (VecDeque::new(), 0, 0);
    bencher.counter(ItemsCount::new(batch)).bench_local(|| {
        for &stream in &streams {
            for grant in intake.mail(stream).unwrap().grants {
                granted.extend((grant.from..grant.upto).map(|index| (stream, index)));
            }
        }
        while queued < batch {
            let (stream, grant) = granted.pop_front().unwrap();
            let sequence = &mut sequences[stream.actor.actor as usize];
            let mut unroll = Unroll::zeros(&layout, 1);
            (unroll.grant, unroll.policy_version) = (grant, version);
            let progress = v1::Progress { produced_steps: *sequence + 1, ..v1::Progress::default() };
            runtime.block_on(intake.admit(stream, *sequence, progress, unroll)).unwrap();
            *sequence += 1;
            queued += 1;
        }
        queued -= intake.next_batch().unwrap().batch.columns;
        version += 1;
        intake.trained(false, version);
    });
}

/// Parameters of the networks whose weights are broadcast: 4-64-64-(2 + 1), and a usual one for 84 x 84 images.
const MLP: usize = 4_675;
const CONVOLUTIONAL: usize = 1_687_206;

/// Subscribers, each on a connection of its own.
struct Subscribers {
    learner: Learner,
    /// Told by each subscriber the version that it has whole.
    arrivals: mpsc::UnboundedReceiver<u64>,
    count: usize,
    weights: Weights,
    version: u64,
}

impl Subscribers {
    fn start(count: usize, parameters: usize) -> Self {
        let learner = Learner::start(Size::CartPole);
        let (arrived, arrivals) = mpsc::unbounded_channel();
        for _ in 0..count {
            let (url, identity) = (learner.url.clone(), learner.identity.clone());
            let arrived = arrived.clone();
            learner.client.spawn(async move {
                let mut client = connect(&url).await;
                let request = v1::WatchWeightsRequest { identity: Some(identity) };
                let mut chunks = client.watch_weights(request).await.unwrap().into_inner();
                while let Ok(Some(chunk)) = chunks.message().await {
                    let whole = chunk.offset + chunk.data.len() as u64 == chunk.length;
                    if whole && arrived.send(chunk.version).is_err() {
                        return;
                    }
                }
            });
        }
        let tensor = Tensor::zeros(parameters, candle_core::DType::F32, &Device::Cpu).unwrap();
        let weights = Weights(vec![("parameters".into(), tensor)]);
        let mut subscribers = Self { learner, arrivals, count, weights, version: 0 };
        // Everyone is there when everyone has the first version.
        subscribers.publish();
        subscribers
    }

    /// Publishes a version and waits until every subscriber has it.
    fn publish(&mut self) {
        self.version += 1;
        // Without it so many would pause.
        let v1::Identity { actor, incarnation, .. } = self.learner.identity;
        self.learner.broadcast.need(ActorKey { actor, incarnation }, self.version);
        self.learner.broadcast.publish(Snapshot { version: self.version, weights: self.weights.clone() });
        for _ in 0..self.count {
            assert_eq!(self.arrivals.blocking_recv(), Some(self.version), "nobody skips a version");
        }
    }
}

fn broadcast(bencher: Bencher<'_, '_>, subscribers: usize, parameters: usize) {
    let mut subscribers = Subscribers::start(subscribers, parameters);
    let bytes = BytesCount::new(subscribers.count * parameters * 4);
    let bencher = bencher.counter(bytes).counter(ItemsCount::new(subscribers.count));
    bencher.bench_local(|| subscribers.publish());
    let encodings = subscribers.learner.broadcast.encodings();
    assert_eq!(encodings, subscribers.version, "each version is encoded once, however many subscribe");
}

/// Items: deliveries to one subscriber.
#[divan::bench(args = [1, 16, 64], sample_count = 100, sample_size = 1)]
fn broadcast_mlp(bencher: Bencher<'_, '_>, subscribers: usize) {
    broadcast(bencher, subscribers, MLP);
}

/// Items: deliveries to one subscriber.
#[divan::bench(args = [1, 16, 64], sample_count = 10, sample_size = 1)]
fn broadcast_convolutional(bencher: Bencher<'_, '_>, subscribers: usize) {
    broadcast(bencher, subscribers, CONVOLUTIONAL);
}

/// Unrolls of one turn, from all actors together.
const CROWD_UNROLLS: usize = 4096;
/// Unrolls that wait for a trainer at most.
const QUEUED_UNROLLS: u64 = 64;
/// Turns of the comparison of few actors with many.
const CROWD_TURNS: usize = 15;

/// What a learner does with a crowd's unrolls.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Use {
    /// It takes them in.
    Taken,
    /// It publishes a version for each batch as well, to which every actor subscribes.
    Answered,
    /// It trains on each batch, too, as in a run.
    Trained,
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Taken => "taken in",
            Self::Answered => "taken in, weights sent to all",
            Self::Trained => "trained on, weights sent to all",
        })
    }
}

/// What stands in the trainer's place, until the run is over.
fn train_crowd(intake: &Intake, broadcast: &Broadcast, used: Use, config: &RunConfig) {
    let tensor = Tensor::zeros(MLP, candle_core::DType::F32, &Device::Cpu).unwrap();
    let weights = Weights(vec![("parameters".into(), tensor)]);
    let mut trainer = Trainer::new(config, &Size::CartPole.environment()).unwrap();
    let mut version = 0;
    while let Some(work) = intake.next_batch() {
        version += 1;
        let snapshot = match used {
            Use::Trained => {
                trainer.train(&work.batch, 0).unwrap();
                trainer.snapshot().unwrap()
            }
            Use::Taken | Use::Answered => Snapshot { version, weights: weights.clone() },
        };
        intake.trained(false, version);
        broadcast.publish(snapshot);
    }
}

/// Actors on connections of their own that send what they are told to.
struct Crowd {
    send: Vec<mpsc::UnboundedSender<usize>>,
    acknowledged: std::sync::mpsc::Receiver<()>,
    _learner: Learner,
}

impl Crowd {
    fn start(actors: usize, used: Use) -> Self {
        let size = Size::CartPole;
        let mut config = config(size);
        if used == Use::Trained {
            // So that what is acknowledged is soon trained on.
            config.learner.queue_bytes = QUEUED_UNROLLS * size.bytes() as u64;
        }
        let learner = Learner::start_with(size, &config);
        let (intake, broadcast) = (learner.intake.clone(), learner.broadcast.clone());
        std::thread::spawn(move || train_crowd(&intake, &broadcast, used, &config));
        let (tell, acknowledged) = std::sync::mpsc::channel();
        let mut send = vec![];
        for _ in 0..actors {
            let (counts, received) = mpsc::unbounded_channel();
            send.push(counts);
            let (url, tell) = (learner.url.clone(), tell.clone());
            learner.client.spawn(async move {
                let mut client = connect(&url).await;
                let identity = client.join(join_request(size)).await.unwrap().into_inner().identity.unwrap();
                if used != Use::Taken {
                    let request = v1::WatchWeightsRequest { identity: Some(identity.clone()) };
                    let mut chunks = connect(&url).await.watch_weights(request).await.unwrap().into_inner();
                    tokio::spawn(async move { while let Ok(Some(_)) = chunks.message().await {} });
                }
                send_unrolls(size, url, identity, received, tell).await;
            });
        }
        let mut crowd = Self { send, acknowledged, _learner: learner };
        crowd.send(CROWD_UNROLLS);
        crowd
    }

    /// Sends `count` unrolls, divided among all, and waits until they are acknowledged.
    fn send(&mut self, count: usize) {
        let each = count / self.send.len();
        self.send.iter().for_each(|actor| actor.send(each).unwrap());
        self.send.iter().for_each(|_| self.acknowledged.recv().unwrap());
    }
}

fn join_request(size: Size) -> v1::JoinRequest {
    v1::JoinRequest {
        protocol_version: PROTOCOL_VERSION,
        description: "benchmark".into(),
        environment: Some((&size.environment()).into()),
        workers: 1,
        copies_per_worker: size.copies() as u32,
        ..v1::JoinRequest::default()
    }
}

fn crowd() {
    let steps = (CROWD_UNROLLS * UNROLL_LENGTH * Size::CartPole.copies()) as f64;
    for used in [Use::Taken, Use::Answered, Use::Trained] {
        let (mut few, mut many) = (Crowd::start(4, used), Crowd::start(256, used));
        let timed = |crowd: &mut Crowd| {
            let start = Instant::now();
            crowd.send(CROWD_UNROLLS);
            steps / start.elapsed().as_secs_f64()
        };
        let mut turns: Vec<(f64, f64)> =
            (0..CROWD_TURNS).map(|_| (timed(&mut few), timed(&mut many))).collect();
        turns.sort_by(|a, b| (a.1 / a.0).total_cmp(&(b.1 / b.0)));
        let (few, many) = turns[CROWD_TURNS / 2];
        println!(
            "{used}: {:.2}M steps/s from 4 actors, {:.2}M from 256: {:.2} ({:.2} to {:.2})",
            few / 1e6,
            many / 1e6,
            many / few,
            turns[0].1 / turns[0].0,
            turns[CROWD_TURNS - 1].1 / turns[CROWD_TURNS - 1].0
        );
    }
}
