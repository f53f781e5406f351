//! [`MetricMeans`]: means of the trainer's diagnostics by name.

/// Sums of each metric, until somebody takes their means.
#[derive(Debug, Default)]
pub(super) struct MetricMeans {
    /// In the trainer's order. Names stay when means are taken, so that the next sums need not build them anew.
    sums: Vec<Sum>,
}

#[derive(Debug)]
struct Sum {
    name: &'static str,
    sum: f64,
    count: u64,
}

impl MetricMeans {
    /// Adds one update's metrics. Values that are not finite are left out.
    pub(super) fn add(&mut self, metrics: &[(&'static str, f32)]) {
        for &(name, value) in metrics {
            let metric = match self.sums.iter().position(|metric| metric.name == name) {
                Some(i) => &mut self.sums[i],
                None => self.sums.push_mut(Sum { name, sum: 0.0, count: 0 }),
            };
            if value.is_finite() {
                metric.sum += f64::from(value);
                metric.count += 1;
            }
        }
    }

    /// Means since the last call, in the trainer's order; not a number where no value was finite.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (&'static str, f64)> {
        self.sums.iter_mut().map(|metric| {
            let mean = metric.sum / metric.count as f64;
            (metric.sum, metric.count) = (0.0, 0);
            (metric.name, mean)
        })
    }
}
