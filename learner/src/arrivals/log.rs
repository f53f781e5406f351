//! [`ArrivalLog`]: the thread that writes arrivals down, so that neither streams nor the trainer wait for hashes and disks.
//!
//! What waits to be written is bounded: the trainer waits when it is too much, and actors with it. Where the disk refuses, the
//! records end with the last whole one that reached it, the log says since when they are incomplete, and the run goes on without.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use impresario_common::policy::Weights;
use impresario_common::unroll::{Unroll, UnrollLayout};
use parking_lot::{Condvar, Mutex};

use super::frames::{self, RecordError};
use super::{Arrival, Begin, End, Event, MAGIC, Part, Record, Trained};
use crate::intake::ActorKey;

/// Bytes of experience and weights that may wait to be written.
const MAX_WAITING: u64 = 64 << 20;

/// Bytes handed to the file at once, in whole records.
const BUFFER: usize = 1 << 20;

/// What is to be written.
enum Note {
    Arrival { number: u64, from: ActorKey, sequence: u64, unroll: Arc<Unroll> },
    Trained { parts: Vec<Part>, policy_version: u64, weights: Weights, skipped: bool },
}

impl Note {
    /// Bytes that it holds on to until it is written.
    fn bytes(&self) -> u64 {
        match self {
            Self::Arrival { unroll, .. } => unroll.bytes() as u64,
            Self::Trained { weights, .. } => {
                let numbers: usize = weights.0.iter().map(|(_, tensor)| tensor.elem_count()).sum();
                (numbers * size_of::<f32>()) as u64
            }
        }
    }
}

/// Bytes that wait.
#[derive(Debug, Default)]
struct Backlog {
    bytes: Mutex<u64>,
    shrunk: Condvar,
}

/// See the module's documentation. Dropping it waits until all is written.
#[derive(Debug)]
pub struct ArrivalLog {
    notes: Option<Sender<Note>>,
    backlog: Arc<Backlog>,
    thread: Option<JoinHandle<()>>,
}

impl ArrivalLog {
    /// Starts the records of a life in `run_dir`; `layout` is that of its unrolls.
    ///
    /// # Errors
    /// If there can be no file or no thread.
    pub fn start(run_dir: &Path, begin: Begin, layout: UnrollLayout) -> Result<Self, RecordError> {
        let path = super::records_path(run_dir, begin.life);
        let io = |source| RecordError::Io { action: "write", path: path.clone(), source };
        std::fs::create_dir_all(super::folder(run_dir)).map_err(io)?;
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path).map_err(io)?;
        let mut scribe = Scribe::begin(file, path.clone(), begin, layout).map_err(io)?;
        let (notes, theirs) = channel();
        let backlog = Arc::new(Backlog::default());
        let shared = backlog.clone();
        let thread = std::thread::Builder::new()
            .name("arrivals".into())
            .spawn(move || scribe.write_all(&theirs, &shared))
            .map_err(io)?;
        Ok(Self { notes: Some(notes), backlog, thread: Some(thread) })
    }

    /// An unroll was admitted as arrival `number`.
    pub fn arrived(&self, number: u64, from: ActorKey, sequence: u64, unroll: Arc<Unroll>) {
        self.send(Note::Arrival { number, from, sequence, unroll });
    }

    /// A batch of `parts` was trained on, and `weights` are the policy's now. Waits while much is to be written.
    pub fn trained(&self, parts: Vec<Part>, policy_version: u64, weights: Weights, skipped: bool) {
        self.send(Note::Trained { parts, policy_version, weights, skipped });
        let mut bytes = self.backlog.bytes.lock();
        self.backlog.shrunk.wait_while(&mut bytes, |bytes| *bytes > MAX_WAITING);
    }

    fn send(&self, note: Note) {
        if let Some(notes) = &self.notes {
            *self.backlog.bytes.lock() += note.bytes();
            // Its thread lives as long as this.
            let _ = notes.send(note);
        }
    }
}

impl Drop for ArrivalLog {
    fn drop(&mut self) {
        self.notes = None;
        if let Some(thread) = self.thread.take() {
            // A panic has been reported by its thread.
            let _ = thread.join();
        }
    }
}

/// How far records go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Extent {
    /// Bytes of whole records.
    bytes: u64,
    /// Arrivals among them.
    arrivals: u64,
    /// Updates among them.
    updates: u64,
    /// The policy's version by then.
    policy_version: u64,
}

/// What becomes of records: a file.
trait Disk: std::io::Write {
    /// Cuts it to `bytes` bytes.
    fn cut(&mut self, bytes: u64) -> std::io::Result<()>;
    /// Bytes that it has.
    fn length(&mut self) -> std::io::Result<u64>;
    /// Makes it last.
    fn sync(&mut self) -> std::io::Result<()>;
}

impl Disk for File {
    fn cut(&mut self, bytes: u64) -> std::io::Result<()> {
        self.set_len(bytes)
    }

