//! [`TensorBoard`]: event files that TensorBoard reads: records framed as TFRecord, each an `Event` of
//! tensorflow/core/util/event.proto holding scalars by tag; the step is the count of environment steps.

use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use super::append_file::AppendFile;
use super::curve::Point;
use super::host::host_name;
use super::line::Line;

/// `tensorflow.Event`, as much of it as scalars need.
#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds of Unix time.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    /// In the first event of a file.
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

/// `tensorflow.Summary`.
#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

/// `tensorflow.Summary.Value`, a scalar.
#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    /// Optional, so that zero is written too: the original is a `oneof`.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// What names of event files begin with.
const PREFIX: &str = "events.out.tfevents.";

/// The latest time in the names of event files in `dir`.
fn newest(dir: &Path) -> io::Result<Option<u64>> {
    let mut newest = None;
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let time = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('.').next()?.parse().ok());
        newest = newest.max(time);
    }
    Ok(newest)
}

/// An event file of the run.
#[derive(Debug)]
pub struct TensorBoard(AppendFile);

impl TensorBoard {
    /// Starts a file `events.out.tfevents.<unix time>.<host>` in `dir`. TensorBoard reads files in the order of their names, so
    /// its time is later than those of the files that are there, even if the clock has been set back.
    ///
    /// # Errors
    /// If it cannot be opened for writing.
    pub fn create(dir: &Path) -> io::Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = match newest(dir)? {
            Some(newest) if newest > now.as_secs() => newest.saturating_add(1),
            _ => now.as_secs(),
        };
        let name = format!("{PREFIX}{seconds:010}.{}", host_name());
        let mut file = AppendFile::open(&dir.join(name))?;
        let first = Event {
            wall_time: now.as_secs_f64(),
            file_version: Some("brain.Event:2".into()),
            ..Event::default()
        };
        file.append(&framed(&first.encode_to_vec()));
        Ok(Self(file))
    }

    /// Appends the scalars of `line`. Trouble with the disk is logged and leaves them out.
    pub fn write(&mut self, line: &Line) {
        self.append(line.unix_time, line.env_steps, scalars(line));
    }

    /// Appends what `point` says about episodes. Means over intervals stay with the lines.
    pub fn write_point(&mut self, point: &Point) {
        let mut scalars = vec![("rollout/episodes".into(), point.episodes as f64)];
        let means = [
            ("rollout/mean_return_100", point.mean_return_100),
            ("rollout/mean_return", point.mean_return),
            ("rollout/mean_length", point.mean_length),
        ];
        scalars.extend(means.into_iter().filter_map(|(tag, mean)| Some((tag.into(), mean?))));
        self.append(point.unix_time, point.env_steps, scalars);
    }

    fn append(&mut self, wall_time: f64, env_steps: u64, scalars: Vec<(String, f64)>) {
        let value = scalars
            .into_iter()
            .filter(|(_, value)| value.is_finite())
            .map(|(tag, value)| Value { tag, simple_value: Some(value as f32) })
            .collect();
        let event = Event {
            wall_time,
            step: i64::try_from(env_steps).unwrap_or(i64::MAX),
            summary: Some(Summary { value }),
            ..Event::default()
        };
        self.0.append(&framed(&event.encode_to_vec()));
    }
}

/// Length, checksum of the length, data, checksum of the data; little-endian.
fn framed(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend_from_slice(&length);
    record.extend_from_slice(&masked_crc32c(&length).to_le_bytes());
    record.extend_from_slice(data);
    record.extend_from_slice(&masked_crc32c(data).to_le_bytes());
    record
}

