//! Weights from the learner: chunks become snapshots, snapshots policies, and the newest policy is swapped in
//! whole. Rollout workers read it between unrolls.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use impresario_common::policy::{Policy, PolicyError, PolicySpec, Snapshot};
use impresario_common::wire::v1;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Streaming;

use crate::connection::{Address, CallError, Patience};
use crate::error::ActorError;
use crate::gate::Gate;
use crate::grants::Permission;
use crate::rollout::Crew;

/// Largest encoding accepted.
const MAX_WEIGHTS_BYTES: u64 = 1 << 30;
/// Room made for an encoding before any of it has arrived: what a message claims is not believed.
const MAX_INITIAL_ROOM: usize = 16 << 20;
/// Time for which a complete version may wait undecoded because a newer one keeps coming in.
const MAX_DECODE_DELAY: Duration = Duration::from_millis(20);

/// One version of the policy, ready to act.
#[derive(Debug)]
pub(crate) struct ActingPolicy {
    pub(crate) version: u64,
    /// The life of the run that made the version.
    pub(crate) life: u64,
    pub(crate) policy: Policy,
}

/// The newest policy, shared by all workers.
#[derive(Debug, Default)]
pub(crate) struct LatestPolicy {
    latest: ArcSwapOption<ActingPolicy>,
    /// Whether nobody should wait any more.
    closed: Gate<bool>,
}

impl LatestPolicy {
    /// Swaps `policy` in. What the learner sends last is the newest, whatever its number: it may have gone
    /// back to a checkpoint.
    pub(crate) fn publish(&self, policy: ActingPolicy) {
        self.latest.store(Some(Arc::new(policy)));
        self.closed.update(|_| ());
    }

    /// Waits for a policy that `permission` permits to act with; `None` when there will be none, because the actor is
    /// stopping or `is_void` says so.
    pub(crate) fn wait_for(
        &self,
        permission: Permission,
        is_void: impl Fn() -> bool,
        spent: &AtomicU64,
    ) -> Option<Arc<ActingPolicy>> {
        let Permission { min_version, life, .. } = permission;
        // A version's number means another one in another life.
        let fits = |latest: &Arc<ActingPolicy>| latest.version >= min_version && latest.life >= life;
        let fresh = || self.latest.load_full().filter(fits);
        if let Some(policy) = fresh() {
            return Some(policy);
        }
        self.closed
            .wait(spent, |&mut closed| if closed || is_void() { Some(None) } else { fresh().map(Some) })
    }

    /// Has whoever waits ask again whether its permission is void.
    pub(crate) fn look_again(&self) {
        self.closed.update(|_| ());
    }

    /// Lets nobody wait any more.
    pub(crate) fn close(&self) {
        self.closed.update(|closed| *closed = true);
    }
}

/// Puts chunks together.
#[derive(Debug, Default)]
struct Assembler {
    /// What the first chunk of the version in hand said; `None` between versions.
    header: Option<Header>,
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    version: u64,
    life: u64,
    length: u64,
    crc32c: u32,
}

impl Assembler {
    /// Adds a chunk; true when it completes a version, whose encoding then lies in `bytes`.
    ///
    /// # Errors
    /// If the chunk is out of order, or the version is too large or damaged.
    fn add(&mut self, chunk: &v1::WeightsChunk) -> Result<bool, String> {
        let v1::WeightsChunk { version, life, length, crc32c, .. } = *chunk;
        let header = Header { version, life, length, crc32c };
        match self.header {
            Some(current) if current != header => {
                return Err(format!(
                    "version {} was broken off by a chunk of version {}",
                    current.version, header.version
                ));
            }
            Some(_) => {}
            None if header.length == 0 || header.length > MAX_WEIGHTS_BYTES => {
                return Err(format!("version {} claims {} bytes", header.version, header.length));
            }
            None => {
                self.header = Some(header);
                self.bytes.clear();
                self.bytes.reserve((header.length as usize).min(MAX_INITIAL_ROOM));
            }
        }
        let (here, rest) = (self.bytes.len() as u64, header.length - self.bytes.len() as u64);
        let size = chunk.data.len() as u64;
        if chunk.offset != here || size == 0 || size > rest {
            return Err(format!(
                "a chunk of version {} holds {size} bytes at offset {}, expected 1 to {rest} at {here}",
                header.version, chunk.offset
            ));
        }
        self.bytes.extend_from_slice(&chunk.data);
        if size < rest {
            return Ok(false);
        }
        self.header = None;
        let crc32c = crc32c::crc32c(&self.bytes);
        if crc32c != header.crc32c {
            return Err(format!(
                "version {} is damaged: its checksum is {crc32c:08x}, expected {:08x}",
                header.version, header.crc32c
            ));
        }
        Ok(true)
    }
}

