//! [`Run`]: what a run directory says about the course of its run; docs/run-directory.md describes the files.
//!
//! Read with open eyes for other versions of this program: any number in `curve.jsonl`, `metrics.jsonl` and
//! `evaluations.jsonl` is a metric, and of the configuration only the names of environment and algorithm are needed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use impresario_learner::report::{RunDir, Summary};
use serde_json::Value;

use super::XAxis;

/// Sections of the configuration that say when a run ends and what it writes, and not how it learns.
const NOT_ABOUT_LEARNING: [&str; 2] = ["run.", "report."];

/// A run as far as a picture of it is concerned.
#[derive(Debug)]
pub(super) struct Run {
    /// Where it was read.
    pub(super) dir: PathBuf,
    /// Environment's name with version.
    pub(super) environment: String,
    /// Algorithm's name.
    pub(super) algorithm: String,
    /// All keys of the configuration that say how it learns, as `section.key`, with their values as TOML.
    pub(super) settings: BTreeMap<String, String>,
    /// Whether it ended because it had reached its goal.
    pub(super) stopped_when_solved: bool,
    curve: Table,
    intervals: Table,
    evaluations: Table,
}

/// A file of JSON lines.
#[derive(Debug, Default, PartialEq)]
struct Table {
    rows: Vec<Row>,
    /// Names of all numbers, those that are null everywhere included.
    names: BTreeSet<String>,
}

/// A line of it.
#[derive(Debug, PartialEq)]
struct Row {
    env_steps: f64,
    seconds: f64,
    /// By name; those of nested objects as `object.name`.
    values: BTreeMap<String, f64>,
}

impl Run {
    /// Reads the run in `dir`.
    ///
    /// # Errors
    /// If no run lives there, it has no metrics yet, or a file is damaged.
    pub(super) fn read(dir: &Path) -> anyhow::Result<Self> {
        let files = RunDir::open(dir)?;
        let path = files.config_path();
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let config: toml::Table =
            text.parse().with_context(|| format!("{} is no configuration", path.display()))?;
        let name = |section: &str, key: &str| {
            let value =
                config.get(section).and_then(|section| section.get(key)).and_then(|name| name.as_str());
            value
                .map(str::to_owned)
                .with_context(|| format!("{} does not say {section}.{key}", path.display()))
        };
        let curve = Table::read(&files.curve())?;
        let intervals = Table::read(&files.metrics())?;
        let evaluations = Table::read(&files.evaluations())?;
        if curve.rows.is_empty() && intervals.rows.is_empty() {
            bail!(
                "{} has no metrics yet: has its run begun to train? A point is written every report.curve_steps \
                 environment steps",
                dir.display()
            );
        }
        let mut settings = BTreeMap::new();
        flatten_settings(&config, "", &mut settings);
        settings.retain(|key, _| !NOT_ABOUT_LEARNING.iter().any(|section| key.starts_with(section)));
        Ok(Self {
            environment: name("environment", "id")?,
            algorithm: name("algorithm", "name")?,
            settings,
            // A run that goes on or was killed has none.
            stopped_when_solved: Summary::read(&files.summary()).is_ok_and(|s| s.stopped_by == "solved"),
            curve,
            intervals,
            evaluations,
            dir: dir.to_owned(),
        })
    }

    /// Names of what can be drawn, without the prefix `metrics.`.
    pub(super) fn metrics(&self) -> impl Iterator<Item = &str> {
        let names = self.tables().into_iter().flat_map(|table| &table.names);
        names.map(|name| name.strip_prefix("metrics.").unwrap_or(name))
    }

    /// Whether there is a metric called `name`, though it may have no value.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.tables().into_iter().any(|table| table.resolve(name).is_some())
    }

    /// Where to look for a metric, first place first.
    fn tables(&self) -> [&Table; 3] {
        [&self.curve, &self.intervals, &self.evaluations]
    }

    /// The points of a metric, ascending along the axis: of the curve, or else of the intervals, or else of the
    /// evaluations.
    pub(super) fn points(&self, x: XAxis, name: &str) -> Vec<(f64, f64)> {
        let found = self.tables().into_iter().find_map(|table| Some((table, table.resolve(name)?)));
        let Some((table, name)) = found else { return vec![] };
        let point = |row: &Row| {
            let x = match x {
                XAxis::Steps => row.env_steps,
                XAxis::Seconds => row.seconds,
            };
            Some((x, *row.values.get(&name)?))
        };
        table.rows.iter().filter_map(point).collect()
    }
}

