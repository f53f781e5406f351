//! Starts the real binary and watches it: every wait has a deadline, and whatever a test starts ends with it.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest wait for anything that must happen; generous, because machines differ.
pub const DEADLINE: Duration = Duration::from_secs(240);

/// Longest wait for the end of a log whose process has ended.
const LOG_ENDS: Duration = Duration::from_secs(5);

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_impresario");

/// A running `impresario`, killed when dropped.
pub struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    /// Reads its log to the end.
    reader: JoinHandle<()>,
}

/// What a process left behind.
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// The exit code, with the output shown where there is none.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("killed: {}\n{}", self.status, self.stderr))
    }
}

/// Starts `impresario` with `args`.
pub fn start(args: &[&str]) -> Process {
    start_with(args, &[])
}

/// Starts `impresario` with `args` and variables of the environment.
pub fn start_with(args: &[&str], variables: &[(&str, &str)]) -> Process {
    start_by(Command::new(BINARY), args, variables)
}

/// Starts `command`, which is `impresario` or becomes it, with `args` and variables of the environment.
pub fn start_by(mut command: Command, args: &[&str], variables: &[(&str, &str)]) -> Process {
    let mut child = command
        .args(args)
        .env("RUST_LOG", "info")
        .env_remove("IMPRESARIO_TOKEN")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let lines = Arc::new(Mutex::new(vec![]));
    let stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
    let sink = lines.clone();
    let reader = std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            sink.lock().expect("no reader panics").push(line);
        }
    });
    Process { child, lines, reader }
}

/// Runs `impresario` with `args` to its end.
pub fn run(args: &[&str]) -> Ended {
    start(args).end()
}

impl Process {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to its log so far.
    pub fn log(&self) -> String {
        self.lines.lock().expect("no reader panics").join("\n")
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("its status can be read").is_none()
    }

