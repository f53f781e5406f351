//! Broadcast: one encoding per version, fanned out to every subscriber.
//!
//! The trainer publishes each version; subscribers are woken and take the newest. A version is encoded when
//! the first subscriber is ready for it, and not at all if none is before the next one.

mod subscription;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::sync::watch;

use impresario_common::policy::{PolicyError, Snapshot};
use impresario_common::wire::v1::WeightsChunk;

use crate::intake::ActorKey;
use subscription::Needs;
pub use subscription::Subscription;

/// Bytes of the encoding in one message: small enough that a connection's other streams are not held up,
/// large enough that a message's overhead does not show.
const CHUNK_BYTES: usize = 256 << 10;

/// One version, encoded at most once.
#[derive(Debug)]
pub struct Published {
    snapshot: Snapshot,
    chunks: OnceLock<Result<Vec<WeightsChunk>, String>>,
}

impl Published {
    /// The version's messages. Their data is shared, not copied.
    ///
    /// # Errors
    /// If the weights cannot be encoded.
    pub fn chunks(&self, broadcast: &Broadcast) -> Result<&[WeightsChunk], String> {
        let chunks = self.chunks.get_or_init(|| {
            broadcast.encodings.fetch_add(1, Ordering::Relaxed);
            encode(&self.snapshot, broadcast.life).map_err(|e| e.to_string())
        });
        chunks.as_deref().map_err(Clone::clone)
    }
}

fn encode(snapshot: &Snapshot, life: u64) -> Result<Vec<WeightsChunk>, PolicyError> {
    let encoding = Bytes::from(snapshot.encode()?);
    let crc32c = crc32c::crc32c(&encoding);
    let chunk = |offset: usize| WeightsChunk {
        version: snapshot.version,
        length: encoding.len() as u64,
        crc32c,
        offset: offset as u64,
        data: encoding.slice(offset..encoding.len().min(offset + CHUNK_BYTES)),
        life,
    };
    Ok((0..encoding.len()).step_by(CHUNK_BYTES).map(chunk).collect())
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Broadcast {
    newest: watch::Sender<Option<Arc<Published>>>,
    encodings: AtomicU64,
    bytes_sent: AtomicU64,
    needs: Needs,
    /// The life of the run that the versions are of.
    life: u64,
}

impl Default for Broadcast {
    fn default() -> Self {
        Self::of_life(0)
    }
}

impl Broadcast {
    /// For the versions that a life of the run makes.
    pub fn of_life(life: u64) -> Self {
        let (encodings, bytes_sent) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { newest: watch::Sender::new(None), encodings, bytes_sent, needs: Needs::default(), life }
    }

    /// Makes `snapshot` the newest version.
    pub fn publish(&self, snapshot: Snapshot) {
        let published = Published { snapshot, chunks: OnceLock::new() };
        self.newest.send_replace(Some(Arc::new(published)));
    }

    /// Subscribes for `actor`, to the newest version and newer ones.
    pub fn subscribe(self: &Arc<Self>, actor: ActorKey) -> Subscription {
        Subscription::new(self.clone(), actor)
    }

    /// `actor` is to act with `version` or a newer one, and gets it without delay.
    pub fn need(&self, actor: ActorKey, version: u64) {
        self.needs.raise(actor, version);
    }

    /// A chunk of `bytes` bytes went to a subscriber.
    pub fn sent(&self, bytes: usize) {
        self.bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes sent to subscribers so far.
    pub fn bytes_sent(&self) -> u64 {
        self.bytes_sent.load(Ordering::Relaxed)
    }

    /// Versions encoded so far.
    pub fn encodings(&self) -> u64 {
        self.encodings.load(Ordering::Relaxed)
    }

    /// As if there were so many subscribers that a pause is as good as for ever.
    #[cfg(test)]
    pub(crate) fn crowd(&self) {
        self.needs.crowd();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};
    use impresario_common::policy::Weights;

    fn snapshot(version: u64, elements: usize) -> Snapshot {
        let tensor = Tensor::from_vec(vec![0.5f32; elements], elements, &Device::Cpu).unwrap();
        Snapshot { version, weights: Weights(vec![("w".into(), tensor)]) }
    }

    #[test]
    fn a_version_is_encoded_once_however_many_subscribe_and_chunks_rebuild_it() {
        let broadcast = Broadcast::default();
        broadcast.publish(snapshot(1, 200_000));
        for _ in 0..64 {
            let published = broadcast.newest.borrow().clone().unwrap();
            let chunks = published.chunks(&broadcast).unwrap();
            assert_eq!(chunks.len(), 4);
            let whole: Vec<u8> = chunks.iter().flat_map(|c| c.data.to_vec()).collect();
            assert_eq!(whole.len() as u64, chunks[0].length);
            assert_eq!(crc32c::crc32c(&whole), chunks[0].crc32c);
            assert_eq!(Snapshot::decode(&whole).unwrap().version, 1);
        }
        assert_eq!(broadcast.encodings(), 1);
    }

    #[tokio::test]
    async fn a_slow_subscriber_skips_to_the_latest_version_and_skipped_ones_are_never_encoded() {
        let broadcast = Arc::new(Broadcast::default());
        let mut slow = broadcast.subscribe(ActorKey { actor: 0, incarnation: 0 });
        for version in 1..=10 {
            broadcast.publish(snapshot(version, 8));
        }
        let newest = slow.next().await.unwrap();
        assert_eq!(newest.chunks(&broadcast).unwrap()[0].version, 10);
        assert_eq!(broadcast.encodings(), 1);
    }
}
