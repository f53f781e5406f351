//! [`Examination`]: plays copies of an environment side by side and compares them.
//!
//! Four stages play in step: two with the same seed, one with the first copies of these alone, and one with another seed. Halfway
//! all are reset in the middle of their episodes; in the last quarter continuous actions go beyond their bounds.

use impresario_common::space::Space;

use super::Subject;
use super::contents::{difference, flaw, violation};
use super::report::{Check, Report};
use super::speed::{self, Bridge, Speed};
use super::stage::{Blank, Reach, Stage};

/// Games played side by side.
const GAMES: usize = 4;
/// Games played side by side for the measurement of speed.
const GAMES_FOR_SPEED: usize = 16;
/// Episodes of one step in a row, after a longer one, from which on it is no chance.
const STILLBORN: u32 = 20;

/// An examination under way.
pub(super) struct Examination<'a> {
    subject: &'a Subject<'a>,
    seed: u64,
    report: Report,
}

impl<'a> Examination<'a> {
    pub(super) fn new(subject: &'a Subject<'a>, seed: u64) -> Self {
        Self { subject, seed, report: Report::default() }
    }

    /// Whether it makes sense to go on.
    pub(super) fn may_go_on(&self) -> bool {
        !self.report.failed(Check::Spaces) && !self.report.failed(Check::Steps)
    }

    pub(super) fn into_report(self) -> Report {
        self.report
    }

    /// Looks at what the environment says of itself.
    pub(super) fn spaces(&mut self) {
        let (spec, report) = (self.subject.spec, &mut self.report);
        for (what, space) in [("observation", &spec.observation), ("action", &spec.action)] {
            if let Some(flaw) = flaw(space) {
                report.fail(Check::Spaces, format!("the {what} space {flaw}"));
            }
        }
        if spec.max_episode_steps == Some(0) {
            report.fail(
                Check::Spaces,
                "max_episode_steps is 0: write None for episodes without a limit, or a limit from 1 on",
            );
        }
        if spec.masks_actions && spec.action.alternatives() == 0 {
            report.fail(
                Check::Spaces,
                format!(
                    "masks_actions is set, but actions are {}: masks are for choices; unset it",
                    spec.action
                ),
            );
        }
        let limit = match spec.max_episode_steps {
            Some(steps) => format!("episodes of at most {steps} steps"),
            None => "episodes without a limit".into(),
        };
        report.fine(Check::Spaces, format!("possible ones; {limit}"));
    }

    /// Plays `steps` steps in every copy.
    pub(super) fn play(&mut self, steps: u32) {
        if let Err(problem) = self.try_play(steps) {
            self.report.fail(Check::Steps, problem);
        }
    }

    fn try_play(&mut self, steps: u32) -> Result<(), String> {
        let (subject, players) = (self.subject, self.subject.players);
        let (seed, another) = ([self.seed; 2], [self.seed.wrapping_add(1), self.seed]);
        let mut first = Stage::new(subject, seed, GAMES * players, Blank::First)?;
        let mut again = Stage::new(subject, seed, GAMES * players, Blank::Second)?;
        let mut alone = Stage::new(subject, seed, players, Blank::Second)?;
        let mut other = Stage::new(subject, another, GAMES * players, Blank::Second)?;
        let mut episodes = Episodes::new(first.copies(), subject.spec.max_episode_steps);
        let mut seeds_matter = false;
        for step in 0..=steps {
            let moment = match step {
                0 => "at the first reset".to_owned(),
                step => format!("in step {step}"),
            };
            let reach = if step > steps / 4 * 3 { Reach::Beyond } else { Reach::Within };
            for stage in [&mut first, &mut again, &mut alone, &mut other] {
                match step {
                    0 => stage.reset(),
                    step if step == steps / 2 => stage.reset(),
                    _ => stage.step(reach),
                }
                .map_err(|problem| blame(&moment, reach, &subject.spec.action, &problem))?;
            }
            let reset = step == 0 || step == steps / 2;
            self.values(&first, &again, &moment, reset);
            self.compare(&first, &again, &alone, &moment, reset);
            self.masks(&first, &moment);
            if reset {
                episodes.begin_all();
            } else {
                episodes.step(&first, &mut self.report, &moment);
            }
            seeds_matter |= differs(&first, &other, first.copies(), reset).is_some();
        }
        self.conclude(&episodes, seeds_matter, steps);
        Ok(())
    }

