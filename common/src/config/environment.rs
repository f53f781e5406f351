//! The section on what the agent acts in: the environment's name, what is said to Gymnasium, and Atari's conventions.

use serde::{Deserialize, Serialize};

use super::sections::RunConfig;

/// What the agent acts in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentSection {
    /// Name with version: a native environment, as `impresario envs` lists them, or any of Gymnasium, say `ALE/Pong-v5` or
    /// `my_package.my_module:MyEnv-v0`. `gym:` in front asks for Gymnasium's where there is a native one.
    pub id: String,
    /// K: observations that the policy sees at once, the newest and those before it in the episode; at an episode's
    /// beginning its first observation stands in for those that are missing. For observations that do not show how things
    /// move, such as pictures. Each is stored and sent once.
    pub frame_stack: usize,
    /// Gymnasium: keyword arguments of the environment, say `{ continuous = true }`.
    pub kwargs: toml::Table,
    /// Gymnasium: wrappers around each copy, the innermost first: `"module:Class"`, or `{ name = "module:Class", kwargs = { ... } }` for
    /// one that takes arguments.
    pub wrappers: Vec<Wrapper>,
    /// Gymnasium: steps after which an episode is truncated, instead of the environment's own limit; 0 leaves that.
    pub max_episode_steps: u32,
    /// Gymnasium: seconds that the Python worker may take to start and make its copies before it counts as hung.
    pub start_timeout_seconds: f64,
    /// Gymnasium: seconds that a step of all copies, or a reset, may take before the worker counts as hung and is replaced.
    pub step_timeout_seconds: f64,
    /// Gymnasium: failures of a worker in a row, without an unroll finished in between, after which the actor stops with the
    /// cause. Until then the worker is replaced, and the unroll begun anew.
    pub max_failures: u32,
    /// What is done with Atari games (`ALE/...`).
    pub atari: AtariSection,
}

impl Default for EnvironmentSection {
    fn default() -> Self {
        Self {
            id: "CartPole-v1".into(),
            frame_stack: 1,
            kwargs: toml::Table::new(),
            wrappers: vec![],
            max_episode_steps: 0,
            start_timeout_seconds: 120.0,
            step_timeout_seconds: 60.0,
            max_failures: 3,
            atari: AtariSection::default(),
        }
    }
}

impl EnvironmentSection {
    /// The environment called `id`, all else as by default.
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), ..Self::default() }
    }

    /// Whether it is an Atari game.
    pub fn is_atari(&self) -> bool {
        is_atari(&self.id)
    }
}

/// A wrapper of Gymnasium's environments: a class, or a function that gives one, by its name `module:Class`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "WrapperForm", into = "WrapperForm")]
pub struct Wrapper {
    /// Where it is found: `module:Class`.
    pub name: String,
    /// Keyword arguments beside the environment.
    pub kwargs: toml::Table,
}

impl Wrapper {
    /// Whether its name has a module and something in it.
    pub(super) fn is_named_well(&self) -> bool {
        self.name.split_once(':').is_some_and(|(module, class)| !module.is_empty() && !class.is_empty())
    }
}

impl From<&str> for Wrapper {
    /// The wrapper of that name, without arguments.
    fn from(name: &str) -> Self {
        Self { name: name.into(), kwargs: toml::Table::new() }
    }
}