impl Table {
    /// Reads `path`; a file that does not exist is empty. A last line without its end, of a run that writes or
    /// was killed in the middle, is left out unless it is whole.
    fn read(path: &Path) -> anyhow::Result<Self> {
        match std::fs::read(path) {
            Ok(bytes) => Self::parse(&bytes).with_context(|| path.display().to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let mut table = Self::default();
        for (number, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
            if line.trim_ascii().is_empty() {
                continue;
            }
            match Row::parse(line, &mut table.names) {
                Ok(row) => table.push(row),
                Err(_) if !line.ends_with(b"\n") => {}
                Err(error) => bail!(
                    "line {} cannot be read ({error:#}): the file is damaged; without that line it will do",
                    number + 1
                ),
            }
        }
        Ok(table)
    }

    /// Where steps fall, a run was resumed from a checkpoint: what an earlier life did beyond it was lost.
    fn push(&mut self, row: Row) {
        if self.rows.last().is_some_and(|last| last.env_steps > row.env_steps) {
            let kept = self.rows.partition_point(|earlier| earlier.env_steps < row.env_steps);
            self.rows.truncate(kept);
        }
        self.rows.push(row);
    }

    /// The full name of the metric that a user calls `name`: a trainer's metric and what an evaluation came to need no
    /// prefix, and an object with a mean stands for it.
    fn resolve(&self, name: &str) -> Option<String> {
        let names = ["", "metrics.", "evaluation."].map(|prefix| format!("{prefix}{name}"));
        names.into_iter().chain([format!("{name}.mean")]).find(|name| self.names.contains(name))
    }
}

impl Row {
    fn parse(line: &[u8], names: &mut BTreeSet<String>) -> anyhow::Result<Self> {
        let object: Value = serde_json::from_slice(line)?;
        let mut values = BTreeMap::new();
        let mut nulls = vec![];
        flatten(&object, "", &mut values, &mut nulls);
        let number = |name: &str| values.get(name).copied().with_context(|| format!("no number {name}"));
        let (env_steps, seconds) = (number("env_steps")?, number("seconds")?);
        for name in values.keys().chain(&nulls) {
            if !names.contains(name) {
                names.insert(name.clone());
            }
        }
        Ok(Self { env_steps, seconds, values })
    }
}

/// Collects the numbers of `value`, and the names of nulls, which may become numbers later.
fn flatten(value: &Value, name: &str, values: &mut BTreeMap<String, f64>, nulls: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                flatten(value, &name, values, nulls);
            }
        }
        Value::Null => nulls.push(name.to_owned()),
        other => values.extend(other.as_f64().map(|number| (name.to_owned(), number))),
    }
}

fn flatten_settings(table: &toml::Table, prefix: &str, settings: &mut BTreeMap<String, String>) {
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => flatten_settings(inner, &format!("{prefix}{key}."), settings),
            value => {
                settings.insert(format!("{prefix}{key}"), value.to_string());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(text: &str) -> Vec<f64> {
        Table::parse(text.as_bytes()).unwrap().rows.iter().map(|row| row.env_steps).collect()
    }

    #[test]
    fn nested_numbers_are_metrics_and_nulls_have_names() {
        let text = r#"{"env_steps": 5, "seconds": 0.5, "a": null, "metrics": {"entropy": 0.25},
            "policy_lag": {"mean": 1.5, "p50": null}, "verdict": {"text": "fine"}}"#;
        let table = Table::parse(text.replace('\n', " ").as_bytes()).unwrap();
        let known: Vec<&str> = table.names.iter().map(String::as_str).collect();
        let expected = ["a", "env_steps", "metrics.entropy", "policy_lag.mean", "policy_lag.p50", "seconds"];
        assert_eq!(known, expected);
        assert_eq!(table.resolve("entropy").as_deref(), Some("metrics.entropy"));
        assert_eq!(table.resolve("policy_lag").as_deref(), Some("policy_lag.mean"));
        assert_eq!(table.resolve("a").as_deref(), Some("a"));
        assert_eq!(table.resolve("verdict"), None);
        assert_eq!(table.rows[0].values["metrics.entropy"], 0.25);
    }

    #[test]
    fn a_last_line_cut_short_is_left_out_and_any_other_is_an_error() {
        let (one, two) = ("{\"env_steps\": 1, \"seconds\": 1}", "{\"env_steps\": 2, \"seconds\": 2}");
        assert_eq!(steps(&format!("{one}\n{two}\n")), [1.0, 2.0]);
        for cut in 0..two.len() {
            assert_eq!(steps(&format!("{one}\n{}", &two[..cut])), [1.0], "cut at {cut}");
        }
        assert_eq!(steps(&format!("{one}\n{two}")), [1.0, 2.0], "whole, but for its end");
        let error = Table::parse(format!("{one}\n{}\n{two}\n", &two[..9]).as_bytes()).unwrap_err();
        assert!(error.to_string().starts_with("line 2 cannot be read ("), "{error}");
        let error = Table::parse(b"{\"seconds\": 1}\n").unwrap_err().to_string();
        assert!(error.contains("no number env_steps"), "{error}");
    }

    #[test]
    fn of_steps_trained_twice_the_later_life_counts() {
        let line = |steps: u32| format!("{{\"env_steps\": {steps}, \"seconds\": 1}}\n");
        let text: String = [10, 20, 30, 30, 40, 25, 35, 35].map(line).concat();
        assert_eq!(steps(&text), [10.0, 20.0, 25.0, 35.0, 35.0]);
    }
}
