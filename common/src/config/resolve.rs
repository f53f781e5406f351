//! Laying the layers of configuration over one another, and checking the result.

use std::path::Path;

use toml::{Table, Value};

use super::algorithm::AlgorithmConfig;
use super::environment::{EnvironmentSection, is_atari};
use super::flags::RunFlags;
use super::policy::{CoreKind, LogStd, PolicySection, Sizes};
use super::ranges::{at_least_1, check, fraction, not_negative, positive};
use super::sections::{LimitsSection, OptimizerKind, RunConfig, UntilReturn};
use crate::stacking::MAX_FRAME_STACK;

/// Largest size of a layer: beyond it no network is of any use, and products of sizes stay within bounds.
const MAX_SIZE: usize = 1 << 16;

/// Name of the file in a run directory that holds the run's resolved configuration.
pub const RUN_CONFIG_FILE: &str = "config.toml";

/// A configuration that cannot be used: what is wrong, where it was given, and what would do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read configuration file {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{path} is not valid TOML: {message}")]
    Syntax {
        /// The file.
        path: String,
        /// Where and why.
        message: String,
    },
    /// A `--set` without a key or value.
    #[error("--set {0:?} is not of the form section.key=value, say optimizer.learning_rate=0.0005")]
    Assignment(String),
    /// A key is unknown or its value has the wrong type.
    #[error("configuration: {0}")]
    Value(String),
    /// A value is out of range.
    #[error("configuration: {key} is {value}, {requirement}")]
    Range {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What it must be.
        requirement: &'static str,
    },
}

impl RunConfig {
    /// The configuration that `flags` and the file they name define.
    ///
    /// # Errors
    /// If a layer cannot be read, has an unknown key or a value of the wrong type, or the result is out of
    /// range.
    pub fn from_flags(flags: &RunFlags) -> Result<Self, ConfigError> {
        let resumed = flags.run_dir.as_ref().filter(|_| flags.resume).map(|dir| dir.join(RUN_CONFIG_FILE));
        let mut layer = match flags.config.as_ref().or(resumed.as_ref()) {
            Some(path) => read_file(path)?,
            None => Table::new(),
        };
        set_flags(&mut layer, flags)?;
        for assignment in &flags.set {
            set(&mut layer, assignment)?;
        }
        Self::from_layer(layer)
    }

