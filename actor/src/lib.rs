//! Impresario's actor: steps copies of an environment with a local snapshot of the policy, and streams the
//! experience to the learner.
//!
//! # Layout
//!
//! In the order in which experience takes shape:
//!
//! * [`command`], [`options`]: what an actor is started with.
//! * [`session`]: an actor's life, from the first call to the learner to the last; [`run`] is the way in.
//! * [`error`]: why an actor ends without having finished.
//! * `connection`: how the learner is reached, what its refusals mean, and how long to keep trying.
//! * [`mod@env`]: the environments.
//! * `downlink`: weights from the learner: latest wins, swapped in whole.
//! * `grants`: permissions from the learner to start unrolls.
//! * [`rollout`]: worker threads: step environments, batched inference, fill unrolls.
//! * `uplink`: unrolls to the learner: bounded, acknowledged, resumed after a break.
//! * [`counters`]: what was produced, what was dropped, where time went.
//! * `gate`: where worker threads wait for the network.
//!
//! *Invariant*: environments step on threads of their own, and network I/O happens on tokio's; they meet at
//! the grants, the weights and the outbox, and nowhere else.

pub mod command;
mod connection;
pub mod counters;
mod downlink;
pub mod env;
pub mod error;
mod gate;
mod grants;
pub mod options;
pub mod rollout;
pub mod session;
mod uplink;

pub use command::{ActorCommand, main_with};
pub use error::ActorError;
pub use options::ActorOptions;
pub use session::{ActorSummary, run, runtime};
