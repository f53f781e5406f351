//! The learner again, from its records alone: the same batches in the same order, hence the same weights, bit for bit.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use impresario_common::config::{ConfigError, RunConfig};
use impresario_common::policy::PolicySpec;
use impresario_common::unroll::{Unroll, UnrollLayout};

use super::{Arrival, Begin, Event, Frames, RecordError, Trained, hex};
use crate::algorithm::{Outcome, TrainError};
use crate::checkpoint::{self, CheckpointError};
use crate::intake::assemble;
use crate::trainer::Trainer;

/// A replay that cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// There is nothing on record.
    #[error("{} has no arrivals on record: train with --record-arrivals=content", .0.display())]
    Nothing(PathBuf),
    /// The records are without content.
    #[error(
        "{} has the order of arrivals and their hashes, but not the unrolls: train with --record-arrivals=content to \
         replay them",
        .0.display()
    )]
    NoContent(PathBuf),
    /// The records cannot be used.
    #[error(transparent)]
    Records(#[from] RecordError),
    /// The configuration on record cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The checkpoint that the life went on from cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// An update failed.
    #[error("update {update} failed: {source}")]
    Train {
        /// Which, counting from the records' beginning.
        update: u64,
        /// Why.
        source: TrainError,
    },
    /// An update came to other weights than are on record.
    #[error(
        "update {update} came to version {version} with weights {weights}, but on record is version {expected_version} with \
         {expected}: another build, another machine or another number of threads may compute otherwise"
    )]
    Differs {
        /// Which, counting from the records' beginning.
        update: u64,
        /// The version that it made.
        version: u64,
        /// The hash of its weights.
        weights: String,
        /// What is on record.
        expected_version: u64,
        /// What is on record.
        expected: String,
    },
}

/// What a replay has come to so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replayed {
    /// The life of the run.
    pub life: u64,
    /// Unrolls that came in.
    pub arrivals: u64,
    /// Updates that came to the weights on record, skipped ones included.
    pub updates: u64,
    /// Environment steps trained on, those before the life included.
    pub env_steps: u64,
    /// The policy's version.
    pub policy_version: u64,
    /// SHA-256 of its weights.
    pub weights: Vec<u8>,
    /// Whether the records have said that this is all. Those of a learner that was killed, or whose disk refused, do not.
    pub ended: bool,
}

/// One life of a run, replayed record by record.
pub struct Replay {
    frames: Frames,
    layout: UnrollLayout,
    trainer: Trainer,
    /// Arrivals of which columns are still to be trained, and how many.
    waiting: BTreeMap<u64, (Arc<Unroll>, usize)>,
    /// Bytes of them,
    waiting_bytes: u64,
    /// and how many there can be.
    room: u64,
    so_far: Replayed,
}

/// Times `learner.queue_bytes` that arrivals can come to which have not been trained on. Those in the queue are within it but for
/// their final observations, and so is the batch that is in training meanwhile; final observations double an unroll at most.
const ROOM_IN_QUEUES: u64 = 4;

/// The lives of the run in `run_dir` that have arrivals on record, the first ones first.
///
/// # Errors
/// If there are none, or the folder cannot be read.
pub fn lives(run_dir: &Path) -> Result<Vec<u64>, ReplayError> {
    let folder = super::folder(run_dir);
    let life = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        name.strip_prefix("life-")?.strip_suffix(".records")?.parse().ok()
    };
    let mut lives: Vec<u64> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().filter_map(life).collect();
    lives.sort_unstable();
    if lives.is_empty() { Err(ReplayError::Nothing(run_dir.to_owned())) } else { Ok(lives) }
}

/// How the life with records at `path` began, and the configuration that it ran with.
///
/// # Errors
/// If the records cannot be used.
pub fn beginning(path: &Path) -> Result<(Begin, RunConfig), ReplayError> {
    let mut frames = Frames::open(path)?;
    let begin = begin(&mut frames)?;
    let config = RunConfig::from_toml(&begin.config)?;
    Ok((begin, config))
}

fn begin(frames: &mut Frames) -> Result<Begin, RecordError> {
    match frames.next_record()?.and_then(|record| record.event) {
        Some(Event::Begin(begin)) => Ok(begin),
        _ => Err(frames.contradiction("the first record does not say how the life began")),
    }
}