    /// Every number that was to be written is there, finite and within its space.
    fn values(&mut self, first: &Stage, again: &Stage, moment: &str, reset: bool) {
        let (space, report) = (&self.subject.spec.observation, &mut self.report);
        for copy in 0..first.copies() {
            let place = first.place(copy);
            if let Some(at) = first.unwritten(again, copy) {
                report.fail(
                    Check::Values,
                    format!("{moment}, copy {copy}: number {at} of the observation was not written: write all {} of {space}", place.len()),
                );
            } else if let Some(problem) = violation(space, &first.observations, place) {
                report.fail(
                    Check::Values,
                    format!("{moment}, copy {copy}: the observation does not fit {space}: {problem}; correct the observation or the space"),
                );
            }
        }
        if reset {
            return;
        }
        if let Some(copy) = first.rewards.iter().position(|reward| !reward.is_finite()) {
            let reward = first.rewards[copy];
            report.fail(
                Check::Values,
                format!("{moment}, copy {copy}: the reward is {reward}: make it finite"),
            );
        }
        for (copy, array) in &first.finals.taken {
            if let Some(problem) = violation(space, array, 0..array.len()) {
                report.fail(
                    Check::FinalObservations,
                    format!("{moment}, copy {copy}: the final observation does not fit {space}: {problem}"),
                );
            }
        }
        for copy in 0..first.copies() {
            let wanted = first.truncated[copy] == 1 && first.terminated[copy] != 1;
            let given = first.finals.taken.iter().filter(|(of, _)| *of == copy).count();
            if given != usize::from(wanted) {
                report.fail(
                    Check::FinalObservations,
                    format!(
                        "{moment}, copy {copy}: {given} final observations were handed over where {} was due: hand over one \
                         for each episode that was truncated and not terminated",
                        usize::from(wanted)
                    ),
                );
            }
        }
    }

    fn compare(&mut self, first: &Stage, again: &Stage, alone: &Stage, moment: &str, reset: bool) {
        let report = &mut self.report;
        if let Some(what) = differs(first, again, first.copies(), reset) {
            report.fail(
                Check::Determinism,
                format!(
                    "{moment}: {what}, with the same seed and the same actions: draw everything random from the random \
                     stream (Gymnasium: self.np_random), and keep nothing outside the environment"
                ),
            );
        } else if let Some(what) = differs(first, alone, alone.copies(), reset) {
            report.fail(
                Check::Independence,
                format!("{moment}: {what}, with other copies and without: keep all state in the environment itself"),
            );
        }
    }

    fn masks(&mut self, stage: &Stage, moment: &str) {
        let action = &self.subject.spec.action;
        if stage.masks.is_empty() {
            return;
        }
        for (copy, mask) in stage.masks.chunks_exact(action.alternatives()).enumerate() {
            if let Some(at) = mask.iter().position(|&flag| flag > 1) {
                self.report.fail(
                    Check::Masks,
                    format!("{moment}, copy {copy}: flag {at} of the mask is {} and should be 0 or 1: write all {} flags", mask[at], mask.len()),
                );
                return;
            }
            let mut first = 0;
            for (choice, &n) in action.choices().iter().enumerate() {
                if !mask[first..first + n as usize].contains(&1) {
                    self.report.fail(
                        Check::Masks,
                        format!("{moment}, copy {copy}: no alternative of choice {choice} is legal: leave at least one, or end the episode"),
                    );
                }
                first += n as usize;
            }
        }
        self.report.fine(Check::Masks, "each choice has a legal alternative");
    }

    /// Says what was fine, of what was not found to be otherwise.
    fn conclude(&mut self, episodes: &Episodes, seeds_matter: bool, steps: u32) {
        let copies = GAMES * self.subject.players;
        let report = &mut self.report;
        report.fine(Check::Steps, format!("{steps} in each of {copies} copies"));
        report.fine(Check::Values, "all written, finite, and within the observation space");
        report.fine(Check::Determinism, "the same seed and actions give the same trajectory");
        report.fine(Check::Independence, "copies do not influence one another");
        match seeds_matter {
            true => report.fine(Check::Seeding, "another seed gives another trajectory"),
            false => report.note(
                Check::Seeding,
                "another seed gives the same trajectory: fine if nothing in the environment is random",
            ),
        }
        episodes.conclude(report, steps);
    }

