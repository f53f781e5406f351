//! What a game draws at random, as an input of its own: a random stream in training, a recording in tests.

use impresario_common::random::Stream;
use rand::RngExt;

/// A source of random draws.
pub trait Draws {
    /// Uniform in [0, 1).
    fn unit(&mut self) -> f64;

    /// One of 0 to n - 1, all equally likely.
    fn below(&mut self, n: u32) -> u32;

    /// True with probability `p`.
    fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }
}

impl Draws for Stream {
    #[inline]
    fn unit(&mut self) -> f64 {
        self.random()
    }

    #[inline]
    fn below(&mut self, n: u32) -> u32 {
        self.random_range(0..n)
    }
}
