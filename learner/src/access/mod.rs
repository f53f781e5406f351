//! Who may talk to the learner: TLS, the token, and how much of a connection's attention anyone gets.
//!
//! # Layout
//!
//! * [`flags`]: what a learner is started with, the rule about listening beyond loopback, and what both come to.
//! * [`guard`]: asks every call for the token.
//! * `incoming`: accepts connections, those of the operations port as well: TLS, a limit on their number, and an answer to whoever speaks
//!   something else.
//! * `socket`: a connection, encrypted or not.
//! * `rate`: a limit on events per second.
//! * `ration`: a log line a second, however many there would be.
//!
//! Health is exempt from the token: an orchestrator's probes cannot show one, and the answer gives nothing away.

pub mod flags;
pub mod guard;
mod incoming;
mod rate;
mod ration;
mod socket;

pub use flags::{Access, AccessFlags};
pub use guard::Guard;
pub(crate) use incoming::{Behind, Places, incoming};
pub(crate) use rate::Rate;
