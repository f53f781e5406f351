//! [`Position`]: where a worker stands between two unrolls, so that another process can go on from there.
//!
//! A lockstep run that is stopped in good order and resumed takes the very same way as one that was never stopped, although its
//! actors are new processes. The learner keeps positions without looking into them.

use std::collections::VecDeque;

use impresario_common::wire::v1;
use prost::Message;

use crate::env::track::{SavedCopy, SavedStream};

/// What the sampler itself knows of a copy.
#[derive(Clone, PartialEq, Message)]
pub struct SavedEpisode {
    /// Return so far.
    #[prost(double, tag = "1")]
    pub undiscounted_return: f64,
    /// Steps so far.
    #[prost(uint32, tag = "2")]
    pub length: u32,
    /// Where its actions are drawn from.
    #[prost(message, optional, tag = "3")]
    pub actions: Option<SavedStream>,
}

/// Where a worker stands before an unroll.
#[derive(Clone, PartialEq, Message)]
pub struct Position {
    /// The unroll's grant; `u64::MAX` if none has been given for it yet.
    #[prost(uint64, tag = "1")]
    pub grant: u64,
    /// Whether episodes have been started.
    #[prost(bool, tag = "2")]
    pub started: bool,
    /// One a copy.
    #[prost(message, repeated, tag = "3")]
    pub copies: Vec<SavedCopy>,
    /// One a copy.
    #[prost(message, repeated, tag = "4")]
    pub episodes: Vec<SavedEpisode>,
    /// The unroll before, whose last observations are where the next one starts.
    #[prost(message, optional, tag = "5")]
    pub unroll: Option<v1::Unroll>,
    /// `[E, S]`: what the policy remembers.
    #[prost(float, repeated, tag = "6")]
    pub core_states: Vec<f32>,
    /// `[E, H, D]`: noise that is a function of the state,
    #[prost(float, repeated, tag = "7")]
    pub noise: Vec<f32>,
    /// and the steps that it has served, and one; 0 where a new one is due.
    #[prost(uint32, repeated, tag = "8")]
    pub noise_ages: Vec<u32>,
}

/// The last positions of each of an actor's workers.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Positions {
    /// The worker whose turn it was for the grant of index 0.
    #[prost(uint64, tag = "1")]
    pub(crate) first_turn: u64,
    #[prost(message, repeated, tag = "2")]
    workers: Vec<WorkerPositions>,
}

#[derive(Clone, PartialEq, Message)]
struct WorkerPositions {
    /// In the order of their grants.
    #[prost(message, repeated, tag = "1")]
    positions: Vec<Position>,
}

impl Positions {
    /// What workers noted of themselves.
    pub(crate) fn new(first_turn: usize, workers: &[VecDeque<Position>]) -> Self {
        let of_worker =
            |noted: &VecDeque<Position>| WorkerPositions { positions: noted.iter().cloned().collect() };
        Self { first_turn: first_turn as u64, workers: workers.iter().map(of_worker).collect() }
    }

    /// Where each of `workers` workers stood before its first unroll with a grant of `grant` or later.
    ///
    /// # Errors
    /// If one of them does not say.
    pub(crate) fn before(mut self, grant: u64, workers: usize) -> Result<Vec<Position>, String> {
        if self.workers.len() != workers {
            return Err(format!("it is of {} workers, and here are {workers}", self.workers.len()));
        }
        let position = |worker: WorkerPositions| worker.positions.into_iter().find(|p| p.grant >= grant);
        let all: Option<Vec<Position>> = self.workers.drain(..).map(position).collect();
        all.ok_or_else(|| format!("a worker does not say where it stood before grant {grant}"))
    }
}
