//! [`Process`]: a Python worker, from its start to its end.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use impresario_common::config::EnvironmentSection;
use impresario_common::security::token::TOKEN_VARIABLE;
use impresario_common::space::EnvironmentSpec;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Request;
use super::failure::Failure;
use super::interpreter::Interpreter;
use super::memory::{self, Memory};
use super::protocol::{Description, Told};

/// The worker's program.
const PROGRAM: &str = concat!(
    include_str!("python/link.py"),
    "\n\n",
    include_str!("python/spaces.py"),
    "\n\n",
    include_str!("python/copies.py"),
    "\n\n",
    include_str!("python/worker.py"),
);

/// Libraries below numpy start a thread for each core, of which a worker makes no use; what the user has set stays.
const ONE_THREAD: [&str; 3] = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"];

/// Lines of standard error that are kept for a worker's last words.
const LAST_WORDS: usize = 40;
/// Time that a worker may take to close its environments.
const CLOSING: Duration = Duration::from_secs(2);
/// Time that a dead worker's standard error may take to arrive, if a process of its own holds it open.
const HEARING: Duration = Duration::from_millis(500);
/// Longest message of a worker: bounds of an observation of 2^24 numbers, in hexadecimal.
const MAX_MESSAGE_BYTES: u32 = 300 << 20;

/// What the actor rings for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ring {
    Reset,
    Step,
}

/// A Python process that steps copies of an environment. It ends when this is dropped, and when this process does.
///
/// The operating system ties its life to the thread that started it, too: that which steps it.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    bell: UnixStream,
    memory: Memory,
    ears: Ears,
    context: Context,
}

/// What failures are explained with.
#[derive(Debug)]
struct Context {
    interpreter: Interpreter,
    name: String,
    limit: Duration,
    key: &'static str,
}