    fn length(&mut self) -> std::io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn sync(&mut self) -> std::io::Result<()> {
        self.sync_all()
    }
}

/// Writes records.
struct Scribe<D> {
    disk: D,
    path: PathBuf,
    /// Whole records that the file has not been given yet,
    pending: Vec<u8>,
    /// and how far the records go with each of them.
    ends: VecDeque<Extent>,
    /// How far the records go that are in the file.
    whole: Extent,
    layout: UnrollLayout,
    content: bool,
    /// The disk has refused, and nothing more is written.
    broken: bool,
}

impl<D: Disk> Scribe<D> {
    /// Of an empty file, to which it says what it is, whatever becomes of the learner.
    fn begin(disk: D, path: PathBuf, begin: Begin, layout: UnrollLayout) -> std::io::Result<Self> {
        let whole = Extent { policy_version: begin.policy_version, ..Extent::default() };
        let mut scribe = Self {
            disk,
            path,
            pending: MAGIC.to_vec(),
            ends: VecDeque::new(),
            whole,
            layout,
            content: begin.content,
            broken: false,
        };
        scribe.add(&Record { event: Some(Event::Begin(begin)) })?;
        scribe.flush()?;
        Ok(scribe)
    }

    fn write_all(&mut self, notes: &Receiver<Note>, backlog: &Backlog) {
        while let Ok(note) = notes.recv() {
            let bytes = note.bytes();
            if !self.broken {
                self.note(note);
            }
            *backlog.bytes.lock() -= bytes;
            backlog.shrunk.notify_all();
        }
        if !self.broken {
            self.write(&Record { event: Some(Event::End(End {})) });
        }
        if !self.broken {
            let synced = self.flush().and_then(|()| self.disk.sync());
            synced.unwrap_or_else(|error| self.give_up(&error));
        }
    }

    fn note(&mut self, note: Note) {
        let event = match note {
            Note::Arrival { number, from, sequence, unroll } => {
                let (message, hash) = super::content_hash(&unroll, &self.layout);
                Event::Arrival(Arrival {
                    number,
                    actor: from.actor,
                    incarnation: from.incarnation,
                    sequence,
                    policy_version: unroll.policy_version,
                    copies: unroll.copies as u32,
                    hash,
                    content: self.content.then_some(message),
                })
            }
            Note::Trained { parts, policy_version, weights, skipped } => {
                match super::weights_hash(&weights) {
                    Ok(hash) => Event::Trained(Trained { parts, policy_version, hash, skipped }),
                    Err(error) => return self.give_up(&error),
                }
            }
        };
        self.write(&Record { event: Some(event) });
    }

    fn write(&mut self, record: &Record) {
        let mut written = self.add(record);
        if self.pending.len() >= BUFFER {
            written = written.and_then(|()| self.flush());
        }
        written.unwrap_or_else(|error| self.give_up(&error));
    }

    /// Adds a record to what is pending.
    fn add(&mut self, record: &Record) -> std::io::Result<()> {
        frames::write(&mut self.pending, record)?;
        let mut extent = self.ends.back().copied().unwrap_or(self.whole);
        match &record.event {
            Some(Event::Arrival(_)) => extent.arrivals += 1,
            Some(Event::Trained(trained)) => {
                extent.updates += 1;
                extent.policy_version = trained.policy_version;
            }
            _ => {}
        }
        extent.bytes = self.whole.bytes + self.pending.len() as u64;
        self.ends.push_back(extent);
        Ok(())
    }

    /// Gives the file what is pending.
    fn flush(&mut self) -> std::io::Result<()> {
        self.disk.write_all(&self.pending)?;
        self.pending.clear();
        self.whole = self.ends.drain(..).next_back().unwrap_or(self.whole);
        Ok(())
    }

    /// Writes no more. What is whole of the records stays, as far as the file takes it.
    fn give_up(&mut self, error: &dyn std::fmt::Display) {
        self.broken = true;
        // After a failure in the middle of the pending records, their beginning may be there already.
        let there = self.disk.length().unwrap_or(self.whole.bytes);
        if let Some(done) = there.checked_sub(self.whole.bytes)
            && let Some(missing) = self.pending.get(done as usize..)
        {
            // What it refuses is told below.
            let _ = self.disk.write_all(missing);
        }
        let reached = self.disk.length().unwrap_or(self.whole.bytes);
        self.whole = self.ends.drain(..).rfind(|end| end.bytes <= reached).unwrap_or(self.whole);
        self.pending = vec![];
        // The end may be part of a record all the same, which whoever reads it is told.
        let _ = self.disk.cut(self.whole.bytes).and_then(|()| self.disk.sync());
        let Extent { arrivals, updates, policy_version, .. } = self.whole;
        tracing::error!(
            arrivals,
            updates,
            policy_version,
            "cannot write {}: {error}; the arrivals on record are incomplete from here: they end with unroll {arrivals} and update \
             {updates}, which made version {policy_version}, and the run goes on without",
            self.path.display()
        );
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};
    use impresario_common::space::Space;

