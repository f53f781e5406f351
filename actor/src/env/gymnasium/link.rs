//! [`Link`]: a Python process that runs a program of this binary, and the socket to it: started, spoken to, watched, ended.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use impresario_common::security::token::TOKEN_VARIABLE;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ears::Ears;
use super::failure::Failure;
use super::interpreter::Interpreter;
use super::protocol::Told;

/// Libraries below numpy start a thread for each core, of which a worker makes no use; what the user has set stays.
const ONE_THREAD: [&str; 3] = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"];
/// Time that a process may take to close its environments.
const CLOSING: Duration = Duration::from_secs(2);
/// Longest message of a process: bounds of an observation of 2^24 numbers, in hexadecimal.
const MAX_MESSAGE_BYTES: u32 = 300 << 20;

/// How long an answer may take, and what sets that.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) limit: Duration,
    pub(super) key: &'static str,
}

/// A Python process. It ends when this is dropped, when it fails, and when this process ends.
///
/// The operating system ties its life to the thread that started it, too: that which speaks to it.
#[derive(Debug)]
pub(super) struct Link {
    child: Child,
    bell: UnixStream,
    ears: Ears,
    interpreter: Interpreter,
    /// The environment asked for.
    name: String,
    patience: Patience,
}

impl Link {
    /// Starts `program`, which shares `memory` if there is any, on behalf of the environment called `name`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(super) fn start(
        interpreter: &Interpreter,
        program: &str,
        memory: Option<&File>,
        name: &str,
        patience: Patience,
    ) -> Result<Self, Failure> {
        let (bell, far_end) = UnixStream::pair().map_err(refused)?;
        bell.set_read_timeout(Some(patience.limit)).map_err(refused)?;
        let mut command = Command::new(interpreter.path());
        // Unbuffered, so that what an environment prints is seen; with a traceback when it crashes.
        command.args(["-u", "-X", "faulthandler", "-c", program]);
        for variable in ONE_THREAD.iter().filter(|variable| std::env::var_os(variable).is_none()) {
            command.env(variable, "1");
        }
        // An environment has no business with the learner's token.
        command.env_remove(TOKEN_VARIABLE);
        let stdout = match memory {
            Some(file) => Stdio::from(file.try_clone().map_err(refused)?),
            None => Stdio::null(),
        };
        command.stdin(Stdio::from(OwnedFd::from(far_end))).stdout(stdout).stderr(Stdio::piped());
        let started = command.spawn();
        // It holds the process's end of the socket, whose closing is how a death is noticed.
        drop(command);
        let mut child =
            started.map_err(|source| Failure::NoPython { interpreter: interpreter.clone(), source })?;
        let ears = Ears::listen(child.stderr.take());
        Ok(Self { child, bell, ears, interpreter: interpreter.clone(), name: name.into(), patience })
    }

    /// From now on waits so long for an answer.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub(super) fn wait_for(&mut self, patience: Patience) -> Result<(), Failure> {
        self.patience = patience;
        self.bell.set_read_timeout(Some(patience.limit)).map_err(refused)
    }

    /// Says something that needs no answer.
    ///
    /// # Errors
    /// If the process fails; it is ended then.
    pub(super) fn say(&mut self, message: &impl Serialize) -> Result<(), Failure> {
        let said = say(&mut self.bell, message);
        said.map_err(|error| self.explain(Problem::Io(error)))
    }

    /// Says something and waits for what the process has to say to it.
    ///
    /// # Errors
    /// If the process fails, or cannot do what is asked; it is ended then.
    pub(super) fn ask<T: DeserializeOwned>(&mut self, message: &impl Serialize) -> Result<T, Failure> {
        self.say(message)?;
        take_answer(&mut self.bell).map_err(|problem| self.explain(problem))
    }

    /// Rings with `bytes`, waits until what they ask for is done, and reads the `N` bytes that come of it.
    ///
    /// # Errors
    /// If the process fails; it is ended then.
    pub(super) fn ring<const N: usize>(&mut self, bytes: &[u8]) -> Result<[u8; N], Failure> {
        let rung = self.bell.write_all(bytes).map_err(Problem::Io);
        rung.and_then(|()| take_bytes(&mut self.bell)).map_err(|problem| self.explain(problem))
    }

    /// Why there was no answer. The process is ended.
    fn explain(&mut self, problem: Problem) -> Failure {
        let failure = match problem {
            Problem::Told(told) => Failure::told(told, &self.name, &self.interpreter),
            Problem::Io(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                bury(&mut self.child);
                let Patience { limit, key } = self.patience;
                Failure::Hung { limit, key, last_words: self.ears.last_words() }
            }
            Problem::Io(error) => match wait(&mut self.child, CLOSING) {
                Some(status) => Failure::Died { how: in_words(status), last_words: self.ears.last_words() },
                None => refused(error),
            },
        };
        bury(&mut self.child);
        failure
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The process takes it for the actor's farewell.
        let _ = self.bell.shutdown(Shutdown::Both);
        if wait(&mut self.child, CLOSING).is_none() {
            bury(&mut self.child);
        }
    }
}

/// What came of waiting for an answer.
pub(super) enum Problem {
    Io(io::Error),
    /// The process told what it could not do.
    Told(Told),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn in_words(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was killed by signal {signal}"),
        (None, code) => format!("ended with status {}", code.unwrap_or_default()),
    }
}

/// What the operating system refused, or the process broke.
pub(super) fn refused(error: io::Error) -> Failure {
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

fn say(bell: &mut UnixStream, message: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let length = u32::try_from(text.len()).map_err(io::Error::other)?;
    bell.write_all(&length.to_le_bytes())?;
    bell.write_all(&text)
}

/// Waits for an answer in JSON.
pub(super) fn take_answer<T: DeserializeOwned>(bell: &mut impl Read) -> Result<T, Problem> {
    answer(bell)?;
    Ok(hear(bell)?)
}

/// Waits for an answer of `N` bytes.
pub(super) fn take_bytes<const N: usize>(bell: &mut impl Read) -> Result<[u8; N], Problem> {
    answer(bell)?;
    let mut told = [0; N];
    bell.read_exact(&mut told)?;
    Ok(told)
}

/// Waits until the process says that it is done.
fn answer(bell: &mut impl Read) -> Result<(), Problem> {
    let mut mark = [0];
    bell.read_exact(&mut mark)?;
    match &mark {
        b"." => Ok(()),
        _ => Err(Problem::Told(hear(bell)?)),
    }
}

fn hear<T: DeserializeOwned>(bell: &mut impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    bell.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > MAX_MESSAGE_BYTES {
        return Err(io::Error::other(format!("it sent a message of {length} bytes")));
    }
    // Room is made as the message comes, whatever its length is said to be.
    let mut text = vec![];
    bell.take(u64::from(length)).read_to_end(&mut text)?;
    if text.len() < length as usize {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&text)?)
}
