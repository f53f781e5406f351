//! Work shared out over threads, and memory that calls leave for the next ones.

use std::sync::{Mutex, PoisonError};

use super::threads;

/// Does all jobs, on [`threads`] threads if `worthwhile`; each thread takes the next one when it is done with one.
pub(super) fn share_out<T: Send>(
    jobs: impl ExactSizeIterator<Item = T> + Send,
    worthwhile: bool,
    work: impl Fn(T) + Sync,
) {
    let workers = if worthwhile { threads().min(jobs.len()) } else { 1 };
    if workers <= 1 {
        return jobs.for_each(work);
    }
    let jobs = Mutex::new(jobs);
    let worker = || {
        loop {
            // A statement of its own, so that the lock is free while the job is done.
            let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(job) = job else { return };
            work(job);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..workers {
            scope.spawn(worker);
        }
        worker();
    });
}

/// Memory that is not in use: threads come and go, it stays.
static SPARE: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());

/// Vectors kept at most, so that a burst of threads does not hold memory for ever.
const SPARES: usize = 64;

/// Numbers of a vector that may serve for fewer, however few.
const SMALL: usize = 1 << 10;

/// A vector of `len` numbers, left over from an earlier call where there is one; what they are is anybody's guess.
pub(super) struct Scratch {
    numbers: Vec<f32>,
    len: usize,
}

impl Scratch {
    pub(super) fn new(len: usize) -> Self {
        let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        // The smallest that is large enough, but not one that many such calls would fit into.
        let fits = (0..spare.len()).filter(|at| (len..=2 * len + SMALL).contains(&spare[*at].len()));
        let best = fits.min_by_key(|at| spare[*at].len()).map(|at| spare.swap_remove(at));
        drop(spare);
        Self { numbers: best.unwrap_or_else(|| vec![0.0; len]), len }
    }

    /// One of zeros.
    pub(super) fn zeros(len: usize) -> Self {
        let mut scratch = Self::new(len);
        scratch.fill(0.0);
        scratch
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() == SPARES {
            // Of a size that is asked for no more, perhaps.
            spare.swap_remove(0);
        }
        if !self.numbers.is_empty() {
            spare.push(std::mem::take(&mut self.numbers));
        }
    }
}

impl std::ops::Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.numbers[..self.len]
    }
}

impl std::ops::DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.numbers[..self.len]
    }
}
