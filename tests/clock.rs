//! A wall clock that jumps, a day ahead and two days back, under a learner and an actor at work. Nobody may be thought dead for it, no step
//! may be missing from the books, and the newest checkpoint is the newest whatever the time was when it was written.
//!
//! The clock is a shim in C that the real binaries preload; where there is no C compiler the test says so and does nothing.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use support::{
    Process, assert_balanced, newest, produced, run, start_with, summary, trained, url_of, wait_until,
};

const DAY: i64 = 86_400;
/// No test takes as long, and no jump is as short.
const HOUR: f64 = 3600.0;

/// The shim, compiled into `folder`; `None`, with the reason on the terminal, where there is no compiler.
fn compile(folder: &Path) -> Option<PathBuf> {
    if Command::new("cc").arg("--version").output().is_err() {
        eprintln!("skipped: there is no C compiler `cc`");
        return None;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/clock.c");
    let library = folder.join("clock.so");
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-shared", "-fPIC", "-o"]).arg(&library).arg(source);
    let output = cc.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(library)
}

/// A wall clock that can be set.
struct Clock {
    library: PathBuf,
    path: PathBuf,
    shift: File,
}

impl Clock {
    fn new(library: &Path, path: PathBuf) -> Self {
        let clock = Self { library: library.into(), shift: File::create(&path).unwrap(), path };
        clock.set(0);
        clock
    }

    /// Seconds by which it is ahead of the true time from now on.
    fn set(&self, seconds: i64) {
        self.shift.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }

    /// Starts `impresario` by this clock.
    fn start(&self, args: &[&str]) -> Process {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let variables = [("LD_PRELOAD", &*text(&self.library)), ("WALL_CLOCK_SHIFT", &*text(&self.path))];
        start_with(args, &variables)
    }
}

/// By how many seconds the learner's newest report is ahead of the true time.
fn ahead(run_dir: &Path) -> Option<f64> {
    let metrics = std::fs::read_to_string(run_dir.join("metrics.jsonl")).ok()?;
    // The last line may be half written.
    let newest = metrics.lines().rev().find_map(|line| serde_json::from_str::<Value>(line).ok())?;
    let told = newest["unix_time"].as_f64()?;
    Some(told - SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64())
}

/// The days of the month in an actor's log, each once, in order.
fn days(log: &str) -> Vec<String> {
    let dates = log.lines().filter_map(|line| {
        let event: Value = serde_json::from_str(line).ok()?;
        Some(event["timestamp"].as_str()?.split_once('T')?.0.to_owned())
    });
    let mut dates: Vec<_> = dates.collect();
    dates.dedup();
    dates
}

#[test]
fn a_wall_clock_that_jumps_makes_nobody_dead_and_no_checkpoint_newer() {
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = compile(folder.path()) else { return };
    let run_dir = folder.path().join("run");
    let clock = |name: &str| Clock::new(&library, folder.path().join(name));
    let (learners, actors_own) = (clock("learner"), clock("actor"));

    let fixed = ["learner", "--listen", "127.0.0.1:0", "--log-format", "json"];
    let run_flags = ["--run-dir", run_dir.to_str().unwrap(), "--until-return", "never"];
    let often = ["--set", "report.interval_seconds=0.1", "--set", "report.checkpoint_seconds=0.2"];
    let endless = ["--steps", "1000000000"];
    let mut learner = learners.start(&[&fixed[..], &run_flags, &endless, &often].concat());
    let url = url_of(&mut learner);
    let act = ["actor", "--learner", &url, "--log-format", "json"];
    let actors = [start_with(&act, &[]), actors_own.start(&act)];
    wait_until("both actors act", || newest(&learner, "actors") == Some(2));
    let goes_on = |learner: &mut Process| {
        let before = newest(learner, "steps").unwrap_or(0);
        trained(learner, before + 20_000);
    };
    goes_on(&mut learner);

    learners.set(DAY);
    wait_until("a report from tomorrow", || ahead(&run_dir).is_some_and(|ahead| ahead > HOUR));
    goes_on(&mut learner);
    actors_own.set(DAY);
    goes_on(&mut learner);
    learners.set(-DAY);
    wait_until("a report from yesterday", || ahead(&run_dir).is_some_and(|ahead| ahead < -HOUR));
    goes_on(&mut learner);
    actors_own.set(-DAY);
    goes_on(&mut learner);
    learner.wait_for("a return that counts as solved", |line| {
        let event: Value = serde_json::from_str(line).ok()?;
        (event["return"].as_f64()? >= 475.0).then_some(())
    });
    assert_eq!(newest(&learner, "actors"), Some(2));

    learner.signal("TERM");
    let ended = learner.end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(!ended.stderr.contains("silent or gone"), "{}", ended.stderr);
    let mut told = 0;
    for (actor, days_seen) in actors.into_iter().zip([1, 2]) {
        let ended = actor.end();
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        assert!(!ended.stderr.contains("cannot reach"), "{}", ended.stderr);
        assert_eq!(days(&ended.stderr).len().min(2), days_seen, "{}", ended.stderr);
        told += produced(&ended);
    }
    let outcome = summary(&run_dir);
    assert_balanced(&outcome);
    assert_eq!(outcome["solved"], true, "{outcome}");
    assert_eq!(outcome["accounting"]["produced"], told, "both sides count the same: {outcome}");
    assert!(outcome["accounting"]["dropped"].get("actor_lost").is_none(), "{outcome}");
    let took = outcome["wall_seconds"].as_f64().unwrap();
    assert!(took > 0.0 && took < HOUR, "it is no wall clock that times a run: {outcome}");

    // The newest has the most steps, however old its file claims to be.
    let checkpoints = impresario_learner::checkpoint::paths(&run_dir.join("checkpoints")).unwrap();
    let (last, former) = checkpoints.split_last().unwrap();
    assert!(!former.is_empty());
    let long_ago = SystemTime::now() - Duration::from_secs(30 * DAY as u64);
    File::options().write(true).open(last).unwrap().set_modified(long_ago).unwrap();
    let steps = outcome["env_steps"].as_u64().unwrap();
    let more = (steps + 20_000).to_string();
    let resumed = run(&["train", "--resume", "--run-dir", run_dir.to_str().unwrap(), "--steps", &more]);
    assert_eq!(resumed.code(), 0, "{}", resumed.stderr);
    assert!(resumed.stderr.contains(&format!("going on from {}", last.display())), "{}", resumed.stderr);
    let outcome = summary(&run_dir);
    assert!(outcome["env_steps"].as_u64().unwrap() >= steps + 20_000, "{outcome}");
    assert_balanced(&outcome);
}