    /// The configuration that `text`, as [`Self::to_toml`] writes it, defines.
    ///
    /// # Errors
    /// As [`Self::from_flags`].
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let layer = text.parse().map_err(|e: toml::de::Error| ConfigError::Syntax {
            path: "text".into(),
            message: e.to_string(),
        })?;
        Self::from_layer(layer)
    }

    /// The whole configuration as TOML.
    ///
    /// # Errors
    /// If a value has no form in TOML.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string(self).map_err(|e| ConfigError::Value(e.to_string()))
    }

    fn from_layer(layer: Table) -> Result<Self, ConfigError> {
        let mut table = defaults(&layer)?;
        merge(&mut table, layer, "")?;
        let config: Self =
            Value::Table(table).try_into().map_err(|e: toml::de::Error| ConfigError::Value(message(&e)))?;
        config.validate()?;
        Ok(config)
    }

    /// Checks every range that the types do not.
    ///
    /// # Errors
    /// If a value is out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check("run.steps", &self.run.steps, self.run.steps > 0, "must be at least 1")?;
        if let UntilReturn::Return(value) = self.run.until_return {
            check("run.until_return", &value, value.is_finite(), "must be a finite number")?;
        }
        check_environment(&self.environment)?;
        let rollout = &self.rollout;
        at_least_1("rollout.unroll_length", rollout.unroll_length)?;
        at_least_1("rollout.envs_per_actor", rollout.envs_per_actor)?;
        at_least_1("rollout.workers_per_actor", rollout.workers_per_actor)?;
        check(
            "rollout.workers_per_actor",
            &rollout.workers_per_actor,
            rollout.envs_per_actor.is_multiple_of(rollout.workers_per_actor),
            "must divide rollout.envs_per_actor",
        )?;
        check("rollout.uplink_bytes", &rollout.uplink_bytes, rollout.uplink_bytes > 0, "must be at least 1")?;
        check_sizes(&self.policy)?;
        at_least_1("policy.core_size", self.policy.core_size)?;
        check(
            "policy.core_forget_bias",
            &self.policy.core_forget_bias,
            (-10.0..=10.0).contains(&self.policy.core_forget_bias),
            "must lie between -10 and 10",
        )?;
        let core = self.policy.core;
        check(
            "policy.core",
            &format!("{core:?}").to_lowercase(),
            core == CoreKind::None || self.algorithm.name() != "sac",
            "must be \"none\" with sac, which learns from steps one by one",
        )?;
        not_negative("policy.policy_gain", self.policy.policy_gain.into())?;
        not_negative("policy.value_gain", self.policy.value_gain.into())?;
        check(
            "policy.initial_log_std",
            &self.policy.initial_log_std,
            (-20.0..=5.0).contains(&self.policy.initial_log_std),
            "must lie between -20 and 5",
        )?;
        check_log_std_bounds(&self.policy)?;
        check_value_scale(&self.policy, &self.algorithm)?;

        self.algorithm.validate()?;

        let optimizer = &self.optimizer;
        positive("optimizer.learning_rate", optimizer.learning_rate)?;
        positive("optimizer.epsilon", optimizer.epsilon)?;
        not_negative("optimizer.max_grad_norm", optimizer.max_grad_norm)?;
        match optimizer.kind {
            OptimizerKind::RmsProp => {
                fraction("optimizer.decay", optimizer.decay)?;
                fraction("optimizer.momentum", optimizer.momentum)?;
            }
            OptimizerKind::Adam => {
                fraction("optimizer.beta1", optimizer.beta1)?;
                fraction("optimizer.beta2", optimizer.beta2)?;
            }
        }

        let learner = &self.learner;
        at_least_1("learner.batch_size", learner.batch_size)?;
        // Each update of the bound is a batch of unrolls to be granted, counted and held.
        if let Some(bound) = learner.max_policy_lag.0 {
            check("learner.max_policy_lag", &bound, bound <= 1000, "must be at most 1000, or \"unlimited\"")?;
        }
        check("learner.queue_bytes", &learner.queue_bytes, learner.queue_bytes > 0, "must be at least 1")?;
        at_least_1("learner.wait_for_actors", learner.wait_for_actors)?;
        positive("learner.grant_timeout_seconds", learner.grant_timeout_seconds)?;
        not_negative("learner.reconnect_seconds", learner.reconnect_seconds)?;
        not_negative("learner.grace_seconds", learner.grace_seconds)?;
        check_limits(&self.limits)?;
        check(
            "limits.connections",
            &self.limits.connections,
            self.limits.connections / 2 >= learner.wait_for_actors,
            "must be at least twice learner.wait_for_actors, as each actor has two: the others would be waited for in vain",
        )?;
        positive("report.interval_seconds", self.report.interval_seconds)?;
        positive("report.checkpoint_seconds", self.report.checkpoint_seconds)?;
        at_least_1("report.checkpoints_kept", self.report.checkpoints_kept)
    }
}

/// PopArt's knobs, and whether there are values to be learned.
fn check_value_scale(policy: &PolicySection, algorithm: &AlgorithmConfig) -> Result<(), ConfigError> {
    let step = policy.value_statistics_step;
    check(
        "policy.value_statistics_step",
        &step,
        step > 0.0 && step <= 1.0,
        "must lie above 0 and be at most 1",
    )?;
    let (min, max) = (policy.min_value_deviation, policy.max_value_deviation);
    positive("policy.min_value_deviation", min.into())?;
    check(
        "policy.max_value_deviation",
        &max,
        max.is_finite() && max >= min,
        "must be finite and not below policy.min_value_deviation",
    )?;
    let learns_values = match algorithm {
        AlgorithmConfig::Sac(_) => false,
        AlgorithmConfig::Reinforce(reinforce) => reinforce.baseline,
        _ => true,
    };
    check(
        "policy.normalize_values",
        &policy.normalize_values,
        learns_values || !policy.normalize_values,
        "must be false with sac and with reinforce without a baseline, where no value estimate is fitted to returns",
    )
}

