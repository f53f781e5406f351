//! [`Scheduled`]: a quantity that changes over a run, such as the step size, the weight of the entropy or PPO's clip range.

use impresario_common::config::Schedule;

/// A quantity with its course over a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scheduled {
    start: f64,
    end: f64,
    schedule: Schedule,
    env_steps: u64,
}

impl Scheduled {
    /// What begins at `start` and follows `schedule`, which ends at 0, in a run of `env_steps` environment steps.
    pub fn new(start: f64, schedule: Schedule, env_steps: u64) -> Self {
        Self::between(start, 0.0, schedule, env_steps)
    }

    /// What begins at `start` and follows `schedule`, which ends at `end`, in a run of `env_steps` environment steps.
    pub fn between(start: f64, end: f64, schedule: Schedule, env_steps: u64) -> Self {
        Self { start, end, schedule, env_steps }
    }

    /// Its value after `env_steps` environment steps.
    pub fn at(&self, env_steps: u64) -> f64 {
        match self.schedule {
            Schedule::Constant => self.start,
            Schedule::Linear => {
                let left = self.env_steps.saturating_sub(env_steps);
                self.end + (self.start - self.end) * left as f64 / self.env_steps.max(1) as f64
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

    #[test]
    fn a_linear_schedule_between_two_values_ends_at_the_second_and_may_rise() {
        let falls = Scheduled::between(0.5, 0.25, Schedule::Linear, 100);
        assert_eq!([falls.at(0), falls.at(50), falls.at(100), falls.at(500)], [0.5, 0.375, 0.25, 0.25]);
        let rises = Scheduled::between(0.0, 0.25, Schedule::Linear, 100);
        assert_eq!([rises.at(0), rises.at(50), rises.at(100)], [0.0, 0.125, 0.25]);
        assert_eq!(Scheduled::between(0.5, 0.1, Schedule::Constant, 100).at(100), 0.5);
    }
}
