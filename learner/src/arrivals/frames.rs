//! [`Frames`]: reads records from a file, and says what is wrong where with one that is not as it was written.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use prost::Message;

use super::{MAGIC, Record};

/// Largest encoding of a record that is believed.
const MAX_RECORD_BYTES: u32 = 1 << 30;

/// Records that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The file is something else.
    #[error("{} holds no arrivals: its first line is not {:?}", .0.display(), String::from_utf8_lossy(MAGIC).trim())]
    Format(PathBuf),
    /// The file ends in the middle of a record.
    #[error(
        "{} is cut short: it ends in the middle of record {record}, which begins at byte {at}; the learner was killed while \
         it wrote, or the end is lost",
        path.display()
    )]
    CutShort {
        /// The file.
        path: PathBuf,
        /// Which record, from 0.
        record: u64,
        /// Where it begins.
        at: u64,
    },
    /// A record is not what was written.
    #[error("{}: record {record}, at byte {at}, was changed: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which record, from 0.
        record: u64,
        /// Where it begins.
        at: u64,
        /// What is wrong with it.
        problem: String,
    },
}

/// The records of a file, one after the other.
#[derive(Debug)]
pub struct Frames {
    path: PathBuf,
    file: BufReader<File>,
    /// Bytes read.
    at: u64,
    /// Records read.
    records: u64,
    /// Where the record read last begins.
    last: u64,
}

impl Frames {
    /// The records in the file at `path`.
    ///
    /// # Errors
    /// If it cannot be read, or holds something else.
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        let io = |source| RecordError::Io { action: "read", path: path.to_owned(), source };
        let mut file = BufReader::new(File::open(path).map_err(io)?);
        let mut magic = vec![];
        (&mut file).take(MAGIC.len() as u64).read_to_end(&mut magic).map_err(io)?;
        if magic != MAGIC {
            return Err(RecordError::Format(path.to_owned()));
        }
        let at = MAGIC.len() as u64;
        Ok(Self { path: path.to_owned(), file, at, records: 0, last: at })
    }

    /// The next record; `None` at the end of the file.
    ///
    /// # Errors
    /// If the file ends inside it, or it is not what was written.
    pub fn next_record(&mut self) -> Result<Option<Record>, RecordError> {
        self.last = self.at;
        let head = self.read(8)?;
        let Some((length, checksum)) = head.split_first_chunk::<4>() else { return Ok(None) };
        let Some((checksum, _)) = checksum.split_first_chunk::<4>() else { return Err(self.cut_short()) };
        let (length, recorded) = (u32::from_le_bytes(*length), u32::from_le_bytes(*checksum));
        if length > MAX_RECORD_BYTES {
            return Err(self.damaged(format!("it claims {length} bytes")));
        }
        let payload = self.read(u64::from(length))?;
        if payload.len() as u64 != u64::from(length) {
            return Err(self.cut_short());
        }
        let checksum = crc32c::crc32c(&payload);
        if checksum != recorded {
            return Err(
                self.damaged(format!("its checksum is {checksum:08x}, but {recorded:08x} was recorded"))
            );
        }
        let record = Record::decode(payload.as_slice()).map_err(|e| self.damaged(e.to_string()))?;
        self.records += 1;
        Ok(Some(record))
    }

    /// What to say of the record read last, if it contradicts what came before.
    pub fn contradiction(&self, problem: impl Into<String>) -> RecordError {
        let record = self.records.saturating_sub(1);
        RecordError::Damaged { path: self.path.clone(), record, at: self.last, problem: problem.into() }
    }

    /// Up to `count` bytes.
    fn read(&mut self, count: u64) -> Result<Vec<u8>, RecordError> {
        let mut bytes = vec![];
        let read = (&mut self.file).take(count).read_to_end(&mut bytes);
        read.map_err(|source| RecordError::Io { action: "read", path: self.path.clone(), source })?;
        self.at += bytes.len() as u64;
        if bytes.is_empty() || bytes.len() as u64 == count {
            return Ok(bytes);
        }
        Err(self.cut_short())
    }

    fn cut_short(&self) -> RecordError {
        RecordError::CutShort { path: self.path.clone(), record: self.records, at: self.last }
    }

    fn damaged(&self, problem: String) -> RecordError {
        RecordError::Damaged { path: self.path.clone(), record: self.records, at: self.last, problem }
    }
}

/// Writes a record.
///
/// # Errors
/// If the file does not take it.
pub(super) fn write(file: &mut impl Write, record: &Record) -> std::io::Result<()> {
    let payload = record.encode_to_vec();
    let length = u32::try_from(payload.len()).ok().filter(|length| *length <= MAX_RECORD_BYTES);
    let length = length.ok_or_else(|| std::io::Error::other("a record of more than 1 GiB"))?;
    file.write_all(&length.to_le_bytes())?;
    file.write_all(&crc32c::crc32c(&payload).to_le_bytes())?;
    file.write_all(&payload)
}

#[cfg(test)]
mod tests {
    use super::super::{Arrival, Event};
    use super::*;

    fn arrival(number: u64) -> Record {
        let arrival = Arrival { number, hash: vec![7; 32], ..Arrival::default() };
        Record { event: Some(Event::Arrival(arrival)) }
    }

    fn file() -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for number in 1..4 {
            write(&mut bytes, &arrival(number)).unwrap();
        }
        bytes
    }

    fn read_all(bytes: &[u8]) -> Result<Vec<Record>, RecordError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let mut frames = Frames::open(file.path())?;
        std::iter::from_fn(|| frames.next_record().transpose()).collect()
    }

    #[test]
    fn records_come_back_as_they_were() {
        assert_eq!(read_all(&file()).unwrap(), [1, 2, 3].map(arrival));
    }

    #[test]
    fn any_flipped_bit_and_any_missing_end_are_noticed_and_named() {
        let whole = file();
        let ends: Vec<usize> = (0..=3).map(|n| MAGIC.len() + n * (whole.len() - MAGIC.len()) / 3).collect();
        for length in 0..whole.len() {
            let read = read_all(&whole[..length]);
            match read {
                Ok(records) => {
                    assert!(ends.contains(&length), "{length} bytes gave {} records", records.len())
                }
                Err(RecordError::Format(_)) => assert!(length < MAGIC.len()),
                Err(RecordError::CutShort { record, at, .. }) => assert_eq!(ends[record as usize] as u64, at),
                Err(other) => panic!("{length} bytes: {other}"),
            }
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            assert!(read_all(&flipped).is_err(), "byte {at}");
        }
    }
}
