//! [`MetricsFile`]: `metrics.jsonl`, one JSON object a line for each interval of the run.

use std::io;
use std::path::Path;

use super::append_file::AppendFile;
use super::line::Line;

/// `metrics.jsonl`. A resumed run appends to it.
#[derive(Debug)]
pub struct MetricsFile(AppendFile);

impl MetricsFile {
    /// Opens or creates the file.
    ///
    /// # Errors
    /// If it cannot be opened for writing.
    pub fn open(path: &Path) -> io::Result<Self> {
        AppendFile::open(path).map(Self)
    }

    /// Appends a line. Trouble with the disk is logged and leaves the line out.
    pub fn write(&mut self, line: &Line) {
        match serde_json::to_vec(line) {
            Ok(mut record) => {
                record.push(b'\n');
                self.0.append(&record);
            }
            Err(error) => tracing::error!("metrics have no form in JSON: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::tests::example;
    use super::*;

    #[test]
    fn every_line_is_one_json_object_with_the_documented_keys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let line = example();
        MetricsFile::open(&path).unwrap().write(&line);
        MetricsFile::open(&path).unwrap().write(&line);

        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with('\n'));
        let read: Vec<Line> = text.lines().map(|json| serde_json::from_str(json).unwrap()).collect();
        assert_eq!(read, [line.clone(), line]);

        let value: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        let documented = include_str!("../../../docs/run-directory.md");
        for (key, value) in value.as_object().unwrap() {
            assert!(documented.contains(&format!("`{key}`")), "{key} is not documented");
            for inner in value.as_object().into_iter().flatten().filter(|_| key != "metrics") {
                let name = format!("`{key}.{}`", inner.0);
                assert!(documented.contains(&name), "{name} is not documented");
            }
        }
        assert_eq!(value["metrics"]["explained_variance"], serde_json::Value::Null);
        assert_eq!(value["verdict"]["bottleneck"], "learner");
    }
}