impl Process {
    /// Starts a worker with `copies` copies of the environment, and says what that is.
    ///
    /// # Errors
    /// If it cannot be started, or cannot make the copies.
    pub(super) fn start(
        interpreter: &Interpreter,
        options: &EnvironmentSection,
        copies: usize,
    ) -> Result<(Self, EnvironmentSpec), Failure> {
        let mut context = Context {
            interpreter: interpreter.clone(),
            name: super::name(&options.id).into(),
            limit: Duration::from_secs_f64(options.start_timeout_seconds),
            key: "environment.start_timeout_seconds",
        };
        let (bell, file) = (|| Ok((UnixStream::pair()?, memory::create()?)))().map_err(link)?;
        let (mut bell, far_end) = bell;
        bell.set_read_timeout(Some(context.limit)).map_err(link)?;
        let mut command = Command::new(interpreter.path());
        // Unbuffered, so that what an environment prints is seen; with a traceback when it crashes.
        command.args(["-u", "-X", "faulthandler", "-c", PROGRAM]);
        for variable in ONE_THREAD.iter().filter(|variable| std::env::var_os(variable).is_none()) {
            command.env(variable, "1");
        }
        // An environment has no business with the learner's token.
        command.env_remove(TOKEN_VARIABLE);
        let mut child = command
            .stdin(Stdio::from(OwnedFd::from(far_end)))
            .stdout(Stdio::from(file.try_clone().map_err(link)?))
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| Failure::NoPython { interpreter: interpreter.clone(), source })?;
        // It holds the worker's end of the socket, whose closing is how a death is noticed.
        drop(command);
        let mut ears = Ears::listen(child.stderr.take());
        let request = Request { name: &context.name, copies, options };
        let made = introduce(&mut bell, &request)
            .map_err(|problem| context.explain(problem, &mut child, &mut ears))
            .and_then(|description| {
                tracing::debug!(copies, "{}: {}", context.name, description.stepping);
                description.spec(&options.id).map_err(Failure::Link)
            })
            .and_then(|spec| {
                let (memory, layout) = Memory::new(&file, &spec, copies).map_err(link)?;
                say(&mut bell, &layout).map_err(link)?;
                Ok((spec, memory))
            });
        let (spec, memory) = match made {
            Ok(made) => made,
            Err(failure) => {
                bury(&mut child);
                return Err(failure);
            }
        };
        context.limit = Duration::from_secs_f64(options.step_timeout_seconds);
        context.key = "environment.step_timeout_seconds";
        bell.set_read_timeout(Some(context.limit)).map_err(link)?;
        Ok((Self { child, bell, memory, ears, context }, spec))
    }

    /// What is shared with the worker. It is this side's turn.
    pub(super) fn memory(&mut self) -> &mut Memory {
        &mut self.memory
    }

    /// 1 where the step taken last ended an episode for learning only.
    pub(super) fn goes_on(&self) -> &[u8] {
        self.memory.goes_on()
    }

    /// Has the worker do what it is rung for, and waits until it is done.
    ///
    /// # Errors
    /// If the worker fails; it is ended then.
    pub(super) fn ring(&mut self, ring: Ring) -> Result<(), Failure> {
        let byte = match ring {
            Ring::Reset => b"r",
            Ring::Step => b"s",
        };
        let answered = self.bell.write_all(byte).map_err(Problem::Io).and_then(|()| answer(&mut self.bell));
        answered.map_err(|problem| {
            let failure = self.context.explain(problem, &mut self.child, &mut self.ears);
            bury(&mut self.child);
            failure
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The worker takes it for the actor's farewell.
        let _ = self.bell.shutdown(Shutdown::Both);
        if wait(&mut self.child, CLOSING).is_none() {
            bury(&mut self.child);
        }
    }
}

/// What came of waiting for an answer.
enum Problem {
    Io(io::Error),
    /// The worker told what it could not do.
    Told(Told),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Context {
    fn explain(&self, problem: Problem, child: &mut Child, ears: &mut Ears) -> Failure {
        let error = match problem {
            Problem::Told(told) => return Failure::told(told, &self.name, &self.interpreter),
            Problem::Io(error) => error,
        };
        if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
            bury(child);
            return Failure::Hung { limit: self.limit, key: self.key, last_words: ears.last_words() };
        }
        match wait(child, CLOSING) {
            Some(status) => Failure::Died { how: in_words(status), last_words: ears.last_words() },
            None => Failure::Link(error.to_string()),
        }
    }
}

fn in_words(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was killed by signal {signal}"),
        (None, code) => format!("ended with status {}", code.unwrap_or_default()),
    }
}

fn link(error: io::Error) -> Failure {
    Failure::Link(error.to_string())
}

/// Waits for the end of a process.
fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Ends a process now.
fn bury(child: &mut Child) {
    // Either fails only if it has ended already.
    let _ = child.kill();
    let _ = child.wait();
}

/// Has the worker make the copies, and say what they are.
fn introduce(bell: &mut UnixStream, request: &Request<'_>) -> Result<Description, Problem> {
    say(bell, request)?;
    answer(bell)?;
    Ok(hear(bell)?)
}

fn say(bell: &mut UnixStream, message: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let length = u32::try_from(text.len()).map_err(io::Error::other)?;
    bell.write_all(&length.to_le_bytes())?;
    bell.write_all(&text)
}

/// Waits until the worker says that it is done.
fn answer(bell: &mut UnixStream) -> Result<(), Problem> {
    let mut mark = [0];
    bell.read_exact(&mut mark)?;
    match &mark {
        b"." => Ok(()),
        _ => Err(Problem::Told(hear(bell)?)),
    }
}

fn hear<T: DeserializeOwned>(bell: &mut UnixStream) -> io::Result<T> {
    let mut length = [0; 4];
    bell.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > MAX_MESSAGE_BYTES {
        return Err(io::Error::other(format!("it sent a message of {length} bytes")));
    }
    let mut text = vec![0; length as usize];
    bell.read_exact(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// Listens to a worker's standard error, passes it on to the log, and remembers the end of it.
#[derive(Debug)]
struct Ears {
    lines: Arc<Mutex<VecDeque<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Ears {
    fn listen(stderr: Option<ChildStderr>) -> Self {
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
    fn last_words(&mut self) -> String {
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