/// What the policy sees of the environment, and what is said to Gymnasium.
fn check_environment(environment: &EnvironmentSection) -> Result<(), ConfigError> {
    check(
        "environment.frame_stack",
        &environment.frame_stack,
        (1..=MAX_FRAME_STACK).contains(&environment.frame_stack),
        "must lie between 1 and 64",
    )?;
    positive("environment.start_timeout_seconds", environment.start_timeout_seconds)?;
    positive("environment.step_timeout_seconds", environment.step_timeout_seconds)?;
    at_least_1("environment.max_failures", environment.max_failures as usize)?;
    if let Some(wrapper) = environment.wrappers.iter().find(|wrapper| !wrapper.is_named_well()) {
        check(
            "environment.wrappers",
            &format!("{:?}", wrapper.name),
            false,
            "must name each as module:Class, say \"gymnasium.wrappers:FlattenObservation\"",
        )?;
    }
    let atari = &environment.atari;
    at_least_1("environment.atari.frame_skip", atari.frame_skip as usize)?;
    at_least_1("environment.atari.screen_size", atari.screen_size as usize)?;
    fraction("environment.atari.sticky_actions", atari.sticky_actions)
}

/// What a learner can be held to.
fn check_limits(limits: &LimitsSection) -> Result<(), ConfigError> {
    check(
        "limits.message_bytes",
        &limits.message_bytes,
        (1 << 16..=1 << 30).contains(&limits.message_bytes),
        "must lie between 65536 and 1073741824",
    )?;
    check(
        "limits.connections",
        &limits.connections,
        (2..=1 << 20).contains(&limits.connections),
        "must lie between 2, which one actor has, and 1048576",
    )?;
    at_least_1("limits.joins_per_second", limits.joins_per_second as usize)?;
    at_least_1("limits.unrolls_in_flight", limits.unrolls_in_flight)
}

/// Sizes of the encoder's layers.
fn check_sizes(policy: &PolicySection) -> Result<(), ConfigError> {
    for (key, sizes) in [
        ("policy.channels", &policy.channels),
        ("policy.kernels", &policy.kernels),
        ("policy.strides", &policy.strides),
        ("policy.hidden", &policy.hidden),
    ] {
        let positive = |sizes: &Vec<usize>| sizes.iter().all(|size| (1..=MAX_SIZE).contains(size));
        let some = key == "policy.hidden" || *sizes != Sizes::These(vec![]);
        let fits = some && matches!(sizes, Sizes::These(sizes) if positive(sizes));
        let requirement = match key {
            "policy.hidden" => "must hold widths between 1 and 65536",
            _ => "must hold a size between 1 and 65536 for each layer, of which there is at least one",
        };
        check(key, sizes, fits || *sizes == Sizes::Auto, requirement)?;
    }
    Ok(())
}

/// The bounds of a head that gives standard deviations.
fn check_log_std_bounds(policy: &PolicySection) -> Result<(), ConfigError> {
    let (min, max) = (policy.min_log_std, policy.max_log_std);
    check("policy.min_log_std", &min, (-20.0..=5.0).contains(&min), "must lie between -20 and 5")?;
    check(
        "policy.max_log_std",
        &max,
        max > min && max <= 5.0,
        "must lie above policy.min_log_std and be at most 5",
    )?;
    check(
        "policy.initial_log_std",
        &policy.initial_log_std,
        policy.log_std == LogStd::Free || (min..=max).contains(&policy.initial_log_std),
        "must lie between policy.min_log_std and policy.max_log_std where policy.log_std is \"state\"",
    )
}

fn read_file(path: &Path) -> Result<Table, ConfigError> {
    let name = path.display().to_string();
    let text =
        std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: name.clone(), source })?;
    text.parse().map_err(|e: toml::de::Error| ConfigError::Syntax { path: name, message: e.to_string() })
}