/// TFRecord's checksum: CRC-32C, rotated and shifted so that checksums of checksums stay meaningful.
fn masked_crc32c(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Tags and values of a line; what it does not have is left out.
fn scalars(line: &Line) -> Vec<(String, f64)> {
    let mut scalars = vec![];
    let mut put = |tag: &str, value: Option<f64>| scalars.extend(value.map(|value| (tag.to_owned(), value)));
    put("rollout/mean_return_100", line.mean_return_100);
    put("rollout/mean_return", line.mean_return);
    put("rollout/mean_length", line.mean_length);
    put("rollout/episodes", Some(line.episodes as f64));
    for (name, mean) in &line.metrics {
        put(&format!("learner/{name}"), *mean);
    }
    put("learner/updates", Some(line.updates as f64));
    put("learner/skipped_updates", Some(line.skipped_updates as f64));
    put("policy_lag/mean", line.policy_lag.mean);
    put("policy_lag/p99", line.policy_lag.p99.map(|lag| lag as f64));
    put("policy_lag/max", line.policy_lag.max.map(|lag| lag as f64));
    put("performance/steps_per_second", Some(line.steps_per_second));
    put("performance/updates_per_second", Some(line.updates_per_second));
    put("performance/learner_idle", line.learner.idle);
    put("performance/cores_busy", line.learner.cores_busy);
    put("performance/actors_inference", line.actors.time.map(|time| time.inference));
    put("performance/actors_environment", line.actors.time.map(|time| time.environment));
    put("performance/actors_waiting_grant", line.actors.time.map(|time| time.waiting_grant));
    put("performance/actors_waiting_uplink", line.actors.time.map(|time| time.waiting_uplink));
    put("system/actors_connected", Some(line.actors.connected as f64));
    put("system/queue_unrolls", Some(line.queue.unrolls as f64));
    put("system/queue_bytes", Some(line.queue.bytes as f64));
    put("system/weights_bytes_per_second", Some(line.traffic.weights_bytes_per_second));
    put("system/unroll_bytes_per_second", Some(line.traffic.unroll_bytes_per_second));
    put("accounting/produced", Some(line.accounting.produced as f64));
    put("accounting/trained", Some(line.accounting.trained as f64));
    put("accounting/in_flight", Some(line.accounting.in_flight as f64));
    for (reason, &steps) in &line.accounting.dropped {
        put(&format!("accounting/dropped_{reason}"), Some(steps as f64));
    }
    scalars
}

#[cfg(test)]
mod tests {
    use super::super::line::tests::example;
    use super::*;

    /// Reads TFRecord frames by their definition, checking checksums bit by bit.
    fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let crc = |data: &[u8]| {
            let crc = !data.iter().fold(!0u32, |crc, byte| {
                (0..8).fold(crc ^ u32::from(*byte), |c, _| (c >> 1) ^ (0x82f6_3b78 * (c & 1)))
            });
            crc.rotate_right(15).wrapping_add(0xa282_ead8)
        };
        let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
        let mut records = vec![];
        while !bytes.is_empty() {
            let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            assert_eq!(word(&bytes[8..12]), crc(&bytes[..8]));
            let data = &bytes[12..12 + length];
            assert_eq!(word(&bytes[12 + length..16 + length]), crc(data));
            records.push(data.to_vec());
            bytes = &bytes[16 + length..];
        }
        records
    }

    #[test]
    fn an_event_file_reads_back_with_valid_checksums() {
        let dir = tempfile::tempdir().unwrap();
        let line = example();
        let mut board = TensorBoard::create(dir.path()).unwrap();
        board.write(&line);
        board.write(&Line { mean_return_100: None, env_steps: 130_000, ..line });
        board.write_point(&Point { env_steps: 140_000, mean_return: Some(12.5), ..Point::default() });

        let file = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap();
        assert!(file.file_name().to_str().unwrap().starts_with("events.out.tfevents.1"));
        let events: Vec<Event> = records(&std::fs::read(file.path()).unwrap())
            .iter()
            .map(|record| Event::decode(record.as_slice()).unwrap())
            .collect();
        assert_eq!(events[0].file_version.as_deref(), Some("brain.Event:2"));
        assert_eq!(events.iter().map(|event| event.step).collect::<Vec<_>>(), [0, 120_320, 130_000, 140_000]);
        assert_eq!(events[1].wall_time, 1_700_000_000.25);
        let value = |event: &Event, tag: &str| {
            let values = &event.summary.as_ref().unwrap().value;
            values.iter().find(|value| value.tag == tag).and_then(|value| value.simple_value)
        };
        assert_eq!(value(&events[1], "rollout/mean_return_100"), Some(187.25));
        assert_eq!(value(&events[2], "rollout/mean_return_100"), None);
        assert_eq!(value(&events[1], "learner/policy_loss"), Some(-0.012_345_6));
        assert_eq!(value(&events[1], "performance/steps_per_second"), Some(12_320.0));
        assert_eq!(value(&events[1], "accounting/dropped_update_skipped"), Some(640.0));
        assert_eq!(value(&events[1], "learner/explained_variance"), None);
        assert_eq!(value(&events[3], "rollout/mean_return"), Some(12.5));
        assert_eq!(value(&events[3], "rollout/mean_return_100"), None);
    }

    #[test]
    fn a_file_that_is_begun_after_the_clock_was_set_back_comes_last_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let former = "events.out.tfevents.7999999999.other-host";
        std::fs::write(dir.path().join(former), b"").unwrap();
        std::fs::write(dir.path().join("metrics.jsonl"), b"").unwrap();
        TensorBoard::create(dir.path()).unwrap();
        let names =
            std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name.starts_with(PREFIX)).collect();
        names.sort();
        assert_eq!(names[0], former);
        assert!(names[1].starts_with("events.out.tfevents.8000000000."), "{names:?}");
    }

    #[test]
    fn the_checksum_is_the_published_one() {
        // CRC-32C of "123456789" is 0xe3069283 (RFC 3720's check value), then masked.
        let expected = 0xe306_9283_u32.rotate_right(15).wrapping_add(0xa282_ead8);
        assert_eq!(masked_crc32c(b"123456789"), expected);
    }

    #[test]
    fn zero_is_written_rather_than_left_out_as_a_default() {
        let value = Value { tag: "t".into(), simple_value: Some(0.0) };
        assert_eq!(value.encode_to_vec(), [0x0a, 1, b't', 0x15, 0, 0, 0, 0]);
    }
}