    /// Measures steps a second.
    pub(super) fn speed(&mut self, seconds: f64) {
        let copies = GAMES_FOR_SPEED * self.subject.players;
        let speed = Stage::new(self.subject, [self.seed; 2], copies, Blank::Untouched)
            .and_then(|mut stage| speed::measure(&mut stage, seconds));
        match speed {
            Ok(speed) => self.report.fine(Check::Speed, in_words(speed, copies)),
            Err(problem) => self.report.fail(Check::Steps, format!("while speed was measured: {problem}")),
        }
    }
}

fn in_words(speed: Speed, copies: usize) -> String {
    let rate = grouped(1.0 / speed.seconds);
    match speed.bridge {
        None => format!("{rate} steps a second with {copies} copies in one thread"),
        Some(Bridge { alone, added }) => format!(
            "{rate} steps a second with {copies} copies in a Python process; alone, in a plain loop there, {}: the bridge adds \
             {:.2} microseconds a step ({:.1} %)",
            grouped(1.0 / alone),
            1e6 * added,
            100.0 * added / alone
        ),
    }
}

/// A failure of the environment, with what it was asked for.
fn blame(moment: &str, reach: Reach, action: &Space, problem: &str) -> String {
    let continuous = action.choices().is_empty();
    match reach {
        Reach::Beyond if continuous => format!(
            "{moment}, with actions beyond the bounds of {action}, where a Gaussian's may lie: {problem}; clip actions to the bounds"
        ),
        _ => format!("{moment}: {problem}"),
    }
}

/// What differs first in what two stages wrote last, of the first `copies` of each.
fn differs(a: &Stage, b: &Stage, copies: usize, reset: bool) -> Option<String> {
    for copy in 0..copies {
        if a.unwritten(b, copy).is_none()
            && let Some((at, x, y)) = difference(&a.observations, &b.observations, a.place(copy))
        {
            return Some(format!(
                "number {at} of the observation of copy {copy} is {x} in one run and {y} in another"
            ));
        }
        if reset {
            continue;
        }
        let (x, y) = (a.rewards[copy], b.rewards[copy]);
        if x.to_bits() != y.to_bits() {
            return Some(format!("the reward of copy {copy} is {x} in one run and {y} in another"));
        }
        let flags = |stage: &Stage| (stage.terminated[copy], stage.truncated[copy]);
        if flags(a) != flags(b) {
            return Some(format!("copy {copy} ends its episode in one run and not in another"));
        }
    }
    let width = a.masks.len() / a.copies();
    let (x, y) = (&a.masks[..copies * width], &b.masks[..copies * width]);
    (x != y).then(|| "masks of legal actions differ between runs".into())
}

/// The episodes of all copies.
struct Episodes {
    limit: Option<u32>,
    copies: Vec<Copy>,
    ended: u64,
    terminated: u64,
    truncated: u64,
    steps: u64,
    rewards: f64,
}

#[derive(Clone, Copy, Default)]
struct Copy {
    length: u32,
    /// An episode had more than one step.
    long_before: bool,
    /// Episodes of one step since.
    stillborn: u32,
}

impl Episodes {
    fn new(copies: usize, limit: Option<u32>) -> Self {
        let copies = vec![Copy::default(); copies];
        Self { limit, copies, ended: 0, terminated: 0, truncated: 0, steps: 0, rewards: 0.0 }
    }

    fn begin_all(&mut self) {
        self.copies.fill(Copy::default());
    }

    fn step(&mut self, stage: &Stage, report: &mut Report, moment: &str) {
        self.steps += stage.copies() as u64;
        for (i, copy) in self.copies.iter_mut().enumerate() {
            let flags = [stage.terminated[i], stage.truncated[i]];
            if flags.iter().any(|&flag| flag > 1) {
                report.fail(
                    Check::Episodes,
                    format!("{moment}, copy {i}: flags of its end are {flags:?}: write 0 or 1"),
                );
            }
            copy.length += 1;
            self.rewards += f64::from(stage.rewards[i]);
            let ended = flags.contains(&1);
            if let Some(limit) = self.limit.filter(|&limit| copy.length >= limit && !ended) {
                report.fail(
                    Check::Episodes,
                    format!("{moment}, copy {i}: the episode goes on after {} steps, and max_episode_steps is {limit}", copy.length),
                );
            }
            if !ended {
                continue;
            }
            self.ended += 1;
            self.terminated += u64::from(flags[0] == 1);
            self.truncated += u64::from(flags[0] != 1);
            if copy.length > 1 {
                (copy.long_before, copy.stillborn) = (true, 0);
            } else if copy.long_before {
                copy.stillborn += 1;
            }
            if copy.stillborn == STILLBORN {
                report.fail(
                    Check::Episodes,
                    format!(
                        "{moment}, copy {i}: the last {STILLBORN} episodes all ended in their first step, after a longer one: \
                         let reset put back everything that step changes"
                    ),
                );
            }
            copy.length = 0;
        }
    }

