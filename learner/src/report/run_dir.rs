//! [`RunDir`]: the directory that a run leaves behind; docs/run-directory.md describes its files.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use impresario_common::config::{ConfigError, RUN_CONFIG_FILE, RunConfig};
use impresario_common::space::EnvironmentSpec;

use super::append_file::write_atomically;
use crate::lives::RunRecord;

/// A run directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// Another run lives there.
    #[error(
        "run directory {} already holds a run (there is a config.toml): choose another one with --run-dir, or continue that run with --resume",
        .0.display()
    )]
    Occupied(PathBuf),
    /// No run lives there.
    #[error("{} holds no run: it has no config.toml", .0.display())]
    NoRun(PathBuf),
    /// The directory cannot be made or listed.
    #[error("cannot use run directory {}: {source}; choose another one with --run-dir, or continue that run with --resume", path.display())]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file in it cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its configuration cannot be read or written.
    #[error("{}: {source}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ConfigError,
    },
}

/// The directory of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// Makes the directory of a new run and writes its configuration there: at `path`, or else at
    /// `runs/<environment>-<algorithm>-seed<seed>-<time>`.
    ///
    /// # Errors
    /// If a run lives there, or the directory cannot be made or written to.
    pub fn create(path: Option<&Path>, config: &RunConfig) -> Result<Self, RunDirError> {
        let path = match path {
            Some(path) => path.to_owned(),
            None => unused(Path::new("runs").join(default_name(config, SystemTime::now()))),
        };
        let dir = Self { path };
        let unusable = |source| RunDirError::Unusable { path: dir.path.clone(), source };
        std::fs::create_dir_all(&dir.path).map_err(unusable)?;
        if dir.config_path().try_exists().map_err(unusable)? {
            return Err(RunDirError::Occupied(dir.path));
        }
        // First, so that a run that has a configuration can be resumed.
        RunRecord::new().write(&dir.path)?;
        dir.write_config(config)?;
        std::fs::create_dir_all(dir.checkpoints()).map_err(unusable)?;
        Ok(dir)
    }

    /// The directory of an existing run, to resume or evaluate it.
    ///
    /// # Errors
    /// If no run lives there.
    pub fn open(path: &Path) -> Result<Self, RunDirError> {
        let dir = Self { path: path.to_owned() };
        if dir.config_path().is_file() { Ok(dir) } else { Err(RunDirError::NoRun(dir.path)) }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `config.toml`: the run's configuration, fully resolved.
    pub fn config_path(&self) -> PathBuf {
        self.path.join(RUN_CONFIG_FILE)
    }

    /// The run's name and its lives.
    ///
    /// # Errors
    /// If `run.json` cannot be read.
    pub fn record(&self) -> Result<RunRecord, RunDirError> {
        Ok(RunRecord::read(&self.path)?.unwrap_or_default())
    }

    /// `environment.toml`: what the run's environment shows and accepts.
    pub fn environment_path(&self) -> PathBuf {
        self.path.join("environment.toml")
    }

    /// `metrics.jsonl`: a line of numbers an interval.
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// `curve.jsonl`: how learning went, a point every `report.curve_steps`.
    pub fn curve(&self) -> PathBuf {
        self.path.join("curve.jsonl")
    }

    /// `evaluations.jsonl`: what checkpoints came to in evaluation, a line each.
    pub fn evaluations(&self) -> PathBuf {
        self.path.join("evaluations.jsonl")
    }

    /// `summary.json`: what came out of the run.
    pub fn summary(&self) -> PathBuf {
        self.path.join("summary.json")
    }

    /// `checkpoints/`.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// Writes `config.toml`: whole or not at all.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_config(&self, config: &RunConfig) -> Result<(), RunDirError> {
        let path = self.config_path();
        let text = config.to_toml().map_err(|source| RunDirError::Config { path: path.clone(), source })?;
        write_atomically(&path, text.as_bytes()).map_err(|source| RunDirError::File { path, source })
    }

    /// Writes `environment.toml`: whole or not at all.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_environment(&self, environment: &EnvironmentSpec) -> Result<(), RunDirError> {
        let path = self.environment_path();
        let text = toml::to_string(environment).map_err(io::Error::other);
        text.and_then(|text| write_atomically(&path, text.as_bytes()))
            .map_err(|source| RunDirError::File { path, source })
    }

    /// Writes `evaluations.jsonl` anew: whole or not at all.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_evaluations(&self, lines: &str) -> Result<(), RunDirError> {
        let path = self.evaluations();
        write_atomically(&path, lines.as_bytes()).map_err(|source| RunDirError::File { path, source })
    }

    /// Reads `config.toml`.
    ///
    /// # Errors
    /// If the file cannot be read or is no valid configuration.
    pub fn read_config(&self) -> Result<RunConfig, RunDirError> {
        let path = self.config_path();
        match std::fs::read_to_string(&path) {
            Ok(text) => RunConfig::from_toml(&text).map_err(|source| RunDirError::Config { path, source }),
            Err(source) => Err(RunDirError::File { path, source }),
        }
    }
}

