//! An environment whose episodes are known beforehand.

use std::sync::{Arc, Condvar, Mutex};

use impresario_actor::env::registry::Registry;
use impresario_actor::env::{Action, Environment, ObservationMut, Transition};
use impresario_common::random::Stream;
use impresario_common::space::{EnvironmentSpec, Space};

pub const ID: &str = "Script-v0";

/// The time limit.
pub const LIMIT: u32 = 5;

/// Episodes come in threes: the first terminates at its third step, the second runs into the time limit, the
/// third terminates in the very step in which the limit is reached. An observation is `[episode, step]`, the
/// reward of step n is n.
#[derive(Debug, Default)]
pub struct Script {
    episodes: u32,
    step: u32,
    /// What to do instead at the given step of the environment's life.
    mischief: Option<(u32, Mischief)>,
    steps: u32,
}

#[derive(Debug, Clone, Copy)]
pub enum Mischief {
    Panic,
    RewardNan,
    /// Tells where it runs.
    TellThread,
}

/// A registry of the scripted environment alone.
pub fn registry() -> Registry {
    let mut registry = Registry::empty();
    registry.register(Script::default);
    registry
}

/// A registry of one that does something else at its `step`th step.
pub fn mischievous(step: u32, mischief: Mischief) -> Registry {
    let mut registry = Registry::empty();
    registry.register(move || Script { mischief: Some((step, mischief)), ..Script::default() });
    registry
}

impl Script {
    fn write(&self, observation: ObservationMut<'_>) {
        observation.into_f32().copy_from_slice(&[self.episodes as f32, self.step as f32]);
    }
}

impl Environment for Script {
    fn spec(&self) -> EnvironmentSpec {
        EnvironmentSpec::new(ID, Space::boxed(&[0.0; 2], &[f32::INFINITY; 2]), Space::Discrete { n: 2 })
            .with_max_episode_steps(LIMIT)
    }

    fn reset(&mut self, _random: &mut Stream, observation: ObservationMut<'_>) {
        self.episodes += 1;
        self.step = 0;
        self.write(observation);
    }

    fn step(&mut self, _: Action<'_>, _: &mut Stream, observation: ObservationMut<'_>) -> Transition {
        self.step += 1;
        self.steps += 1;
        self.write(observation);
        let mut reward = f64::from(self.step);
        match self.mischief {
            Some((step, Mischief::Panic)) if step == self.steps => panic!("the script tore"),
            Some((step, Mischief::RewardNan)) if step == self.steps => reward = f64::NAN,
            Some((step, Mischief::TellThread)) if step == self.steps => {
                let runtime = tokio::runtime::Handle::try_current().is_ok();
                panic!("on {:?}, a thread of the runtime: {runtime}", std::thread::current().name());
            }
            _ => {}
        }
        let terminated = match self.episodes % 3 {
            1 => self.step == 3,
            2 => false,
            _ => self.step == LIMIT,
        };
        Transition { reward, terminated, truncated: false }
    }
}

/// A registry of an environment, `Meeting-v0`, in which a step ends when `copies` copies are in theirs.
pub fn meeting(copies: usize) -> Registry {
    let mut registry = Registry::empty();
    let place = Arc::new(Place { copies, arrived: Mutex::new(0), news: Condvar::new() });
    registry.register(move || Meeting { place: place.clone(), script: Script::default() });
    registry
}

#[derive(Debug)]
struct Place {
    copies: usize,
    /// How often a copy has come, in all.
    arrived: Mutex<usize>,
    news: Condvar,
}

#[derive(Debug)]
struct Meeting {
    place: Arc<Place>,
    script: Script,
}

impl Environment for Meeting {
    fn spec(&self) -> EnvironmentSpec {
        EnvironmentSpec { id: "Meeting-v0".into(), ..self.script.spec() }
    }

    fn reset(&mut self, random: &mut Stream, observation: ObservationMut<'_>) {
        self.script.reset(random, observation);
    }

    fn step(
        &mut self,
        action: Action<'_>,
        random: &mut Stream,
        observation: ObservationMut<'_>,
    ) -> Transition {
        let place = &*self.place;
        let mut arrived = place.arrived.lock().unwrap();
        *arrived += 1;
        place.news.notify_all();
        // Those of this round and of none before.
        let needed = arrived.div_ceil(place.copies) * place.copies;
        let (arrived, waited) =
            place.news.wait_timeout_while(arrived, super::DEADLINE, |arrived| *arrived < needed).unwrap();
        assert!(!waited.timed_out(), "the other copies did not come");
        drop(arrived);
        self.script.step(action, random, observation)
    }
}