/// How the downlink ended without an error of this actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DownlinkEnd {
    /// The run is over.
    Finished,
    /// The learner does not know this actor any more.
    IdentityRefused(String),
}

/// The stream of weights, kept up for as long as the actor lives.
pub(crate) struct Downlink {
    pub(crate) address: Address,
    pub(crate) identity: v1::Identity,
    pub(crate) spec: PolicySpec,
    pub(crate) crew: Arc<Crew>,
    /// Whether the uplink reaches the learner: while it does not, it speaks for both.
    pub(crate) connected: watch::Receiver<bool>,
    pub(crate) patience: Patience,
}

/// Why a stream of weights ended.
enum Interruption {
    /// The learner ended it, or never began it.
    Call(CallError),
    /// What came is not a sequence of versions.
    Damaged(String),
    /// The weights fit another policy.
    Policy(PolicyError),
}

impl Downlink {
    /// Receives weights until the run ends.
    ///
    /// # Errors
    /// If the learner refuses, sends weights of another policy, or stays away too long.
    pub(crate) async fn run(mut self) -> Result<DownlinkEnd, ActorError> {
        loop {
            if self.connected.wait_for(|&up| up).await.is_err() {
                // The uplink is gone for good, and with it the reason to receive weights.
                return std::future::pending().await;
            }
            let interruption = self.watch().await;
            if self.crew.stop_flag().load(Relaxed) {
                // The learner ends this stream with the actor's account.
                return std::future::pending().await;
            }
            match interruption {
                Interruption::Call(CallError::Refused { refusal, message }) => match refusal {
                    v1::Refusal::Finished => return Ok(DownlinkEnd::Finished),
                    v1::Refusal::Identity => return Ok(DownlinkEnd::IdentityRefused(message)),
                    _ => return Err(self.address.refused(message)),
                },
                Interruption::Call(CallError::Untrusted(problem)) => {
                    return Err(self.address.untrusted(problem));
                }
                Interruption::Policy(error) => return Err(error.into()),
                Interruption::Call(CallError::Unreachable(problem)) => {
                    self.patience.pause(&format!("stream of weights: {problem}")).await?;
                }
                Interruption::Damaged(problem) => {
                    self.patience.pause(&format!("unusable weights: {problem}")).await?;
                }
            }
        }
    }

    /// Receives weights until the stream ends.
    async fn watch(&mut self) -> Interruption {
        match self.receive().await {
            Ok(never) => match never {},
            Err(interruption) => interruption,
        }
    }

    async fn receive(&mut self) -> Result<std::convert::Infallible, Interruption> {
        let mut client = self.address.connect().await.map_err(Interruption::Call)?;
        let request = v1::WatchWeightsRequest { identity: Some(self.identity.clone()) };
        let response = client.watch_weights(request).await;
        let mut chunks = response.map_err(|status| Interruption::Call(status.into()))?.into_inner();
        let mut incoming = Assembler::default();
        // The version of the newest complete encoding and its life, and since when there is one.
        let mut complete: Option<(u64, u64, Instant)> = None;
        let mut encoding = vec![];
        loop {
            let more = match complete {
                None => Some(next(&mut chunks).await?),
                Some((_, _, since)) if since.elapsed() < MAX_DECODE_DELAY => {
                    next_if_ready(&mut chunks).await?
                }
                Some(_) => None,
            };
            if let Some(chunk) = more {
                if incoming.add(&chunk).map_err(Interruption::Damaged)? {
                    std::mem::swap(&mut incoming.bytes, &mut encoding);
                    let since = complete.map_or_else(Instant::now, |(_, _, since)| since);
                    complete = Some((chunk.version, chunk.life, since));
                }
            } else if let Some((version, life, _)) = complete.take() {
                self.decode(version, life, &encoding)?;
            }
        }
    }

    fn decode(&mut self, version: u64, life: u64, encoding: &[u8]) -> Result<(), Interruption> {
        let snapshot = Snapshot::decode(encoding).map_err(Interruption::Policy)?;
        if snapshot.version != version {
            let inside = snapshot.version;
            return Err(Interruption::Damaged(format!("version {version} calls itself {inside} inside")));
        }
        let policy = Policy::new(&self.spec, &snapshot.weights).and_then(Policy::packed);
        let policy = policy.map_err(Interruption::Policy)?;
        tracing::debug!(version, bytes = encoding.len(), "new weights");
        self.crew.latest.publish(ActingPolicy { version, life, policy });
        self.patience.renew();
        Ok(())
    }
}

