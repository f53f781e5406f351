//! [`RecentEpisodes`]: returns and lengths of the last hundred episodes.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Episodes over which a mean return is taken, as the definitions of "solved" ask for.
pub const EPISODES: usize = 100;

/// The last [`EPISODES`] episodes that ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RecentEpisodes {
    /// Undiscounted return and length in environment steps, oldest first.
    ring: VecDeque<(f32, u32)>,
}

impl RecentEpisodes {
    /// Appends an episode; the oldest one leaves where there are more than [`EPISODES`].
    pub fn push(&mut self, episode: (f32, u32)) {
        if self.ring.len() == EPISODES {
            self.ring.pop_front();
        }
        self.ring.push_back(episode);
    }

    /// Episodes held, at most [`EPISODES`].
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// Whether no episode has ended yet.
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Mean return of the episodes held. Summed afresh each time, so that no rounding error builds up.
    pub fn mean_return(&self) -> Option<f64> {
        self.mean(|&(value, _)| f64::from(value))
    }

    /// Mean length in environment steps of the episodes held.
    pub fn mean_length(&self) -> Option<f64> {
        self.mean(|&(_, length)| f64::from(length))
    }

    /// Mean return, once [`EPISODES`] have ended.
    pub fn mean_return_100(&self) -> Option<f64> {
        if self.ring.len() == EPISODES { self.mean_return() } else { None }
    }

    fn mean(&self, value: impl Fn(&(f32, u32)) -> f64) -> Option<f64> {
        (!self.ring.is_empty()).then(|| self.ring.iter().map(value).sum::<f64>() / self.ring.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_hundred_episodes_count() {
        let mut recent = RecentEpisodes::default();
        assert!(recent.is_empty());
        assert_eq!((recent.mean_return(), recent.mean_return_100()), (None, None));
        for i in 0..99u32 {
            recent.push((i as f32, 2 * i));
        }
        assert_eq!((recent.mean_return(), recent.mean_return_100()), (Some(49.0), None));
        recent.push((99.0, 198));
        assert_eq!(recent.mean_return_100(), Some(49.5));
        assert_eq!(recent.mean_length(), Some(99.0));
        for i in 100..250u32 {
            recent.push((i as f32, 2 * i));
        }
        assert_eq!(recent.len(), 100);
        assert_eq!(recent.mean_return_100(), Some(199.5)); // 150..=249
    }
}