impl Replay {
    /// The life `life` of the run in `run_dir`, before its first update.
    ///
    /// # Errors
    /// If the records cannot be used.
    pub fn open(run_dir: &Path, life: u64) -> Result<Self, ReplayError> {
        let path = super::records_path(run_dir, life);
        let mut frames = Frames::open(&path)?;
        let begin = begin(&mut frames)?;
        if !begin.content {
            return Err(ReplayError::NoContent(path));
        }
        let config = RunConfig::from_toml(&begin.config)?;
        let environment = toml::from_str(&begin.environment)
            .map_err(|e| frames.contradiction(format!("the environment on record: {e}")))?;
        let failed = |source| ReplayError::Train { update: 0, source };
        let mut trainer = Trainer::new(&config, &environment).map_err(failed)?;
        let origin = super::origin_path(run_dir, life);
        if begin.policy_version > 0 || origin.exists() {
            trainer.restore(&checkpoint::load(&origin)?).map_err(failed)?;
        }
        if trainer.version() != begin.policy_version {
            let problem = format!(
                "the life began from version {}, its checkpoint is of {}",
                begin.policy_version,
                trainer.version()
            );
            return Err(frames.contradiction(problem).into());
        }
        let policy = PolicySpec::of_run(&config, &environment).map_err(|e| failed(e.into()))?;
        let layout = UnrollLayout::of_run(&config, config.rollout.unroll_length, &environment, &policy);
        let so_far = Replayed {
            life,
            env_steps: begin.env_steps,
            policy_version: begin.policy_version,
            weights: super::weights_hash(&trainer.snapshot().map_err(failed)?.weights)
                .map_err(|e| failed(e.into()))?,
            ..Replayed::default()
        };
        let room = config.learner.queue_bytes.saturating_mul(ROOM_IN_QUEUES);
        Ok(Self { frames, layout, trainer, waiting: BTreeMap::new(), waiting_bytes: 0, room, so_far })
    }

    /// What it has come to so far.
    pub fn so_far(&self) -> &Replayed {
        &self.so_far
    }

    /// Goes on to the end of the next update; false at the end of the records.
    ///
    /// # Errors
    /// If the records cannot be used, an update fails, or it comes to other weights than are on record.
    pub fn next_update(&mut self) -> Result<bool, ReplayError> {
        loop {
            match self.frames.next_record()?.map(|record| record.event) {
                None => return Ok(false),
                Some(_) if self.so_far.ended => {
                    return Err(self.frames.contradiction("it comes after the end").into());
                }
                Some(Some(Event::End(_))) => self.so_far.ended = true,
                Some(Some(Event::Arrival(arrival))) => self.take_in(arrival)?,
                Some(Some(Event::Trained(trained))) => {
                    self.train(&trained)?;
                    return Ok(true);
                }
                Some(Some(Event::Begin(_)) | None) => {
                    return Err(self.frames.contradiction("it belongs nowhere").into());
                }
            }
        }
    }

    fn take_in(&mut self, arrival: Arrival) -> Result<(), ReplayError> {
        if arrival.number != self.so_far.arrivals {
            let problem = format!("it is arrival {}, expected {}", arrival.number, self.so_far.arrivals);
            return Err(self.frames.contradiction(problem).into());
        }
        let Some(content) = arrival.content else {
            return Err(self.frames.contradiction("the unroll itself is missing").into());
        };
        let copies = arrival.copies as usize;
        let unroll = Unroll::from_wire(content, &self.layout, copies)
            .map_err(|e| self.frames.contradiction(format!("arrival {}: {e}", arrival.number)))?;
        let (_, hash) = super::content_hash(&unroll, &self.layout);
        if hash != arrival.hash {
            let problem = format!(
                "arrival {} of actor {}, unroll {}, is not what came: its hash is {}, but {} was recorded",
                arrival.number,
                arrival.actor,
                arrival.sequence,
                hex(&hash),
                hex(&arrival.hash)
            );
            return Err(self.frames.contradiction(problem).into());
        }
        self.waiting_bytes += unroll.bytes() as u64;
        if self.waiting_bytes > self.room {
            let problem = format!(
                "{} bytes of unrolls wait to be trained on, more than {ROOM_IN_QUEUES} times learner.queue_bytes: no learner takes in \
                 as many",
                self.waiting_bytes
            );
            return Err(self.frames.contradiction(problem).into());
        }
        self.waiting.insert(arrival.number, (Arc::new(unroll), copies));
        self.so_far.arrivals += 1;
        Ok(())
    }