/// Defaults in the light of the algorithm that `layer` chooses.
fn defaults(layer: &Table) -> Result<Table, ConfigError> {
    let algorithm = match layer.get("algorithm").and_then(|section| section.get("name")) {
        None => AlgorithmConfig::default(),
        Some(name) => name.as_str().and_then(AlgorithmConfig::by_name).ok_or_else(|| {
            ConfigError::Value(format!(
                "algorithm.name is {name}, must be one of: {}",
                AlgorithmConfig::NAMES.join(", ")
            ))
        })?,
    };
    let config = RunConfig::with_algorithm(algorithm);
    let mut table = Table::try_from(config).map_err(|e| ConfigError::Value(e.to_string()))?;
    let id = layer.get("environment").and_then(|section| section.get("id"));
    if id.and_then(Value::as_str).is_some_and(is_atari) {
        adapt_to_atari(&mut table);
    }
    Ok(table)
}

/// A frame does not show how things move: the policy sees four. Scores differ by orders of magnitude between games: what is
/// learned from is clipped to the sign of a reward (Mnih et al. 2015).
fn adapt_to_atari(defaults: &mut Table) {
    if let Some(stack) = defaults.get_mut("environment").and_then(|section| section.get_mut("frame_stack")) {
        *stack = Value::Integer(4);
    }
    if let Some(algorithm) = defaults.get_mut("algorithm").and_then(Value::as_table_mut) {
        for key in ["reward_scale", "reward_clip"] {
            if let Some(value) = algorithm.get_mut(key) {
                *value = Value::Float(1.0);
            }
        }
    }
}

fn set_flags(layer: &mut Table, flags: &RunFlags) -> Result<(), ConfigError> {
    let integer = |key: &str, value: u64| {
        i64::try_from(value)
            .map(Value::Integer)
            .map_err(|_| ConfigError::Value(format!("{key} {value} is too large")))
    };
    let mut put = |key: &str, value: Value| put(layer, key, value);
    if let Some(id) = &flags.env {
        put("environment.id", id.as_str().into())?;
    }
    if let Some(name) = &flags.algorithm {
        put("algorithm.name", name.as_str().into())?;
    }
    if let Some(n) = flags.envs_per_actor {
        put("rollout.envs_per_actor", integer("--envs-per-actor", n as u64)?)?;
    }
    if let Some(seed) = flags.seed {
        put("run.seed", integer("--seed", seed)?)?;
    }
    if let Some(steps) = flags.steps {
        put("run.steps", integer("--steps", steps)?)?;
    }
    if let Some(what) = &flags.record_arrivals {
        put("report.record_arrivals", what.as_str().into())?;
    }
    if let Some(until) = flags.until_return {
        put("run.until_return", Value::try_from(until).map_err(|e| ConfigError::Value(e.to_string()))?)?;
    }
    Ok(())
}

/// Applies `section.key=value`; the value is read as TOML, and as a plain string where it is none.
fn set(layer: &mut Table, assignment: &str) -> Result<(), ConfigError> {
    let malformed = || ConfigError::Assignment(assignment.into());
    let (key, text) = assignment.split_once('=').ok_or_else(malformed)?;
    let (key, text) = (key.trim(), text.trim());
    if key.is_empty() || key.split('.').any(str::is_empty) || text.is_empty() {
        return Err(malformed());
    }
    let value = format!("value = {text}")
        .parse::<Table>()
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.into()));
    put(layer, key, value)
}

fn put(layer: &mut Table, key: &str, value: Value) -> Result<(), ConfigError> {
    let (sections, name) = key.rsplit_once('.').map_or((None, key), |(s, n)| (Some(s), n));
    let mut table = layer;
    for section in sections.into_iter().flat_map(|s| s.split('.')) {
        table = table
            .entry(section)
            .or_insert_with(|| Value::Table(Table::new()))
            .as_table_mut()
            .ok_or_else(|| ConfigError::Value(format!("{section} in {key} is a value, not a section")))?;
    }
    table.insert(name.into(), value);
    Ok(())
}

/// Lays `layer` over `table`; only keys that `table` has are known.
fn merge(table: &mut Table, layer: Table, prefix: &str) -> Result<(), ConfigError> {
    for (key, value) in layer {
        let path = format!("{prefix}{key}");
        let known = table.keys().cloned().collect::<Vec<_>>().join(", ");
        match (table.get_mut(&key), value) {
            (None, _) => {
                return Err(ConfigError::Value(format!("unknown key {path}; known here: {known}")));
            }
            // Its keys are the environment's business.
            (Some(Value::Table(inner)), Value::Table(layer)) if path == "environment.kwargs" => {
                inner.extend(layer)
            }
            (Some(Value::Table(inner)), Value::Table(layer)) => merge(inner, layer, &format!("{path}."))?,
            (Some(Value::Table(_)), value) => {
                return Err(ConfigError::Value(format!("{path} is a section, not {value}")));
            }
            (Some(slot), value) => *slot = value.clone().conform(slot, &path)?,
        }
    }
    Ok(())
}

