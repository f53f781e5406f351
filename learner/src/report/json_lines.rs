//! [`JsonLines`]: `metrics.jsonl` and `curve.jsonl`, one JSON object a line.

use std::io;
use std::path::Path;

use serde::Serialize;

use super::append_file::AppendFile;

/// A file of JSON objects, one a line. A resumed run appends to it.
#[derive(Debug)]
pub struct JsonLines(AppendFile);

impl JsonLines {
    /// Opens or creates the file.
    ///
    /// # Errors
    /// If it cannot be opened for writing.
    pub fn open(path: &Path) -> io::Result<Self> {
        AppendFile::open(path).map(Self)
    }

    /// Appends a line. Trouble with the disk is logged and leaves the line out.
    pub fn write(&mut self, line: &impl Serialize) {
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
    use std::fmt::Debug;

    use serde::de::DeserializeOwned;

    use super::super::curve::Point;
    use super::super::line::{Line, tests::example};
    use super::*;

    /// Writes `line` twice and reads it back; every key must stand in `section` of the documentation.
    fn written<T: Serialize + DeserializeOwned + PartialEq + Debug>(
        line: &T,
        section: &str,
    ) -> serde_json::Value {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines.jsonl");
        JsonLines::open(&path).unwrap().write(line);
        JsonLines::open(&path).unwrap().write(line);

        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with('\n'));
        let read: Vec<T> = text.lines().map(|json| serde_json::from_str(json).unwrap()).collect();
        assert_eq!(read.iter().collect::<Vec<_>>(), [line, line]);

        let value: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        let page = include_str!("../../../docs/run-directory.md");
        let rest = page.split_once(&format!("\n## {section}\n")).unwrap().1;
        let documented = rest.split_once("\n## ").map_or(rest, |(section, _)| section);
        for (key, value) in value.as_object().unwrap() {
            assert!(documented.contains(&format!("`{key}`")), "{key} is not documented");
            for inner in value.as_object().into_iter().flatten().filter(|_| key != "metrics") {
                let name = format!("`{key}.{}`", inner.0);
                assert!(documented.contains(&name), "{name} is not documented");
            }
        }
        value
    }

    #[test]
    fn every_line_of_metrics_is_one_json_object_with_the_documented_keys() {
        let value = written::<Line>(&example(), "metrics.jsonl");
        assert_eq!(value["metrics"]["explained_variance"], serde_json::Value::Null);
        assert_eq!(value["verdict"]["bottleneck"], "learner");
    }

    #[test]
    fn every_line_of_the_curve_is_one_json_object_with_the_documented_keys() {
        let mut point = Point { env_steps: 640, mean_return: Some(21.5), ..Point::default() };
        point.metrics.insert("entropy".into(), Some(0.5));
        let value = written(&point, "curve.jsonl");
        assert_eq!(value["metrics"]["entropy"], 0.5);
        assert_eq!(value["mean_return_100"], serde_json::Value::Null);
    }
}
