//! `impresario` with environments that break one promise each, for the tests of `check-env`.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use impresario_actor::env::registry::Registry;
use impresario_actor::env::{Action, Environment, ObservationMut, Transition};
use impresario_common::random::Stream;
use impresario_common::space::{ElementType, EnvironmentSpec, Space};
use rand::RngExt;

/// Which promise is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// None: what the others would be without their fault.
    None,
    /// An observation holds a number that is none.
    NotANumber,
    /// An observation lies outside its space.
    OutOfBounds,
    /// A number of the observation is left as it was.
    Unwritten,
    /// The observation is shorter than the space says.
    WrongLength,
    /// The observation is written as bytes.
    WrongType,
    /// A reward is infinite.
    InfiniteReward,
    /// Randomness that no seed governs.
    Unseeded,
    /// Nothing is random: no fault, but worth a note.
    Deterministic,
    /// A reset that leaves the episode at its end.
    StaleReset,
    /// No action is legal.
    NothingLegal,
    /// The mask is not written.
    UnwrittenMask,
    /// An action beyond the bounds is more than it can take.
    Brittle,
    /// The lower bound is above the upper one.
    CrossedBounds,
    /// Episodes never end: no fault, but worth a note.
    Endless,
}

const FAULTS: [(&str, Fault); 15] = [
    ("Whole-v0", Fault::None),
    ("NotANumber-v0", Fault::NotANumber),
    ("OutOfBounds-v0", Fault::OutOfBounds),
    ("Unwritten-v0", Fault::Unwritten),
    ("WrongLength-v0", Fault::WrongLength),
    ("WrongType-v0", Fault::WrongType),
    ("InfiniteReward-v0", Fault::InfiniteReward),
    ("Unseeded-v0", Fault::Unseeded),
    ("Deterministic-v0", Fault::Deterministic),
    ("StaleReset-v0", Fault::StaleReset),
    ("NothingLegal-v0", Fault::NothingLegal),
    ("UnwrittenMask-v0", Fault::UnwrittenMask),
    ("Brittle-v0", Fault::Brittle),
    ("CrossedBounds-v0", Fault::CrossedBounds),
    ("Endless-v0", Fault::Endless),
];

/// What all copies share, as nothing should.
static SHARED: AtomicU32 = AtomicU32::new(0);

/// A walk along a line, to be left at either end; masks and continuous actions only where a fault needs them.
#[derive(Debug)]
struct Walk {
    id: &'static str,
    fault: Fault,
    place: f32,
    steps: u32,
}

impl Walk {
    fn new(id: &'static str, fault: Fault) -> Self {
        Self { id, fault, place: 0.0, steps: 0 }
    }

    fn show(&self, observation: ObservationMut<'_>) {
        let late = self.steps == 5;
        let place = match self.fault {
            Fault::NotANumber if late => f32::NAN,
            Fault::OutOfBounds if late => 1.5,
            Fault::Unseeded if late => 1.0 / (1.0 + SHARED.fetch_add(1, Relaxed) as f32),
            _ => self.place,
        };
        let seen = [place, (self.steps as f32 / 100.0).min(1.0)];
        match self.fault {
            Fault::WrongType => observation.into_u8().fill(1),
            Fault::WrongLength => observation.into_f32().copy_from_slice(&seen[..1]),
            Fault::Unwritten if self.steps == 0 => observation.into_f32()[0] = seen[0],
            _ => observation.into_f32().copy_from_slice(&seen),
        }
    }
}

impl Environment for Walk {
    fn spec(&self) -> EnvironmentSpec {
        let (low, high) = match self.fault {
            Fault::CrossedBounds => (vec![1.0, 0.0], vec![-1.0, 1.0]),
            _ => (vec![-1.0, 0.0], vec![1.0, 1.0]),
        };
        let action = match self.fault {
            Fault::Brittle => Space::boxed(&[-1.0], &[1.0]),
            _ => Space::Discrete { n: 2 },
        };
        let observation = Space::Box { low, high, shape: vec![2], dtype: ElementType::F32 };
        let mut spec = EnvironmentSpec::new(self.id, observation, action);
        spec.max_episode_steps = (self.fault != Fault::Endless).then_some(15);
        spec.masks_actions = matches!(self.fault, Fault::NothingLegal | Fault::UnwrittenMask);
        spec
    }

    fn reset(&mut self, random: &mut Stream, observation: ObservationMut<'_>) {
        if self.fault != Fault::StaleReset {
            (self.place, self.steps) = (0.0, 0);
        }
        if self.fault != Fault::Deterministic {
            self.place = random.random_range(-0.1..0.1);
        }
        self.show(observation);
    }

    fn step(
        &mut self,
        action: Action<'_>,
        _random: &mut Stream,
        observation: ObservationMut<'_>,
    ) -> Transition {
        let way = match action {
            Action::Discrete(choices) => choices[0] as f32 * 2.0 - 1.0,
            Action::Continuous(values) => {
                assert!((-1.0..=1.0).contains(&values[0]), "the motor burns at {}", values[0]);
                values[0]
            }
        };
        self.steps += 1;
        self.place = (self.place + 0.1 * way).clamp(-1.0, 1.0);
        self.show(observation);
        let reward = if self.fault == Fault::InfiniteReward && self.steps == 7 { f64::INFINITY } else { 1.0 };
        let left = match self.fault {
            Fault::StaleReset => self.steps >= 7,
            Fault::Endless => false,
            _ => self.place.abs() >= 0.35,
        };
        Transition { reward, terminated: left, truncated: false }
    }

    fn legal_actions(&self, mask: &mut [u8]) {
        match self.fault {
            Fault::NothingLegal => mask.fill(0),
            Fault::UnwrittenMask => {}
            _ => mask.fill(1),
        }
    }
}

fn main() -> ExitCode {
    let mut registry = Registry::empty();
    for (id, fault) in FAULTS {
        registry.register(move || Walk::new(id, fault));
    }
    impresario::main_with(registry)
}
