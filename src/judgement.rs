//! [`Judgement`]: what an environment's own measure says of a policy, gathered over the episodes that `eval` plays.

use impresario_actor::env::matrix_game::MatrixGame;
use impresario_actor::env::measure::Measure;

/// A measure, and what it has come to so far.
#[derive(Debug)]
pub(crate) struct Judgement<'a> {
    measure: Option<&'a Measure>,
    /// Sum over what was counted: successes of episodes, or exploitabilities at observations.
    sum: f64,
    count: u64,
}

impl<'a> Judgement<'a> {
    /// Nothing counted yet; without a measure nothing ever is.
    pub(crate) fn new(measure: Option<&'a Measure>) -> Self {
        Self { measure, sum: 0.0, count: 0 }
    }

    /// Whether episodes are to come with the parameters that they were acted with.
    pub(crate) fn needs_parameters(&self) -> bool {
        matches!(self.measure, Some(Measure::Exploitability(_)))
    }

    /// Takes one episode in: its return, and the rows of distribution parameters, `width` numbers each, by which
    /// its actions were chosen.
    pub(crate) fn episode(&mut self, total: f64, parameters: &[f32], width: usize) {
        match self.measure {
            None => {}
            Some(Measure::Success { least_return, .. }) => self.count(f64::from(total >= *least_return)),
            Some(Measure::Exploitability(game)) => {
                for logits in parameters.chunks_exact(width) {
                    self.count(exploitability(game, logits));
                }
            }
        }
    }

    fn count(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    /// Name and number of what it came to, if there is a measure: the share of successes, or the mean exploitability a
    /// round.
    pub(crate) fn value(&self) -> Option<(&'static str, f64)> {
        let name = match self.measure? {
            Measure::Success { .. } => "success",
            Measure::Exploitability(_) => "exploitability",
        };
        Some((name, self.sum / self.count as f64))
    }

    /// A line on what it came to, if there is a measure.
    pub(crate) fn summary(&self) -> Option<String> {
        let (_, mean) = self.value()?;
        match self.measure? {
            Measure::Success { what, .. } => {
                Some(format!("{what}: {:.1} % ({} of {})", 100.0 * mean, self.sum, self.count))
            }
            Measure::Exploitability(_) => Some(format!(
                "exploitability: {mean:.4} a round (mean over {} observations of the policy's probabilities)",
                self.count
            )),
        }
    }
}

/// Exploitability of the mixed strategy that a row of logits stands for.
fn exploitability(game: &MatrixGame, logits: &[f32]) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = logits.iter().map(|&logit| f64::from(logit - most).exp()).collect();
    game.exploitability(&weights) / weights.iter().sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_measure_there_is_nothing_to_tell() {
        let mut judgement = Judgement::new(None);
        judgement.episode(1.0, &[0.0; 3], 3);
        assert_eq!((judgement.summary(), judgement.value()), (None, None));
    }

    #[test]
    fn successes_are_counted_by_the_return() {
        let measure = Measure::Success { what: "targets reached", least_return: 0.5 };
        let mut judgement = Judgement::new(Some(&measure));
        for total in [0.5, 0.49, 3.0, -1.0, 0.51, 0.9, 0.0, 1.0] {
            judgement.episode(total, &[], 4);
        }
        assert_eq!(judgement.summary().as_deref(), Some("targets reached: 62.5 % (5 of 8)"));
    }

    #[test]
    fn exploitability_is_the_mean_over_the_observations_acted_on() {
        let measure = Measure::Exploitability(MatrixGame::rock_paper_scissors());
        let mut judgement = Judgement::new(Some(&measure));
        // Rock for certain loses 1 to paper; half rock and half paper loses a half to paper; any constant is uniform.
        let half = [0.0, 0.0, f32::NEG_INFINITY];
        judgement.episode(0.0, &[[200.0, 0.0, 0.0], half].concat(), 3);
        judgement.episode(0.0, &[[7.0; 3], [-300.0; 3]].concat(), 3);
        let summary = judgement.summary().unwrap_or_default();
        assert!(summary.starts_with("exploitability: 0.3750 a round (mean over 4 "), "{summary}");
        let (name, value) = judgement.value().unwrap_or_default();
        assert!(name == "exploitability" && (value - 0.375).abs() < 1e-9, "{name} {value}");
    }
}
