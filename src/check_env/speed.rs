//! Steps a second of one thread with copies that play at random, and what of their time the bridge to another process takes.

use std::time::{Duration, Instant};

use super::stage::{Drawn, Reach, Stage};

/// Steps between two looks at the clock, with actions that were drawn before it was started.
const STRIDE: usize = 16;
/// Time that a turn of steps should take, where those of another process and those through the bridge take turns.
const TURN: Duration = Duration::from_millis(50);
/// Most steps of a turn.
const MOST_STEPS: usize = 1 << 16;
/// Least number of turns, if speed is measured in earnest.
const TURNS: usize = 5;

/// How fast the copies are, in seconds an environment step of one copy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Speed {
    /// As a rollout worker has them.
    pub(super) seconds: f64,
    /// The same and what it is in a plain loop, where copies step in another process.
    pub(super) bridge: Option<Bridge>,
}

/// What the way to another process costs, in seconds an environment step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bridge {
    /// In a plain loop in that process.
    pub(super) alone: f64,
    /// How much longer it takes through the bridge.
    pub(super) added: f64,
}

/// Measures for at least `seconds`; for as short as possible if that is 0.
pub(super) fn measure(stage: &mut Stage, seconds: f64) -> Result<Speed, String> {
    stage.reset()?;
    match stage.seconds_alone(1)? {
        None => {
            stage.reset()?;
            Ok(Speed { seconds: here(stage, seconds)?, bridge: None })
        }
        Some(_) => elsewhere(stage, seconds),
    }
}

/// Seconds an environment step of copies that step in this thread.
fn here(stage: &mut Stage, seconds: f64) -> Result<f64, String> {
    let mut actions = Actions::new(stage);
    actions.take(stage, STRIDE)?;
    let (start, wanted) = (Instant::now(), Duration::from_secs_f64(seconds));
    let mut steps = 0;
    loop {
        actions.take(stage, STRIDE)?;
        steps += STRIDE;
        let taken = start.elapsed();
        if taken >= wanted {
            return Ok(taken.as_secs_f64() / (steps * stage.copies()) as f64);
        }
    }
}

/// Speed of copies that step in another process: turns of a plain loop there, and of steps through the bridge.
fn elsewhere(stage: &mut Stage, seconds: f64) -> Result<Speed, String> {
    let mut actions = Actions::new(stage);
    let in_earnest = seconds > 0.0;
    let mut steps = 1;
    let alone = |stage: &mut Stage, steps: usize| {
        stage.reset()?;
        let seconds = stage.seconds_alone(steps as u32)?;
        seconds.ok_or_else(|| "copies that stepped in another process do so no more".to_owned())
    };
    while in_earnest && steps < MOST_STEPS && alone(stage, steps)? < TURN.as_secs_f64() {
        steps *= 2;
    }
    let per_step = 1.0 / (steps * stage.copies()) as f64;
    let (start, wanted) = (Instant::now(), Duration::from_secs_f64(seconds));
    let (mut plain, mut through, mut added) = (vec![], vec![], vec![]);
    while through.is_empty() || (in_earnest && (through.len() < TURNS || start.elapsed() < wanted)) {
        let by_itself = alone(stage, steps)? * per_step;
        stage.reset()?;
        let begun = Instant::now();
        actions.take(stage, steps)?;
        let bridged = begun.elapsed().as_secs_f64() * per_step;
        plain.push(by_itself);
        through.push(bridged);
        added.push(bridged - by_itself);
    }
    let bridge = Bridge { alone: median(plain), added: median(added) };
    Ok(Speed { seconds: median(through), bridge: Some(bridge) })
}

/// Actions that were drawn ahead, over and over; where some may be illegal they are drawn when they are taken.
struct Actions {
    drawn: Vec<Drawn>,
    next: usize,
}

impl Actions {
    fn new(stage: &mut Stage) -> Self {
        let ahead = if stage.masks.is_empty() { STRIDE } else { 0 };
        Self { drawn: (0..ahead).map(|_| stage.draw(Reach::Within)).collect(), next: 0 }
    }

    fn take(&mut self, stage: &mut Stage, steps: usize) -> Result<(), String> {
        for _ in 0..steps {
            match self.drawn.get(self.next) {
                None => stage.step(Reach::Within)?,
                Some(drawn) => stage.take(drawn)?,
            }
            self.next = (self.next + 1) % STRIDE;
        }
        Ok(())
    }
}

/// The value in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