/// `<environment>-<algorithm>-seed<seed>-<yyyymmdd-hhmmss>`, the time in UTC.
fn default_name(config: &RunConfig, now: SystemTime) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let environment: String = config.environment.id.chars().map(plain).collect();
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (algorithm, seed) = (config.algorithm.name(), config.run.seed);
    format!("{environment}-{algorithm}-seed{seed}-{}", timestamp(seconds))
}

/// `path`, or the first of `path-2`, `path-3`, ... that does not exist.
fn unused(path: PathBuf) -> PathBuf {
    let numbered = |n: u32| {
        let mut name = path.clone().into_os_string();
        name.push(format!("-{n}"));
        PathBuf::from(name)
    };
    if !path.exists() {
        return path;
    }
    (2..).map(numbered).find(|path| !path.exists()).unwrap_or(path)
}

/// Seconds of Unix time as `yyyymmdd-hhmmss` in UTC.
fn timestamp(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_date(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}")
}

/// Year, month and day of the Gregorian calendar, `days` after 1 January 1970. Counts in eras of 400 years
/// that start on 1 March, so that a leap day is the last of its year.
fn civil_date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since 1 March of the year 0
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months_from_march + 2) / 5 + 1;
    let month = if months_from_march < 10 { months_from_march + 3 } else { months_from_march - 9 };
    (400 * era + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_new_run_finds_its_configuration_and_room_for_checkpoints() {
        let base = tempfile::tempdir().unwrap();
        let mut config = RunConfig::default();
        config.run.seed = 7;
        let dir = RunDir::create(Some(&base.path().join("a/b")), &config).unwrap();
        assert_eq!(dir.read_config().unwrap(), config);
        assert!(dir.checkpoints().is_dir());
        assert_eq!(RunDir::open(dir.path()).unwrap(), dir);
    }

    #[test]
    fn a_directory_with_a_run_is_refused_and_one_with_other_files_is_not() {
        let base = tempfile::tempdir().unwrap();
        std::fs::write(base.path().join("notes.txt"), "mine").unwrap();
        let config = RunConfig::default();
        RunDir::create(Some(base.path()), &config).unwrap();
        let again = RunDir::create(Some(base.path()), &config).unwrap_err().to_string();
        assert!(again.contains("already holds a run") && again.contains("--run-dir"), "{again}");
    }

    #[test]
    fn a_path_that_cannot_be_used_says_so() {
        let base = tempfile::tempdir().unwrap();
        let file = base.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = RunDir::create(Some(&file.join("run")), &RunConfig::default()).unwrap_err();
        assert!(error.to_string().starts_with("cannot use run directory"), "{error}");
        let error = RunDir::open(&base.path().join("missing")).unwrap_err();
        assert!(error.to_string().ends_with("holds no run: it has no config.toml"), "{error}");
    }

    #[test]
    fn default_names_hold_environment_algorithm_seed_and_time() {
        let mut config = RunConfig::default();
        config.environment.id = "ALE/Pong-v5".into();
        let now = UNIX_EPOCH + Duration::from_secs(1_709_210_096);
        assert_eq!(default_name(&config, now), "ALE_Pong-v5-impala-seed1-20240229-123456");
    }

    #[test]
    fn timestamps_follow_the_calendar() {
        assert_eq!(timestamp(0), "19700101-000000");
        assert_eq!(timestamp(951_782_399), "20000228-235959");
        assert_eq!(timestamp(951_868_800), "20000301-000000");
        assert_eq!(timestamp(4_107_542_400), "21000301-000000"); // 2100 is no leap year
        assert_eq!(timestamp(1_798_761_599), "20261231-235959");
    }

    #[test]
    fn a_name_in_use_is_numbered() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("run");
        assert_eq!(unused(path.clone()), path);
        std::fs::create_dir(&path).unwrap();
        std::fs::create_dir(base.path().join("run-2")).unwrap();
        assert_eq!(unused(path), base.path().join("run-3"));
    }
}
