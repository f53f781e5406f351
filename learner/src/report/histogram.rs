//! [`LagHistogram`]: exact counts of environment steps by policy lag.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How many environment steps were trained on at each policy lag. Exact: lags are small whole numbers, so
/// there are few distinct ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LagHistogram {
    /// Environment steps by lag in updates.
    counts: BTreeMap<u64, u64>,
    /// Sum of `counts`.
    steps: u64,
}

/// Policy lag in updates, over environment steps. All absent where nothing was trained on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct LagSummary {
    /// Mean.
    pub mean: Option<f64>,
    /// Median: at least half of the steps had this lag or less.
    pub p50: Option<u64>,
    /// At least 99% of the steps had this lag or less.
    pub p99: Option<u64>,
    /// Largest.
    pub max: Option<u64>,
}

impl LagHistogram {
    /// Counts `steps` environment steps at each of `lags`.
    pub fn record(&mut self, lags: &[u64], steps: u64) {
        if steps == 0 {
            return;
        }
        // Columns of one unroll lie side by side and share their lag: one look-up serves them all.
        for alike in lags.chunk_by(|a, b| a == b) {
            let added = steps * alike.len() as u64;
            *self.counts.entry(alike[0]).or_default() += added;
            self.steps += added;
        }
    }

    /// Adds all counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (&lag, &steps) in &other.counts {
            *self.counts.entry(lag).or_default() += steps;
        }
        self.steps += other.steps;
    }

    /// The smallest lag that at least the fraction `q` of all steps does not exceed (nearest rank).
    pub fn percentile(&self, q: f64) -> Option<u64> {
        let rank = ((q * self.steps as f64).ceil() as u64).clamp(1, self.steps.max(1));
        let mut seen = 0;
        self.counts.iter().find_map(|(&lag, &steps)| {
            seen += steps;
            (seen >= rank).then_some(lag)
        })
    }

    /// Mean and percentiles.
    pub fn summary(&self) -> LagSummary {
        let sum: f64 = self.counts.iter().map(|(&lag, &steps)| lag as f64 * steps as f64).sum();
        LagSummary {
            mean: (self.steps > 0).then(|| sum / self.steps as f64),
            p50: self.percentile(0.50),
            p99: self.percentile(0.99),
            max: self.counts.last_key_value().map(|(&lag, _)| lag),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_exact_and_weighted_by_steps() {
        let mut lags = LagHistogram::default();
        lags.record(&[0, 0, 3, 0], 10); // 30 steps at 0, 10 at 3
        lags.record(&[1], 59);
        lags.record(&[7], 1);
        let expected = LagSummary {
            mean: Some((3.0 * 10.0 + 59.0 + 7.0) / 100.0),
            p50: Some(1),
            p99: Some(3),
            max: Some(7),
        };
        assert_eq!(lags.summary(), expected);
        assert_eq!(lags.percentile(0.30), Some(0));
        assert_eq!(lags.percentile(0.31), Some(1));
        assert_eq!(lags.percentile(0.991), Some(7));
        assert_eq!(lags.percentile(1.0), Some(7));
        assert_eq!(lags.percentile(0.0), Some(0));
    }

    #[test]
    fn nothing_trained_has_no_lag() {
        assert_eq!(LagHistogram::default().summary(), LagSummary::default());
        let mut lags = LagHistogram::default();
        lags.record(&[4], 0);
        assert_eq!(lags, LagHistogram::default());
    }

    #[test]
    fn merged_histograms_equal_one_histogram_of_everything() {
        let (mut a, mut b, mut both) =
            (LagHistogram::default(), LagHistogram::default(), LagHistogram::default());
        for (part, lag, steps) in [(0, 1, 5), (1, 1, 7), (0, 900_000, 2), (1, 0, 3)] {
            [&mut a, &mut b][part].record(&[lag], steps);
            both.record(&[lag], steps);
        }
        a.merge(&b);
        assert_eq!(a, both);
    }
}
