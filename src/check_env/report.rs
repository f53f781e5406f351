//! What a check found: a line for each check, and the verdict.

use std::fmt::{self, Display, Formatter};

/// What is checked, in the order in which it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Check {
    /// Spaces and limits are possible ones.
    Spaces,
    /// Copies can be made, reset and stepped.
    Steps,
    /// Every number is written, finite, and within its space.
    Values,
    /// Episodes end, and the next ones start anew.
    Episodes,
    /// Truncated episodes leave their last observation.
    FinalObservations,
    /// The same seed and actions give the same trajectory.
    Determinism,
    /// What happens in a copy depends on no other copy.
    Independence,
    /// Another seed gives another trajectory.
    Seeding,
    /// Masks leave a legal action.
    Masks,
    /// Steps a second.
    Speed,
}

impl Check {
    const ALL: [Self; 10] = [
        Self::Spaces,
        Self::Steps,
        Self::Values,
        Self::Episodes,
        Self::FinalObservations,
        Self::Determinism,
        Self::Independence,
        Self::Seeding,
        Self::Masks,
        Self::Speed,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Spaces => "spaces",
            Self::Steps => "steps",
            Self::Values => "values",
            Self::Episodes => "episodes",
            Self::FinalObservations => "final observations",
            Self::Determinism => "determinism",
            Self::Independence => "independence",
            Self::Seeding => "seeding",
            Self::Masks => "masks",
            Self::Speed => "speed",
        }
    }
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// As it should be.
    Fine,
    /// Worth a look; may be meant.
    Noted,
    /// Training would go wrong.
    Failed,
}

#[derive(Debug)]
struct Finding {
    check: Check,
    outcome: Outcome,
    message: String,
    /// Further times that the check failed.
    repeated: u64,
}

/// What was found so far: for each check at most the worst, and of equally bad ones the first.
#[derive(Debug, Default)]
pub(crate) struct Report {
    findings: Vec<Finding>,
}

impl Report {
    /// A promise that is kept.
    pub(crate) fn fine(&mut self, check: Check, message: impl Into<String>) {
        self.add(check, Outcome::Fine, message.into());
    }

    /// Something that may be meant, with what to do if not.
    pub(crate) fn note(&mut self, check: Check, message: impl Into<String>) {
        self.add(check, Outcome::Noted, message.into());
    }

    /// A promise that is broken: where, how, and what to do.
    pub(crate) fn fail(&mut self, check: Check, message: impl Into<String>) {
        self.add(check, Outcome::Failed, message.into());
    }

    fn add(&mut self, check: Check, outcome: Outcome, message: String) {
        let new = Finding { check, outcome, message, repeated: 0 };
        match self.findings.iter_mut().find(|finding| finding.check == check) {
            None => self.findings.push(new),
            Some(old) if old.outcome < outcome => *old = new,
            Some(old) => old.repeated += u64::from(outcome == Outcome::Failed),
        }
    }

    /// Whether a check has failed.
    pub(crate) fn failed(&self, check: Check) -> bool {
        self.findings.iter().any(|finding| finding.check == check && finding.outcome == Outcome::Failed)
    }

    /// How many checks have failed.
    pub(crate) fn failures(&self) -> usize {
        self.findings.iter().filter(|finding| finding.outcome == Outcome::Failed).count()
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let findings = Check::ALL.iter().filter_map(|check| self.findings.iter().find(|x| x.check == *check));
        for Finding { check, outcome, message, repeated } in findings {
            let mark = match outcome {
                Outcome::Fine => "ok",
                Outcome::Noted => "note",
                Outcome::Failed => "FAIL",
            };
            write!(f, "  {mark:4}  {:18}  {message}", check.name())?;
            if *repeated > 0 {
                write!(f, " (and {repeated} times more)")?;
            }
            writeln!(f)?;
        }
        match self.failures() {
            0 => writeln!(f, "verdict: fit for training"),
            1 => writeln!(f, "verdict: not fit for training: 1 check failed"),
            n => writeln!(f, "verdict: not fit for training: {n} checks failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_findings_the_worst_is_told_and_of_equally_bad_ones_the_first() {
        let mut report = Report::default();
        report.fine(Check::Values, "all well");
        report.note(Check::Seeding, "hm");
        assert_eq!(report.failures(), 0);
        report.fail(Check::Values, "NaN in step 3");
        report.fail(Check::Values, "NaN in step 4");
        report.fine(Check::Values, "all well");
        assert!(report.failed(Check::Values) && !report.failed(Check::Seeding));
        let told = report.to_string();
        assert!(told.contains("FAIL  values              NaN in step 3 (and 1 times more)\n"), "{told}");
        assert!(told.contains("note  seeding             hm\n") && !told.contains("all well"), "{told}");
        assert!(told.ends_with("verdict: not fit for training: 1 check failed\n"), "{told}");
    }
}