    fn train(&mut self, trained: &Trained) -> Result<(), ReplayError> {
        let mut parts = vec![];
        for part in &trained.parts {
            let range = part.from as usize..part.upto as usize;
            let waiting = self.waiting.get_mut(&part.arrival);
            let Some((unroll, left)) = waiting.filter(|(unroll, left)| {
                range.start < range.end && range.end <= unroll.copies && range.len() <= *left
            }) else {
                let problem = format!(
                    "columns {range:?} of arrival {} were trained on, which are not there",
                    part.arrival
                );
                return Err(self.frames.contradiction(problem).into());
            };
            *left -= range.len();
            let spent = *left == 0;
            parts.push((unroll.clone(), range));
            if spent && let Some((unroll, _)) = self.waiting.remove(&part.arrival) {
                self.waiting_bytes -= unroll.bytes() as u64;
            }
        }
        if parts.is_empty() {
            return Err(self.frames.contradiction("a batch of nothing").into());
        }
        let update = self.so_far.updates;
        let failed = |source| ReplayError::Train { update, source };
        let batch = assemble(&self.layout, parts).batch;
        let report = self.trainer.train(&batch, self.so_far.env_steps).map_err(failed)?;
        let skipped = matches!(report.outcome, Outcome::Skipped { .. });
        let snapshot = self.trainer.snapshot().map_err(failed)?;
        let weights = super::weights_hash(&snapshot.weights).map_err(|e| failed(e.into()))?;
        let expected = (trained.policy_version, &trained.hash, trained.skipped);
        if (snapshot.version, &weights, skipped) != expected {
            return Err(ReplayError::Differs {
                update,
                version: snapshot.version,
                weights: hex(&weights),
                expected_version: trained.policy_version,
                expected: hex(&trained.hash),
            });
        }
        if !skipped {
            self.so_far.env_steps += batch.steps() as u64;
        }
        self.so_far.updates += 1;
        (self.so_far.policy_version, self.so_far.weights) = (snapshot.version, weights);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use impresario_common::space::{EnvironmentSpec, Space};

    use super::super::{End, MAGIC, Record, content_hash, folder, frames, records_path};
    use super::*;

    /// A life that began as usual with room for `queue_bytes`, and in which `count` unrolls came that nobody trained on.
    fn records(run_dir: &Path, queue_bytes: u64, count: u64) -> Vec<Event> {
        std::fs::create_dir_all(folder(run_dir)).unwrap();
        let mut config = RunConfig::default();
        config.learner.queue_bytes = queue_bytes;
        let environment = EnvironmentSpec::new(
            "CartPole-v1",
            Space::boxed(&[-1.0; 4], &[1.0; 4]),
            Space::Discrete { n: 2 },
        );
        let policy = PolicySpec::of_run(&config, &environment).unwrap();
        let layout = UnrollLayout::of_run(&config, config.rollout.unroll_length, &environment, &policy);
        let begin = Begin {
            config: config.to_toml().unwrap(),
            environment: toml::to_string(&environment).unwrap(),
            content: true,
            ..Begin::default()
        };
        let (message, hash) = content_hash(&Unroll::zeros(&layout, 1), &layout);
        let arrival = |number| {
            let (content, hash) = (Some(message.clone()), hash.clone());
            Event::Arrival(Arrival { number, copies: 1, content, hash, ..Arrival::default() })
        };
        [Event::Begin(begin)].into_iter().chain((0..count).map(arrival)).collect()
    }

    /// The life of these records, replayed to its end.
    fn replay(run_dir: &Path, records: Vec<Event>) -> Result<Replayed, ReplayError> {
        let mut bytes = MAGIC.to_vec();
        for event in records {
            frames::write(&mut bytes, &Record { event: Some(event) }).unwrap();
        }
        std::fs::write(records_path(run_dir, 0), bytes).unwrap();
        let mut replay = Replay::open(run_dir, 0)?;
        while replay.next_update()? {}
        Ok(replay.so_far().clone())
    }

    #[test]
    fn unrolls_that_nobody_trains_on_take_no_more_room_than_a_learner_has() {
        let folder = tempfile::tempdir().unwrap();
        // An unroll has 616 bytes.
        let whole = replay(folder.path(), records(folder.path(), 1000, 6)).unwrap();
        assert_eq!((whole.arrivals, whole.ended), (6, false));
        let error = replay(folder.path(), records(folder.path(), 1000, 7)).unwrap_err().to_string();
        assert!(error.contains("4312 bytes of unrolls wait") && error.contains("record 7"), "{error}");
    }

    #[test]
    fn the_end_is_the_last_record() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = records(folder.path(), 1000, 2);
        events.push(Event::End(End {}));
        assert!(replay(folder.path(), events.clone()).unwrap().ended);
        let late = events[2].clone();
        events.push(late);
        let error = replay(folder.path(), events).unwrap_err().to_string();
        assert!(error.contains("it comes after the end"), "{error}");
    }
}