/// How a wrapper is written.
#[derive(Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "wrappers such as \"module:Class\" or { name = \"module:Class\", kwargs = { key = 1 } }"
)]
enum WrapperForm {
    Name(String),
    Call(WrapperCall),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrapperCall {
    name: String,
    #[serde(default)]
    kwargs: toml::Table,
}

impl From<WrapperForm> for Wrapper {
    fn from(form: WrapperForm) -> Self {
        match form {
            WrapperForm::Name(name) => Self { name, kwargs: toml::Table::new() },
            WrapperForm::Call(WrapperCall { name, kwargs }) => Self { name, kwargs },
        }
    }
}

impl From<Wrapper> for WrapperForm {
    fn from(Wrapper { name, kwargs }: Wrapper) -> Self {
        match kwargs.is_empty() {
            true => Self::Name(name),
            false => Self::Call(WrapperCall { name, kwargs }),
        }
    }
}

/// Whether `id` names an Atari game of the Arcade Learning Environment.
pub(super) fn is_atari(id: &str) -> bool {
    id.strip_prefix("gym:").unwrap_or(id).starts_with("ALE/")
}

/// What is done with Atari games (`ALE/...`): the conventions of Mnih et al. (2015) as Espeholt et al. (2018) use them.
/// Machado et al. (2018) recommend `sticky_actions = 0.25`, `noop_max = 0`, `life_loss = false` and `full_action_set = true`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AtariSection {
    /// Whether frames are prepared as the next keys say. Without it the environment is what its own keyword arguments make it.
    pub preprocess: bool,
    /// Frames that an action is held for; rewards are summed over them, and the last two are merged by their maximum.
    pub frame_skip: u32,
    /// Height and width of a frame in pixels, after resizing.
    pub screen_size: u32,
    /// Whether frames are grey; else they have three colours.
    pub grayscale: bool,
    /// Probability that the emulator repeats the action before instead of taking the new one, in each frame.
    pub sticky_actions: f64,
    /// An episode begins with 1 to so many actions that do nothing; 0 for none.
    pub noop_max: u32,
    /// Whether losing a life ends an episode for learning. The game goes on, and returns are reported of whole games.
    pub life_loss: bool,
    /// Whether all 18 actions are offered, instead of those of use in the game.
    pub full_action_set: bool,
    /// Threads among which the emulator divides the copies of a worker; 0 is one for each core.
    pub threads: u32,
}

impl Default for AtariSection {
    fn default() -> Self {
        Self {
            preprocess: true,
            frame_skip: 4,
            screen_size: 84,
            grayscale: true,
            sticky_actions: 0.0,
            noop_max: 30,
            life_loss: true,
            full_action_set: false,
            threads: 1,
        }
    }
}

/// How an Atari game is set up, as the literature calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AtariConvention {
    /// Mnih et al. (2015) as Espeholt et al. (2018) use it: no-op starts, episodes for learning end with a life, the game's own
    /// actions.
    Mnih2015,
    /// Machado et al. (2018): sticky actions, whole games, all actions; with a frame skip of 5 as there, or of 4 as Castro et al.
    /// (2018) and Gymnasium have it.
    Machado2018,
    /// Frames as the emulator or its keyword arguments give them.
    Raw,
    /// Anything else.
    Custom,
}

impl RunConfig {
    /// The convention that an Atari game is played by; `None` for all other environments.
    pub fn atari_convention(&self) -> Option<AtariConvention> {
        let environment = &self.environment;
        let section = &environment.atari;
        if !environment.is_atari() {
            return None;
        }
        if !section.preprocess {
            return Some(AtariConvention::Raw);
        }
        let mnih = AtariSection { threads: section.threads, ..AtariSection::default() };
        let machado = AtariSection {
            sticky_actions: 0.25,
            noop_max: 0,
            life_loss: false,
            full_action_set: true,
            ..mnih.clone()
        };
        let machado_as_published = AtariSection { frame_skip: 5, ..machado.clone() };
        let usual = environment.frame_stack == 4
            && self.algorithm.reward_clip() == 1.0
            && environment.kwargs.is_empty()
            && environment.wrappers.is_empty()
            && environment.max_episode_steps == 0;
        Some(match section {
            _ if !usual => AtariConvention::Custom,
            section if *section == mnih => AtariConvention::Mnih2015,
            section if [machado, machado_as_published].contains(section) => AtariConvention::Machado2018,
            _ => AtariConvention::Custom,
        })
    }
}
