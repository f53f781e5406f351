//! What the actor's tests share: an environment whose episodes are known beforehand, and a learner that does
//! what it is told.

// Each test binary uses a part of it.
#![allow(dead_code, unreachable_pub)]

pub mod environment;
pub mod learner;

use std::time::Duration;

use impresario_actor::env::registry::Registry;
use impresario_actor::{ActorError, ActorOptions, ActorSummary};
use impresario_common::config::RunConfig;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long anything may take before a test fails.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// T and E of the runs under test.
pub const LENGTH: usize = 4;
pub const COPIES: usize = 2;

/// A small run in the scripted environment.
pub fn config() -> RunConfig {
    let mut config = RunConfig::default();
    config.environment.id = environment::ID.into();
    config.rollout.unroll_length = LENGTH;
    config.rollout.envs_per_actor = COPIES;
    config
}

/// An actor that runs beside the test.
pub struct Actor {
    running: JoinHandle<Result<ActorSummary, ActorError>>,
    shutdown: oneshot::Sender<()>,
}

impl Actor {
    pub fn start(options: ActorOptions, registry: Registry) -> Self {
        let (shutdown, asked) = oneshot::channel::<()>();
        let running = tokio::spawn(impresario_actor::run(options, registry, async {
            if asked.await.is_err() {
                std::future::pending().await
            }
        }));
        Self { running, shutdown }
    }

    /// Waits for the actor to end by itself.
    pub async fn ended(self) -> Result<ActorSummary, ActorError> {
        let ended = tokio::time::timeout(DEADLINE, self.running).await;
        ended.expect("the actor did not end in time").expect("the actor panicked")
    }

    /// Asks the actor to stop, and waits for it.
    pub async fn stop(self) -> Result<ActorSummary, ActorError> {
        let Self { running, shutdown } = self;
        shutdown.send(()).expect("the actor has ended already");
        let ended = tokio::time::timeout(DEADLINE, running).await;
        ended.expect("the actor did not end in time").expect("the actor panicked")
    }
}
