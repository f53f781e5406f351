//! [`Scheduled`]: a quantity that changes over a run, such as the step size or PPO's clip range.

use impresario_common::config::Schedule;

/// A quantity with its course over a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scheduled {
    start: f64,
    schedule: Schedule,
    env_steps: u64,
}

impl Scheduled {
    /// What begins at `start` and follows `schedule` in a run of `env_steps` environment steps.
    pub fn new(start: f64, schedule: Schedule, env_steps: u64) -> Self {
        Self { start, schedule, env_steps }
    }

    /// Its value after `env_steps` environment steps.
    pub fn at(&self, env_steps: u64) -> f64 {
        match self.schedule {
            Schedule::Constant => self.start,
            Schedule::Linear => {
                let left = self.env_steps.saturating_sub(env_steps);
                self.start * left as f64 / self.env_steps.max(1) as f64
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_schedule_ends_at_zero() {
        assert_eq!(Scheduled::new(0.01, Schedule::Constant, 100).at(1000), 0.01);
        let rate = Scheduled::new(0.01, Schedule::Linear, 100);
        assert_eq!([rate.at(0), rate.at(25), rate.at(100), rate.at(500)], [0.01, 0.0075, 0.0, 0.0]);
    }
}
