//! [`Evaluation`]: what came of the episodes that `eval` played with one checkpoint, for people and for
//! `evaluations.jsonl`, which docs/run-directory.md describes.

use serde_json::{Map, Value, json};

use crate::judgement::Judgement;

/// One episode: its undiscounted return, that of the first player where several play one another, and its
/// length in environment steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Played {
    pub(crate) total: f64,
    pub(crate) steps: u32,
}

/// The episodes of one checkpoint and what they say of its policy.
#[derive(Debug)]
pub(crate) struct Evaluation<'a> {
    /// Environment's name with version.
    pub(crate) environment: String,
    /// Environment steps trained on.
    pub(crate) env_steps: u64,
    /// Seconds of training.
    pub(crate) seconds: f64,
    /// Updates applied.
    pub(crate) policy_version: u64,
    /// Whether the most likely actions were taken.
    pub(crate) greedy: bool,
    /// At least one.
    pub(crate) episodes: Vec<Played>,
    /// What the environment's own measure says.
    pub(crate) judgement: Judgement<'a>,
}

impl Evaluation<'_> {
    fn mean(&self, of: impl Fn(&Played) -> f64) -> f64 {
        self.episodes.iter().map(of).sum::<f64>() / self.episodes.len() as f64
    }

    fn mean_return(&self) -> f64 {
        self.mean(|episode| episode.total)
    }

    /// Standard deviation of the returns, as of a whole population.
    fn return_deviation(&self) -> f64 {
        let mean = self.mean_return();
        self.mean(|episode| (episode.total - mean).powi(2)).sqrt()
    }

    fn mean_length(&self) -> f64 {
        self.mean(|episode| f64::from(episode.steps))
    }

    /// A line on all episodes, and another one if the environment has a measure.
    pub(crate) fn summary(&self) -> String {
        let line = format!(
            "{}, policy version {} ({}): mean return {:.3} +- {:.3} over {} episodes, mean length {:.1}",
            self.environment,
            self.policy_version,
            if self.greedy { "greedy" } else { "sampled" },
            self.mean_return(),
            self.return_deviation(),
            self.episodes.len(),
            self.mean_length(),
        );
        match self.judgement.summary() {
            Some(measured) => format!("{line}\n{measured}"),
            None => line,
        }
    }

    /// The object that stands for it in `evaluations.jsonl`.
    pub(crate) fn record(&self) -> Value {
        let mut results = Map::from_iter([
            ("greedy".into(), json!(self.greedy)),
            ("episodes".into(), json!(self.episodes.len())),
            ("mean_return".into(), json!(self.mean_return())),
            ("return_deviation".into(), json!(self.return_deviation())),
            ("mean_length".into(), json!(self.mean_length())),
        ]);
        results.extend(self.judgement.value().map(|(name, value)| (name.into(), json!(value))));
        json!({
            "env_steps": self.env_steps,
            "seconds": self.seconds,
            "policy_version": self.policy_version,
            "evaluation": results,
        })
    }
}

#[cfg(test)]
mod tests {
    use impresario_actor::env::measure::Measure;

    use super::*;

    #[test]
    fn people_and_the_record_are_told_the_same() {
        let measure = Measure::Success { what: "targets reached", least_return: 2.0 };
        let mut judgement = Judgement::new(Some(&measure));
        let episodes: Vec<Played> =
            [(1.0, 10), (2.0, 20), (3.0, 30), (6.0, 60)].map(|(total, steps)| Played { total, steps }).into();
        episodes.iter().for_each(|episode| judgement.episode(episode.total, &[], 2));
        let evaluation = Evaluation {
            environment: "Some-v0".into(),
            env_steps: 640,
            seconds: 1.5,
            policy_version: 7,
            greedy: true,
            episodes,
            judgement,
        };
        assert_eq!(
            evaluation.summary(),
            "Some-v0, policy version 7 (greedy): mean return 3.000 +- 1.871 over 4 episodes, mean length 30.0\n\
             targets reached: 75.0 % (3 of 4)"
        );
        let record = evaluation.record();
        assert_eq!((&record["env_steps"], &record["seconds"]), (&json!(640), &json!(1.5)));
        assert_eq!(record["policy_version"], 7);
        let results = &record["evaluation"];
        assert_eq!((&results["greedy"], &results["episodes"]), (&json!(true), &json!(4)));
        assert_eq!((&results["mean_return"], &results["mean_length"]), (&json!(3.0), &json!(30.0)));
        assert!((results["return_deviation"].as_f64().unwrap_or_default() - 3.5f64.sqrt()).abs() < 1e-12);
        assert_eq!(results["success"], 0.75);
    }
}