    use super::super::Frames;
    use super::*;

    /// A disk with room for so many bytes.
    struct Small {
        bytes: Vec<u8>,
        room: usize,
    }

    impl std::io::Write for Small {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let taken = bytes.len().min(self.room - self.bytes.len());
            if taken == 0 && !bytes.is_empty() {
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            self.bytes.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Disk for Small {
        fn cut(&mut self, bytes: u64) -> std::io::Result<()> {
            self.bytes.truncate(bytes as usize);
            Ok(())
        }

        fn length(&mut self) -> std::io::Result<u64> {
            Ok(self.bytes.len() as u64)
        }

        fn sync(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn scribe(room: usize) -> Scribe<Small> {
        let layout =
            UnrollLayout::of_spaces(4, Space::boxed(&[0.0; 300], &[1.0; 300]), Space::Discrete { n: 2 });
        let disk = Small { bytes: vec![], room };
        let begin = Begin { policy_version: 5, content: true, ..Begin::default() };
        Scribe::begin(disk, "life-0.records".into(), begin, layout).unwrap()
    }

    fn arrival(scribe: &Scribe<Small>, number: u64) -> Note {
        let unroll = Arc::new(Unroll::zeros(&scribe.layout, 2));
        Note::Arrival { number, from: ActorKey { actor: 0, incarnation: 1 }, sequence: number, unroll }
    }

    fn trained(weights: Weights) -> Note {
        let parts = vec![Part { arrival: 0, from: 0, upto: 2 }];
        Note::Trained { parts, policy_version: 6, weights, skipped: false }
    }

    /// Writes `notes` as the thread does.
    fn write_all(scribe: &mut Scribe<Small>, notes: impl IntoIterator<Item = Note>) {
        let (sender, receiver) = channel();
        let backlog = Backlog::default();
        for note in notes {
            *backlog.bytes.lock() += note.bytes();
            sender.send(note).unwrap();
        }
        drop(sender);
        scribe.write_all(&receiver, &backlog);
        assert_eq!(*backlog.bytes.lock(), 0);
    }

    /// What is on record: how many arrivals and updates, and whether that is all.
    fn on_record(scribe: &Scribe<Small>) -> (u64, u64, bool) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &scribe.disk.bytes).unwrap();
        let mut frames = Frames::open(file.path()).unwrap();
        let (mut arrivals, mut updates, mut whole) = (0, 0, false);
        while let Some(record) = frames.next_record().expect("records are whole") {
            match record.event.unwrap() {
                Event::Arrival(_) => arrivals += 1,
                Event::Trained(_) => updates += 1,
                Event::Begin(_) => {}
                Event::End(_) => whole = true,
            }
        }
        (arrivals, updates, whole)
    }

    #[test]
    fn records_of_a_life_that_ended_say_so() {
        let mut scribe = scribe(1 << 30);
        let weights = Weights(vec![("w".into(), Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap())]);
        let notes = [arrival(&scribe, 0), trained(weights), arrival(&scribe, 1)];
        write_all(&mut scribe, notes);
        assert!(!scribe.broken);
        assert_eq!(on_record(&scribe), (2, 1, true));
    }

    #[test]
    fn what_was_taken_in_before_weights_cannot_be_read_is_on_record() {
        let mut scribe = scribe(1 << 30);
        let weights = Weights(vec![("w".into(), Tensor::zeros(3, DType::U8, &Device::Cpu).unwrap())]);
        let notes = [arrival(&scribe, 0), arrival(&scribe, 1), trained(weights), arrival(&scribe, 2)];
        write_all(&mut scribe, notes);
        assert!(scribe.broken);
        assert_eq!(on_record(&scribe), (2, 0, false));
        assert_eq!((scribe.whole.arrivals, scribe.whole.policy_version), (2, 5));
    }

    #[test]
    fn a_full_disk_keeps_every_record_that_it_has_taken_whole() {
        let size = {
            let mut scribe = scribe(1 << 30);
            let note = arrival(&scribe, 0);
            let before = scribe.pending.len();
            scribe.note(note);
            scribe.pending.len() - before
        };
        // A buffer and a half, less a few bytes: the second write is refused in its middle.
        let start = scribe(1 << 30).disk.bytes.len();
        let fit = 3 * BUFFER / 2 / size;
        let mut scribe = scribe(start + fit * size + size - 3);
        let notes: Vec<Note> = (0..2 * fit as u64).map(|number| arrival(&scribe, number)).collect();
        write_all(&mut scribe, notes);
        assert!(scribe.broken);
        let (arrivals, _, whole) = on_record(&scribe);
        // Numbers of more digits take a byte or two more.
        assert!(arrivals <= fit as u64 && arrivals + 2 >= fit as u64 && !whole, "{arrivals} of {fit}");
        assert_eq!(scribe.whole.arrivals, arrivals);
    }
}
