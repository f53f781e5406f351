//! [`Process`]: a Python worker with copies of an environment, and the memory that is shared with it.

use std::time::Duration;

use impresario_common::config::EnvironmentSection;
use impresario_common::space::EnvironmentSpec;

use super::failure::Failure;
use super::interpreter::Interpreter;
use super::link::{Link, Patience, refused};
use super::memory::{self, Memory};
use super::protocol::{Description, Request};
use crate::env::picture::Picture;

/// The worker's program.
const PROGRAM: &str = concat!(
    include_str!("python/link.py"),
    "\n\n",
    include_str!("python/spaces.py"),
    "\n\n",
    include_str!("python/copies.py"),
    "\n\n",
    include_str!("python/film.py"),
    "\n\n",
    include_str!("python/alone.py"),
    "\n\n",
    include_str!("python/worker.py"),
);

/// What the actor rings for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ring {
    Reset,
    Step,
}

/// Whether the first copy is to draw itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Camera {
    Off,
    On,
}

/// A Python process that steps copies of an environment. It ends when this is dropped, and when this process does.
#[derive(Debug)]
pub(super) struct Process {
    link: Link,
    memory: Memory,
    /// Seconds that a picture is to be seen, if there are pictures.
    seconds: f64,
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
        camera: Camera,
    ) -> Result<(Self, EnvironmentSpec), Failure> {
        let (file, name) = (memory::create().map_err(refused)?, super::name(&options.id));
        let patience = Patience {
            limit: Duration::from_secs_f64(options.start_timeout_seconds),
            key: "environment.start_timeout_seconds",
        };
        let mut link = Link::start(interpreter, PROGRAM, Some(&file), name, patience)?;
        let request = Request { name, copies, options, filmed: camera == Camera::On };
        let description: Description = link.ask(&request)?;
        tracing::debug!(copies, "{name}: {}", description.stepping);
        let (drawn, size) = (description.picture, description.picture_size());
        let spec = description.spec(&options.id).map_err(Failure::Link)?;
        let (memory, layout) = Memory::new(&file, &spec, copies, size).map_err(refused)?;
        link.say(&layout)?;
        link.wait_for(Patience {
            limit: Duration::from_secs_f64(options.step_timeout_seconds),
            key: "environment.step_timeout_seconds",
        })?;
        Ok((Self { link, memory, seconds: drawn.map_or(0.0, |drawn| drawn.seconds) }, spec))
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
        self.link.ring::<0>(byte)?;
        match self.memory.flags_are_flags() {
            true => Ok(()),
            false => Err(Failure::Link(NO_FLAGS.into())),
        }
    }

    /// Seconds that `steps` steps of all copies at random take in a plain loop in the worker. The copies need a reset
    /// afterwards.
    ///
    /// # Errors
    /// If the worker fails; it is ended then.
    pub(super) fn seconds_alone(&mut self, steps: u32) -> Result<f64, Failure> {
        let [a, b, c, d] = steps.to_le_bytes();
        let told: [u8; 8] = self.link.ring(&[b't', a, b, c, d])?;
        seconds(told).map_err(Failure::Link)
    }

    /// The pictures that the worker has made since this was called last.
    pub(super) fn take_pictures(&mut self) -> Vec<Picture> {
        pictures(&mut self.memory, self.seconds)
    }
}

/// What is wrong with memory in which [`Memory::flags_are_flags`] does not hold.
pub(super) const NO_FLAGS: &str = "it wrote an end of an episode that is neither 0 nor 1";

/// A time that the worker has told.
pub(super) fn seconds(told: [u8; 8]) -> Result<f64, String> {
    let seconds = f64::from_le_bytes(told);
    match (0.0..f64::MAX).contains(&seconds) {
        true => Ok(seconds),
        false => Err(format!("it says that its steps took {seconds} s")),
    }
}

/// The pictures in `memory`, each to be seen for `seconds`.
pub(super) fn pictures(memory: &mut Memory, seconds: f64) -> Vec<Picture> {
    let [height, width] = memory.picture_size();
    let pictures = memory.take_pictures();
    pictures.map(|pixels| Picture::of_pixels(width, height, pixels.to_vec(), seconds)).collect()
}
