//! [`GymnasiumVector`]: the copies of a Python worker as a vector of environments.

use impresario_common::random::Stream;
use impresario_common::space::{EnvironmentSpec, Space};
use rand::RngExt;

use super::GymnasiumEnvironment;
use super::failure::Failure;
use super::memory::Memory;
use super::process::{Camera, Process, Ring};
use crate::env::picture::Picture;
use crate::env::vector::Frame;
use crate::env::{Action, EnvironmentError, ObservationMut, Recovery, VectorEnvironment, VectorStep};

/// Seeds are below this: every user of them takes so many.
const SEEDS: i64 = 1 << 31;

/// Copies of an environment of Gymnasium, stepped by a Python process of their own.
#[derive(Debug)]
pub struct GymnasiumVector {
    environment: GymnasiumEnvironment,
    frame: Frame,
    /// One for each copy; it draws its seeds.
    streams: Vec<Stream>,
    /// Runs from the first reset to the first failure.
    process: Option<Process>,
    /// What a worker that follows the one that failed can be hoped for.
    recovery: Recovery,
    camera: Camera,
    /// Taken since they were asked for.
    pictures: Vec<Picture>,
}

impl GymnasiumVector {
    pub(super) fn new(environment: GymnasiumEnvironment, streams: Vec<Stream>) -> Self {
        let frame = Frame::new(environment.spec().clone(), streams.len());
        let (process, recovery) = (None, Recovery::Impossible);
        Self { environment, frame, streams, process, recovery, camera: Camera::Off, pictures: vec![] }
    }

    /// Starts the Python process.
    fn start(&self) -> Result<Process, Failure> {
        let environment = &*self.environment.0;
        let (interpreter, options) = (&environment.interpreter, &environment.options);
        let (process, spec) = Process::start(interpreter, options, self.copies(), self.camera)?;
        match spec == environment.spec {
            true => Ok(process),
            false => Err(Failure::Unsupported(format!(
                "it had observations {} and actions {} when it was looked up, and now {} and {}: its spaces must not change",
                environment.spec.observation, environment.spec.action, spec.observation, spec.action
            ))),
        }
    }

    fn try_reset(&mut self, observations: ObservationMut<'_>) -> Result<(), Failure> {
        let mut process = match self.process.take() {
            Some(process) => process,
            None => self.start()?,
        };
        for (seed, stream) in process.memory().seeds().iter_mut().zip(&mut self.streams) {
            *seed = stream.random_range(0..SEEDS);
        }
        process.ring(Ring::Reset)?;
        copy_out(process.memory().observations(), observations);
        self.pictures.extend(process.take_pictures());
        self.process = Some(process);
        Ok(())
    }

    fn fail(&mut self, failure: Failure) -> EnvironmentError {
        self.process = None;
        self.recovery = if failure.is_passing() { Recovery::Possible } else { Recovery::Impossible };
        self.frame.error(failure.to_string())
    }
}

impl VectorEnvironment for GymnasiumVector {
    fn spec(&self) -> &EnvironmentSpec {
        self.frame.spec()
    }

    fn copies(&self) -> usize {
        self.frame.copies()
    }

    fn reset(&mut self, observations: ObservationMut<'_>) -> Result<(), EnvironmentError> {
        self.frame.check_reset(&observations)?;
        self.try_reset(observations).map_err(|failure| self.fail(failure))
    }

    fn step(&mut self, actions: Action<'_>, out: VectorStep<'_>) -> Result<(), EnvironmentError> {
        self.frame.check_step(actions, &out)?;
        let Some(process) = &mut self.process else {
            return Err(self.frame.error("its Python worker has failed; reset it first".into()));
        };
        match actions {
            Action::Discrete(choices) => {
                process.memory().actions().copy_from_slice(bytemuck::cast_slice(choices))
            }
            Action::Continuous(values) => {
                process.memory().actions().copy_from_slice(bytemuck::cast_slice(values))
            }
        }
        if let Err(failure) = process.ring(Ring::Step) {
            return Err(self.fail(failure));
        }
        if self.camera == Camera::On {
            self.pictures.extend(process.take_pictures());
        }
        take_step(process.memory(), &self.frame, out)
    }

    fn steps_elsewhere(&self) -> bool {
        true
    }

    fn goes_on(&self) -> &[u8] {
        self.process.as_ref().map_or(&[], Process::goes_on)
    }

    fn recover(&mut self) -> Recovery {
        self.recovery
    }

    fn seconds_alone(&mut self, steps: u32) -> Result<Option<f64>, EnvironmentError> {
        let Some(process) = &mut self.process else {
            return Err(self.frame.error("its Python worker has not started; reset it first".into()));
        };
        process.seconds_alone(steps).map(Some).map_err(|failure| self.fail(failure))
    }

    fn film(&mut self) -> Result<(), EnvironmentError> {
        self.camera = Camera::On;
        // Whether it draws itself is known when it has been made.
        match self.start() {
            Ok(process) => self.process = Some(process),
            Err(failure) => return Err(self.fail(failure)),
        }
        Ok(())
    }

    fn take_pictures(&mut self) -> Vec<Picture> {
        std::mem::take(&mut self.pictures)
    }
}

/// Shared bytes as the numbers that they are.
/// What a step led to, from shared memory to those who asked for it.
pub(super) fn take_step(
    memory: &mut Memory,
    frame: &Frame,
    out: VectorStep<'_>,
) -> Result<(), EnvironmentError> {
    copy_out(memory.observations(), out.observations);
    out.rewards.copy_from_slice(memory.rewards());
    out.terminated.copy_from_slice(memory.terminated());
    out.truncated.copy_from_slice(memory.truncated());
    let mut finals = view(memory.finals(), &frame.spec().observation);
    for (copy, (truncated, terminated)) in out.truncated.iter().zip(&*out.terminated).enumerate() {
        if truncated > terminated {
            let last = finals.part(frame.observation(copy));
            frame.hand_over(last, copy, &mut *out.final_observations)?;
        }
    }
    Ok(())
}

fn view<'a>(bytes: &'a mut [u8], space: &Space) -> ObservationMut<'a> {
    use impresario_common::space::ElementType::{F32, I32, U8};
    match space.dtype() {
        F32 => ObservationMut::F32(bytemuck::cast_slice_mut(bytes)),
        U8 => ObservationMut::U8(bytes),
        I32 => ObservationMut::I32(bytemuck::cast_slice_mut(bytes)),
    }
}

fn copy_out(bytes: &[u8], to: ObservationMut<'_>) {
    let to: &mut [u8] = match to {
        ObservationMut::F32(values) => bytemuck::cast_slice_mut(values),
        ObservationMut::U8(values) => values,
        ObservationMut::I32(values) => bytemuck::cast_slice_mut(values),
    };
    to.copy_from_slice(bytes);
}