    fn conclude(&self, report: &mut Report, steps: u32) {
        if self.ended == 0 {
            report.note(
                Check::Episodes,
                format!("none ended within {steps} steps: take more (--steps), or see to it that they end or have a limit"),
            );
        } else {
            report.fine(
                Check::Episodes,
                format!(
                    "{} ended, {} of them terminated; random play has a mean length of {:.1} and a mean return of {:.3}",
                    self.ended,
                    self.terminated,
                    self.steps as f64 / self.ended as f64,
                    self.rewards / self.ended as f64
                ),
            );
        }
        match self.truncated {
            0 => report.note(
                Check::FinalObservations,
                format!("no episode was truncated within {steps} steps: take more (--steps) to see one"),
            ),
            n => report.fine(Check::FinalObservations, format!("one for each of {n} truncated episodes")),
        }
    }
}

/// 1234567.8 as 1,234,568.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use impresario_actor::env::vector::NativeVector;
    use impresario_actor::env::{Action, Environment, ObservationMut, Transition, VectorEnvironment};
    use impresario_common::random::Stream;
    use impresario_common::space::EnvironmentSpec;

    use super::*;

    /// Shows a number that never changes.
    struct Constant(f32);

    impl Environment for Constant {
        fn spec(&self) -> EnvironmentSpec {
            EnvironmentSpec::new("Constant-v0", Space::boxed(&[0.0], &[100.0]), Space::Discrete { n: 2 })
                .with_max_episode_steps(3)
        }

        fn reset(&mut self, _random: &mut Stream, observation: ObservationMut<'_>) {
            observation.into_f32()[0] = self.0;
        }

        fn step(
            &mut self,
            _action: Action<'_>,
            _random: &mut Stream,
            observation: ObservationMut<'_>,
        ) -> Transition {
            observation.into_f32()[0] = self.0;
            Transition { reward: 0.0, terminated: false, truncated: false }
        }
    }

    #[test]
    fn copies_that_know_how_many_they_are_are_found() {
        let spec = Constant(0.0).spec();
        let make = |streams: Vec<Stream>| -> Result<Box<dyn VectorEnvironment>, String> {
            let neighbours = streams.len() as f32;
            Ok(Box::new(NativeVector::new(move || Constant(neighbours), streams)))
        };
        let subject = Subject { spec: &spec, players: 1, make: &make };
        let mut examination = Examination::new(&subject, 1);
        examination.play(20);
        let report = examination.into_report();
        assert!(report.failed(Check::Independence) && report.failures() == 1, "{report}");
        let told = report.to_string();
        assert!(
            told.contains("of copy 0 is 4 in one run and 1 in another, with other copies and without"),
            "{told}"
        );
    }

    #[test]
    fn copies_that_cannot_be_made_are_found() {
        let spec = Constant(0.0).spec();
        let make =
            |_: Vec<Stream>| -> Result<Box<dyn VectorEnvironment>, String> { Err("no licence".into()) };
        let subject = Subject { spec: &spec, players: 1, make: &make };
        let mut examination = Examination::new(&subject, 1);
        examination.play(20);
        assert!(!examination.may_go_on());
        assert!(examination.into_report().to_string().contains("no licence"));
    }

    #[test]
    fn what_the_bridge_adds_is_told() {
        let told = in_words(Speed { seconds: 1e-6, bridge: None }, 16);
        assert_eq!(told, "1,000,000 steps a second with 16 copies in one thread");
        let bridge = Some(Bridge { alone: 8e-6, added: 2e-6 });
        let told = in_words(Speed { seconds: 10e-6, bridge }, 16);
        assert!(told.contains("100,000 steps a second") && told.contains("there, 125,000"), "{told}");
        assert!(told.ends_with("the bridge adds 2.00 microseconds a step (25.0 %)"), "{told}");
    }

    #[test]
    fn thousands_are_set_apart() {
        for (number, expected) in [(7.2, "7"), (1234.0, "1,234"), (123_456.7, "123,457"), (1e6, "1,000,000")]
        {
            assert_eq!(grouped(number), expected);
        }
    }
}
