//! The methods' own knobs, and what a run is like with each method unless it is told otherwise.
//!
//! One file a method: its keys with their defaults, their ranges, and the defaults of the other sections that
//! suit it. A method is added here by its file and a line in [`methods!`].

mod actor_critic;
mod appo;
mod impala;
mod ppo;
mod reinforce;
mod sac;
mod trpo;

use serde::{Deserialize, Serialize};

pub use actor_critic::ActorCriticConfig;
pub use appo::AppoConfig;
pub use impala::ImpalaConfig;
pub use ppo::PpoConfig;
pub use reinforce::ReinforceConfig;
pub use sac::SacConfig;
pub use trpo::TrpoConfig;

use super::{ConfigError, RunConfig};

/// Makes [`AlgorithmConfig`] of the methods' names, their configurations, and functions that change the
/// defaults of a run's other sections to what suits the method.
macro_rules! methods {
    ($($(#[$comment:meta])* $name:literal => $variant:ident($config:ident), $adapt:path;)+) => {
        /// The method and its own knobs.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "name")]
        pub enum AlgorithmConfig {
            $($(#[$comment])* #[serde(rename = $name)] $variant($config),)+
        }

        impl AlgorithmConfig {
            /// Names that `--algorithm` takes.
            pub const NAMES: &'static [&'static str] = &[$($name),+];

            /// The name that `--algorithm` takes.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)+
                }
            }

            /// The defaults of the algorithm called `name`.
            pub fn by_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant($config::default())),)+
                    _ => None,
                }
            }

            /// Checks every range that the types do not.
            ///
            /// # Errors
            /// If a value is out of range.
            pub fn validate(&self) -> Result<(), ConfigError> {
                match self {
                    $(Self::$variant(config) => config.validate(),)+
                }
            }

            /// Changes the defaults of the other sections of `run` to what suits the method.
            fn adapt(&self, run: &mut RunConfig) {
                match self {
                    $(Self::$variant(_) => $adapt(run),)+
                }
            }
        }
    };
}

methods! {
    /// Importance-weighted actor-learner: V-trace.
    "impala" => Impala(ImpalaConfig), impala::adapt;
    /// Advantage actor-critic in lockstep.
    "a2c" => A2c(ActorCriticConfig), actor_critic::lockstep;
    /// Asynchronous advantage actor-critic: an update for each unroll as it comes, without correction.
    "a3c" => A3c(ActorCriticConfig), actor_critic::asynchronous;
    /// Proximal policy optimisation in lockstep: several epochs on each batch, within a clip.
    "ppo" => Ppo(PpoConfig), ppo::adapt;
    /// Asynchronous PPO: the clipped surrogate on V-trace's targets, for experience that lags.
    "appo" => Appo(AppoConfig), appo::adapt;
    /// Monte Carlo policy gradient in lockstep, on episodes that are complete.
    "reinforce" => Reinforce(ReinforceConfig), reinforce::adapt;
    /// Trust region policy optimisation: natural gradient steps within a bound on the divergence.
    "trpo" => Trpo(TrpoConfig), trpo::adapt;
    /// Soft actor-critic: off-policy from a replay buffer, with an entropy bonus that sets itself.
    "sac" => Sac(SacConfig), sac::adapt;
}

impl Default for AlgorithmConfig {
    fn default() -> Self {
        Self::Impala(ImpalaConfig::default())
    }
}

impl AlgorithmConfig {
    /// Bound on the size of a reward in learning; 0 where there is none.
    pub fn reward_clip(&self) -> f32 {
        match self {
            Self::Impala(config) => config.reward_clip,
            Self::A2c(config) | Self::A3c(config) => config.reward_clip,
            Self::Ppo(config) => config.reward_clip,
            Self::Appo(config) => config.reward_clip,
            Self::Reinforce(config) => config.reward_clip,
            Self::Trpo(config) => config.reward_clip,
            Self::Sac(_) => 0.0,
        }
    }
}

impl RunConfig {
    /// The defaults of a run with `algorithm`: those of all sections, in the light of the method.
    pub fn with_algorithm(algorithm: AlgorithmConfig) -> Self {
        let mut run = Self::default();
        algorithm.adapt(&mut run);
        run.algorithm = algorithm;
        run
    }
}

/// How per-step losses become one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LossReduction {
    /// Added up over `[T, B]`: IMPALA's paper, TorchBeast, Cleanba.
    Sum,
    /// Averaged over `[T, B]`: seed_rl, moolib, Acme.
    Mean,
}