/// Keys whose values are words or something else.
const EITHER: [&str; 6] = [
    "run.until_return",
    "learner.max_policy_lag",
    "policy.channels",
    "policy.kernels",
    "policy.strides",
    "policy.hidden",
];

/// Refuses a value of another type than the default's, naming the key, which serde's errors do not.
trait Conform: Sized {
    fn conform(self, default: &Self, path: &str) -> Result<Self, ConfigError>;
}

impl Conform for Value {
    fn conform(self, default: &Self, path: &str) -> Result<Self, ConfigError> {
        let either = EITHER.contains(&path);
        match (default, self) {
            (Self::Float(_), Self::Integer(value)) => Ok(Self::Float(value as f64)),
            (default, value) if either || default.same_type(&value) => Ok(value),
            (default, value) => Err(ConfigError::Value(format!(
                "{path} is {value}, expected {} such as {default}",
                with_article(default.type_str())
            ))),
        }
    }
}

fn with_article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}

fn message(error: &toml::de::Error) -> String {
    error.to_string().trim().replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{PolicyLagBound, UntilReturnWord, Wrapper};

    fn with(assignments: &[&str]) -> Result<RunConfig, ConfigError> {
        let set = assignments.iter().map(|s| s.to_string()).collect();
        RunConfig::from_flags(&RunFlags { set, ..RunFlags::default() })
    }

    #[test]
    fn defaults_are_valid_and_survive_toml_and_json() {
        let config = with(&[]).unwrap();
        assert_eq!(RunConfig::from_toml(&config.to_toml().unwrap()).unwrap(), config);
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<RunConfig>(&json).unwrap(), config);
    }

    #[test]
    fn later_layers_win() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "[run]\nseed = 3\nsteps = 10\n[algorithm]\nname = \"impala\"\ngamma = 0.9\n",
        )
        .unwrap();
        let config = RunConfig::from_flags(&RunFlags {
            config: Some(file.path().into()),
            seed: Some(4),
            set: vec!["algorithm.gamma=1".into(), "learner.max_policy_lag=unlimited".into()],
            until_return: Some(UntilReturn::Never),
            ..RunFlags::default()
        })
        .unwrap();
        assert_eq!((config.run.seed, config.run.steps), (4, 10));
        let AlgorithmConfig::Impala(impala) = &config.algorithm else { panic!("{:?}", config.algorithm) };
        assert_eq!(impala.gamma, 1.0);
        assert_eq!(config.learner.max_policy_lag, PolicyLagBound(None));
        assert_eq!(config.run.until_return, UntilReturn::Word(UntilReturnWord::Never));
    }

    #[test]
    fn sizes_are_lists_or_left_to_the_encoder() {
        assert_eq!(with(&[]).unwrap().policy.hidden, Sizes::Auto);
        assert_eq!(with(&["policy.hidden=[]"]).unwrap().policy.hidden, Sizes::These(vec![]));
        let sac = ["algorithm.name=sac", "policy.hidden=auto"];
        assert_eq!(with(&sac[..1]).unwrap().policy.hidden, Sizes::These(vec![256, 256]));
        assert_eq!(with(&sac).unwrap().policy.hidden, Sizes::Auto);
        let config = with(&["policy.kernels=[8, 4]"]).unwrap();
        assert_eq!(RunConfig::from_toml(&config.to_toml().unwrap()).unwrap(), config);
    }

    #[test]
    fn wrappers_are_names_or_names_with_arguments() {
        let scaled = r#"{ name = "my:Scaled", kwargs = { by = 2.0, only = ["a"] } }"#;
        let config = with(&[&format!(r#"environment.wrappers=["my:Plain", {scaled}]"#)]).unwrap();
        let [plain, scaled] = config.environment.wrappers.as_slice() else { panic!("{config:?}") };
        assert_eq!(plain, &Wrapper::from("my:Plain"));
        assert_eq!((scaled.name.as_str(), &scaled.kwargs["by"]), ("my:Scaled", &Value::Float(2.0)));
        assert_eq!(RunConfig::from_toml(&config.to_toml().unwrap()).unwrap(), config);
        let json = serde_json::to_value(&config.environment.wrappers).unwrap();
        let expected =
            serde_json::json!(["my:Plain", { "name": "my:Scaled", "kwargs": { "by": 2.0, "only": ["a"] } }]);
        assert_eq!(json, expected);
        let bare = with(&[r#"environment.wrappers=[{ name = "my:Plain" }]"#]).unwrap();
        assert_eq!(bare.environment.wrappers, [Wrapper::from("my:Plain")]);
        let refused =
            |wrappers: &str| with(&[&format!("environment.wrappers={wrappers}")]).unwrap_err().to_string();
        assert!(refused(r#"["Plain"]"#).contains("must name each as module:Class"));
        let said = refused(r#"[{ name = "my:Plain", arguments = { by = 2 } }]"#);
        assert!(said.contains("{ name = \"module:Class\", kwargs ="), "{said}");
    }

    #[test]
    fn mistakes_are_answered_with_what_and_where() {
        let says = |assignments: &[&str], expected: &str| {
            let error = with(assignments).unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} does not say {expected:?}");
        };
        says(&["optimizer.lerning_rate=1"], "unknown key optimizer.lerning_rate; known here:");
        says(&["optimizer.learning_rate=fast"], "optimizer.learning_rate is \"fast\", expected a float");
        says(&["algorithm.name=dreamer"], "must be one of: impala");
        says(&["run.steps=0"], "run.steps is 0, must be at least 1");
        says(&["learner.max_policy_lag=-1"], "max_policy_lag");
        says(&["learner.max_policy_lag=1001"], "must be at most 1000, or \"unlimited\"");
        says(&["algorithm.gamma=1.5"], "algorithm.gamma is 1.5, must lie between 0 and 1");
        says(&["rollout.workers_per_actor=3"], "must divide rollout.envs_per_actor");
        says(&["policy.hidden=[0]"], "policy.hidden is [0], must hold widths between 1 and 65536");
        says(&["policy.hidden=wide"], "a list of sizes such as [64, 64], or \"auto\"");
        says(&["policy.channels=[]"], "of which there is at least one");
        says(&["policy.encoder=cnn"], "encoder");
        says(&["policy.max_log_std=-20"], "must lie above policy.min_log_std");
        says(&["policy.log_std=state", "policy.initial_log_std=3"], "must lie between policy.min_log_std");
        says(&["policy.value_statistics_step=0"], "must lie above 0 and be at most 1");
        says(
            &["policy.max_value_deviation=0.00001"],
            "must be finite and not below policy.min_value_deviation",
        );
        let sac = ["algorithm.name=sac", "policy.normalize_values=true"];
        says(&sac, "policy.normalize_values is true, must be false with sac");
        let no_baseline =
            ["algorithm.name=reinforce", "algorithm.baseline=false", "policy.normalize_values=true"];
        says(&no_baseline, "reinforce without a baseline");
        says(&["algorithm.final_entropy_cost=-1"], "algorithm.final_entropy_cost is -1, must be 0 or more");
        says(&["limits.message_bytes=1"], "limits.message_bytes is 1, must lie between 65536");
        says(&["limits.connections=1"], "limits.connections is 1, must lie between 2");
        says(&["limits.joins_per_second=0"], "limits.joins_per_second is 0, must be at least 1");
        says(&["limits.unrolls_in_flight=0"], "limits.unrolls_in_flight is 0, must be at least 1");
        let crowd = ["limits.connections=5", "learner.wait_for_actors=3"];
        says(&crowd, "limits.connections is 5, must be at least twice learner.wait_for_actors");
        with(&["limits.connections=6", "learner.wait_for_actors=3"]).unwrap();
        says(&["nonsense"], "not of the form");
        says(&["policy=3"], "policy is a section");
    }
}