/// The next chunk.
async fn next(chunks: &mut Streaming<v1::WeightsChunk>) -> Result<v1::WeightsChunk, Interruption> {
    match chunks.message().await {
        Ok(Some(chunk)) => Ok(chunk),
        Ok(None) => Err(Interruption::Call(CallError::Unreachable("the learner ended it".into()))),
        Err(status) => Err(Interruption::Call(status.into())),
    }
}

/// The next chunk if it has arrived already.
async fn next_if_ready(
    chunks: &mut Streaming<v1::WeightsChunk>,
) -> Result<Option<v1::WeightsChunk>, Interruption> {
    tokio::select! {
        biased;
        chunk = next(chunks) => chunk.map(Some),
        () = std::future::ready(()) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(version: u64, data: &[u8], size: usize) -> Vec<v1::WeightsChunk> {
        let (length, crc32c) = (data.len() as u64, crc32c::crc32c(data));
        let chunk = |(i, data): (usize, &[u8])| v1::WeightsChunk {
            version,
            length,
            crc32c,
            offset: (i * size) as u64,
            data: data.to_vec().into(),
            life: 0,
        };
        data.chunks(size).enumerate().map(chunk).collect()
    }

    #[test]
    fn chunks_in_order_make_a_version_and_the_next_one_can_follow() {
        let mut assembler = Assembler::default();
        for (version, data) in [(1, b"0123456789".as_slice()), (4, b"abc")] {
            let chunks = chunks(version, data, 4);
            let complete: Vec<bool> = chunks.iter().map(|c| assembler.add(c).unwrap()).collect();
            assert_eq!(complete.iter().rposition(|&c| !c).map_or(0, |i| i + 1), chunks.len() - 1);
            assert_eq!(assembler.bytes, data);
        }
    }

    #[test]
    fn whoever_reads_while_versions_are_swapped_sees_each_of_them_whole() {
        use candle_core::{Device, Tensor};
        use impresario_common::config::PolicySection;
        use impresario_common::space::{EnvironmentSpec, Space};

        let environment =
            EnvironmentSpec::new("Test-v0", Space::boxed(&[-1.0; 2], &[1.0; 2]), Space::Discrete { n: 2 });
        let spec = PolicySpec::new(&environment, &PolicySection::default()).unwrap();
        let initial = spec.initialise(1).unwrap();
        let acting = |version: u64| {
            let mut weights = initial.copied().unwrap();
            for (name, tensor) in &mut weights.0 {
                // Every bias of the version is its number, every weight 0: so is every output.
                let value = if name.ends_with("bias") { version as f32 } else { 0.0 };
                *tensor = Tensor::full(value, tensor.dims(), &Device::Cpu).unwrap();
            }
            ActingPolicy { version, life: 0, policy: Policy::new(&spec, &weights).unwrap() }
        };
        const LAST: u64 = 2000;
        let latest = LatestPolicy::default();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let (mut newest, spent) = (0, AtomicU64::new(0));
                    while newest < LAST {
                        let permission = Permission { grant: 0, min_version: newest.max(1), life: 0 };
                        let acting = latest.wait_for(permission, || false, &spent).expect("nobody closes it");
                        assert!(acting.version >= newest, "versions do not run backwards");
                        newest = acting.version;
                        let seen = Tensor::zeros((1, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
                        let output = acting.policy.forward(&seen).unwrap();
                        let logits = output.distribution.to_vec2::<f32>().unwrap();
                        assert_eq!(logits, [[newest as f32; 2]]);
                        assert_eq!(output.values.to_vec1::<f32>().unwrap(), [newest as f32]);
                    }
                });
            }
            for version in 1..=LAST {
                latest.publish(acting(version));
            }
        });
    }

    #[test]
    fn what_is_not_a_whole_version_is_refused() {
        let refused = |change: &dyn Fn(&mut Vec<v1::WeightsChunk>), expected: &str| {
            let mut chunks = chunks(1, b"0123456789", 4);
            change(&mut chunks);
            let mut assembler = Assembler::default();
            let error = chunks.iter().find_map(|chunk| assembler.add(chunk).err()).unwrap();
            assert!(error.contains(expected), "{error:?} does not say {expected:?}");
        };
        refused(&|c| drop(c.remove(1)), "expected 1 to 6 at 4");
        refused(&|c| c.swap(0, 1), "expected 1 to 10 at 0");
        refused(&|c| c[1].version = 2, "broken off by a chunk of version 2");
        refused(&|c| c[2].data = b"xxx".as_slice().into(), "expected 1 to 2 at 8");
        refused(&|c| c[1].data = b"".as_slice().into(), "0 bytes");
        refused(&|c| c[2].data = b"xx".as_slice().into(), "damaged");
        refused(&|c| c[0].length = 0, "claims 0 bytes");
        refused(&|c| c[0].length = u64::MAX, "claims");
    }
}
