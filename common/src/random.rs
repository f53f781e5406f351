//! Random streams: all randomness of a run flows from its one seed.
//!
//! Every user of randomness (an environment copy, an actor's action sampling, parameter
//! initialisation) owns a [`Stream`] derived from the run's seed and a path that names the user, so
//! that nothing depends on how many others there are or in which order they run.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A reproducible generator; seekable and portable, so that a run can be repeated on another machine.
pub type Stream = ChaCha8Rng;

/// What a stream is for; part of the path that tells streams of one seed apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// Initial parameters of the policy.
    Parameters = 1,
    /// The dynamics and initial states of one environment copy.
    Environment = 2,
    /// The actions sampled for one environment copy.
    Actions = 3,
    /// Evaluation episodes, kept apart from training ones.
    Evaluation = 4,
    /// The learner's own choices (minibatch shuffling, replay).
    Learner = 5,
}

/// The stream of `purpose` for the user named by `path` (say `[actor, worker, copy]`), at most three
/// levels deep; missing levels count as zero.
pub fn stream(seed: u64, purpose: Purpose, path: [u32; 3]) -> Stream {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8] = purpose as u8;
    for (chunk, level) in key[12..24].chunks_exact_mut(4).zip(path) {
        chunk.copy_from_slice(&level.to_le_bytes());
    }
    Stream::from_seed(key)
}

/// A standard normal number (Box and Muller 1958).
pub fn normal(stream: &mut Stream) -> f64 {
    // 1 - u lies in (0, 1], so that the logarithm is finite.
    let (u, v): (f64, f64) = (1.0 - stream.random::<f64>(), stream.random());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    #[test]
    fn streams_repeat_and_differ_by_seed_purpose_and_path() {
        let first = |seed, purpose, path| stream(seed, purpose, path).next_u64();
        let base = first(1, Purpose::Actions, [0, 0, 0]);
        assert_eq!(base, first(1, Purpose::Actions, [0, 0, 0]));
        assert_ne!(base, first(2, Purpose::Actions, [0, 0, 0]));
        assert_ne!(base, first(1, Purpose::Environment, [0, 0, 0]));
        assert_ne!(base, first(1, Purpose::Actions, [0, 1, 0]));
    }
}
