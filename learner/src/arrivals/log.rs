//! [`ArrivalLog`]: the thread that writes arrivals down, so that neither streams nor the trainer wait for hashes and disks.
//!
//! What waits to be written is bounded: the trainer waits when it is too much, and actors with it. Where the disk refuses, the
//! records end with the last whole one that reached it, and the run goes on without.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use impresario_common::policy::Weights;
use impresario_common::unroll::{Unroll, UnrollLayout};
use parking_lot::{Condvar, Mutex};

use super::frames::{self, RecordError};
use super::{Arrival, Begin, Event, MAGIC, Part, Record, Trained};
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
        let content = begin.content;
        let mut scribe = Scribe {
            file,
            path: path.clone(),
            pending: MAGIC.to_vec(),
            whole: 0,
            layout,
            content,
            broken: false,
        };
        scribe.write(&Record { event: Some(Event::Begin(begin)) });
        // Whatever becomes of the learner, the file says what it is.
        scribe.flush().map_err(io)?;
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

/// Writes records.
struct Scribe {
    file: File,
    path: PathBuf,
    /// Whole records that the file has not been given yet.
    pending: Vec<u8>,
    /// Bytes of whole records in the file.
    whole: u64,
    layout: UnrollLayout,
    content: bool,
    /// The disk has refused, and nothing more is written.
    broken: bool,
}

impl Scribe {
    fn write_all(mut self, notes: &Receiver<Note>, backlog: &Backlog) {
        while let Ok(note) = notes.recv() {
            let bytes = note.bytes();
            if !self.broken
                && let Some(event) = self.event(note)
            {
                self.write(&Record { event: Some(event) });
            }
            *backlog.bytes.lock() -= bytes;
            backlog.shrunk.notify_all();
        }
        if !self.broken {
            let synced = self.flush().and_then(|()| self.file.sync_all());
            synced.unwrap_or_else(|error| self.give_up(&error));
        }
    }

    fn event(&mut self, note: Note) -> Option<Event> {
        match note {
            Note::Arrival { number, from, sequence, unroll } => {
                let (message, hash) = super::content_hash(&unroll, &self.layout);
                Some(Event::Arrival(Arrival {
                    number,
                    actor: from.actor,
                    incarnation: from.incarnation,
                    sequence,
                    policy_version: unroll.policy_version,
                    copies: unroll.copies as u32,
                    hash,
                    content: self.content.then_some(message),
                }))
            }
            Note::Trained { parts, policy_version, weights, skipped } => {
                match super::weights_hash(&weights) {
                    Ok(hash) => Some(Event::Trained(Trained { parts, policy_version, hash, skipped })),
                    Err(error) => {
                        self.give_up(&error);
                        None
                    }
                }
            }
        }
    }

    fn write(&mut self, record: &Record) {
        let mut written = frames::write(&mut self.pending, record);
        if self.pending.len() >= BUFFER {
            written = written.and_then(|()| self.flush());
        }
        written.unwrap_or_else(|error| self.give_up(&error));
    }

    /// Gives the file what is pending.
    fn flush(&mut self) -> std::io::Result<()> {
        self.file.write_all(&self.pending)?;
        self.whole += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    fn give_up(&mut self, error: &dyn std::fmt::Display) {
        self.broken = true;
        tracing::error!(
            "cannot write {}: {error}; the arrivals on record end here, and the run goes on without",
            self.path.display()
        );
        self.pending = vec![];
        // The end may be part of a record all the same, which whoever reads it is told.
        let _ = self.file.set_len(self.whole);
    }
}
