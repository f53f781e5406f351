//! [`Ears`]: what a Python process says on standard error, for the log and for its last words.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::process::ChildStderr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Lines of standard error that are kept for a worker's last words.
const LAST_WORDS: usize = 40;
/// Time that a dead worker's standard error may take to arrive, if a process of its own holds it open.
const HEARING: Duration = Duration::from_millis(500);

/// Listens to a worker's standard error, passes it on to the log, and remembers the end of it.
#[derive(Debug)]
pub(super) struct Ears {
    lines: Arc<Mutex<VecDeque<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Ears {
    pub(super) fn listen(stderr: Option<ChildStderr>) -> Self {
        let lines = Arc::new(Mutex::new(VecDeque::new()));
        let thread = stderr.and_then(|stderr| {
            let lines = lines.clone();
            let listen = move || {
                for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                    let line = String::from_utf8_lossy(&line).into_owned();
                    tracing::warn!(target: "python", "{line}");
                    let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                    if lines.len() == LAST_WORDS {
                        lines.pop_front();
                    }
                    lines.push_back(line);
                }
            };
            std::thread::Builder::new().name("python-stderr".into()).spawn(listen).ok()
        });
        Self { lines, thread }
    }

    /// What a worker that has ended said last.
    pub(super) fn last_words(&mut self) -> String {
        let deadline = Instant::now() + HEARING;
        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        match lines.is_empty() {
            true => "(none)".into(),
            false => lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n"),
        }
    }
}