    /// Waits until `found` makes something of a line of the log.
    pub fn wait_for<T>(&mut self, what: &str, found: impl Fn(&str) -> Option<T>) -> T {
        let end = Instant::now() + DEADLINE;
        loop {
            let hit = self.lines.lock().expect("no reader panics").iter().find_map(|line| found(line));
            if let Some(hit) = hit {
                return hit;
            }
            assert!(Instant::now() < end, "{what} did not come within {DEADLINE:?}:\n{}", self.log());
            assert!(self.is_running(), "ended before {what}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends a signal by name: "TERM", "KILL", "STOP", "CONT".
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Waits for its end.
    pub fn end(mut self) -> Ended {
        let deadline = Instant::now() + DEADLINE;
        while self.is_running() {
            assert!(Instant::now() < deadline, "still runs after {DEADLINE:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        let status = self.child.wait().expect("its status can be read");
        let mut stdout = String::new();
        if let Some(mut pipe) = self.child.stdout.take() {
            std::io::Read::read_to_string(&mut pipe, &mut stdout).expect("its output is text");
        }
        // The reader may be behind the process's end, and that of whoever else has inherited the log.
        let deadline = Instant::now() + LOG_ENDS;
        while !self.reader.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ended { status, stdout, stderr: self.log() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a learner on a port of its own choice, and waits for its address.
pub fn start_learner(run_dir: &Path, args: &[&str]) -> (Process, String) {
    let run_dir = run_dir.to_str().expect("a path in UTF-8");
    let fixed = ["learner", "--listen", "127.0.0.1:0", "--log-format", "json", "--run-dir", run_dir];
    let mut learner = start(&[&fixed, args].concat());
    let url = url_of(&mut learner);
    (learner, url)
}

/// Waits for the address of a learner that logs in JSON.
pub fn url_of(learner: &mut Process) -> String {
    let address = learner.wait_for("the learner's address", |line| {
        let event: Value = serde_json::from_str(line).ok()?;
        Some(event["address"].as_str()?.to_owned())
    });
    format!("http://{address}")
}

/// A number of a learner's newest report.
pub fn newest(learner: &Process, key: &str) -> Option<u64> {
    learner.log().lines().rev().find_map(|line| {
        let event: Value = serde_json::from_str(line).ok()?;
        event["steps"].as_u64().and_then(|_| event[key].as_u64())
    })
}

/// A learner that goes on with the run in `run_dir` at the very address.
pub fn resume_learner(run_dir: &Path, url: &str, args: &[&str]) -> Process {
    let address = url.strip_prefix("http://").unwrap();
    let fixed = ["learner", "--listen", address, "--log-format", "json", "--resume"];
    start(&[&fixed[..], &["--run-dir", run_dir.to_str().unwrap()], args].concat())
}

/// Starts an actor.
pub fn start_actor(url: &str, args: &[&str]) -> Process {
    start(&[&["actor", "--learner", url], args].concat())
}

/// Reads a run's summary.
pub fn summary(run_dir: &Path) -> Value {
    let path = run_dir.join("summary.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Waits until a learner and its actors have ended, all in good order; the actors.
pub fn end_all(learner: Process, actors: impl IntoIterator<Item = Process>) -> Vec<Ended> {
    let in_good_order = |process: Process| {
        let ended = process.end();
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        ended
    };
    in_good_order(learner);
    actors.into_iter().map(in_good_order).collect()
}

/// Environment steps that an actor says it has taken.
pub fn produced(actor: &Ended) -> u64 {
    let line = actor.stderr.lines().find(|line| line.contains("environment steps produced"));
    let line = line.unwrap_or_else(|| panic!("no account of its life:\n{}", actor.stderr));
    let steps = line.split_once("done: ").unwrap().1.split_once(' ').unwrap().0;
    steps.parse().unwrap()
}

/// Steps dropped for all reasons together.
pub fn dropped(summary: &Value) -> u64 {
    let reasons = summary["accounting"]["dropped"].as_object().expect("dropped steps by reason");
    reasons.values().map(|steps| steps.as_u64().expect("a count")).sum()
}

/// Asserts that every step produced is trained or dropped, and none left over.
pub fn assert_balanced(summary: &Value) {
    let books = &summary["accounting"];
    let count = |key: &str| books[key].as_u64().unwrap_or_else(|| panic!("{key} in {books}"));
    assert_eq!(count("in_flight"), 0, "{books}");
    assert_eq!(count("produced"), count("trained") + dropped(summary), "{books}");
    assert_eq!(count("trained"), summary["env_steps"].as_u64().expect("a count"), "{summary}");
}

/// The processes that `pid` has started and that still run, the eldest first.
pub fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of_task = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children"));
    let mut listed: Vec<u32> = tasks
        .flat_map(|task| of_task(task).unwrap_or_default().split(' ').map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|child| child.trim().parse().ok())
        .collect();
    listed.sort_unstable();
    listed.into_iter().filter(|&child| runs(child)).collect()
}

/// Whether a process runs: neither gone nor dead and unburied.
pub fn runs(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| !["Z", "X"].contains(&stat[0].as_str()))
}

/// Processor time that a process has used, in clock ticks.
pub fn processor_time(pid: u32) -> u64 {
    let stat = stat(pid).expect("the process runs");
    [11, 12].map(|field: usize| stat[field].parse::<u64>().expect("a number of ticks")).iter().sum()
}

/// The fields of /proc/PID/stat from the state on; names before it may hold anything.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(") ")?.1.split_whitespace().map(str::to_owned).collect())
}

/// Waits until `holds`.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends a signal by name to any process.
pub fn signal(pid: u32, name: &str) {
    use nix::sys::signal::{Signal, kill};
    let signal: Signal = format!("SIG{name}").parse().expect("a signal's name");
    kill(nix::unistd::Pid::from_raw(pid as i32), signal).expect("it can be signalled");
}

/// Waits for a report of the learner that shows at least `steps` trained steps.
pub fn trained(learner: &mut Process, steps: u64) {
    learner.wait_for("training", |line| {
        let event: Value = serde_json::from_str(line).ok()?;
        (event["steps"].as_u64()? >= steps).then_some(())
    });
}
