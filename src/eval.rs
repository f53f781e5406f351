//! `impresario eval`: play episodes with a trained policy and print their returns.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use candle_core::{Device, Tensor};
use impresario_actor::env::registry::Registry;
use impresario_actor::env::{Action, FinalObservations, ObservationMut, VectorEnvironment, VectorStep};
use impresario_common::kernels;
use impresario_common::policy::distribution::ActionMut;
use impresario_common::policy::{Policy, PolicySpec};
use impresario_common::random::{Purpose, Stream, stream};
use impresario_common::space::{ElementType, EnvironmentSpec};
use impresario_common::unroll::Array;
use impresario_learner::checkpoint;

/// Flags of `impresario eval`.
#[derive(Debug, clap::Args)]
pub(crate) struct EvalCommand {
    /// Run directory, as `train` or `learner` wrote it; its newest valid checkpoint is used
    #[arg(value_name = "RUN_DIR")]
    run_dir: PathBuf,

    /// Episodes to play
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    episodes: u32,

    /// Seed of the episodes
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,

    /// Take the most likely action instead of sampling
    #[arg(long)]
    greedy: bool,
}

impl EvalCommand {
    /// Plays the episodes, one a copy, and prints a line each and a summary.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        impresario_common::process::limit_threads(1);
        let checkpoint = checkpoint::latest(&self.run_dir.join("checkpoints"))
            .with_context(|| format!("cannot read the checkpoints of {}", self.run_dir.display()))?;
        let Some((path, checkpoint)) = checkpoint else {
            bail!(
                "{} holds no valid checkpoint: is it the run directory of a run that has written one?",
                self.run_dir.display()
            );
        };
        let environment = &checkpoint.environment;
        let spec = PolicySpec::new(environment, &checkpoint.config.policy)?;
        let policy = Policy::new(&spec, &checkpoint.weights)
            .with_context(|| format!("{} does not fit its own configuration", path.display()))?;
        let streams = |purpose| (0..self.episodes).map(move |copy| (purpose, copy));
        let make = |(purpose, copy)| stream(self.seed, purpose, [u32::MAX, 0, copy]);
        let environments: Vec<Stream> = streams(Purpose::Evaluation).map(make).collect();
        let mut actions: Vec<Stream> = streams(Purpose::Actions).map(make).collect();
        let mut vector = Registry::native().make_vector(&environment.id, environments)?;
        let episodes = play(vector.as_mut(), &policy, &spec, &mut actions, self.greedy)?;

        let mean = |f: &dyn Fn(&Episode) -> f64| episodes.iter().map(f).sum::<f64>() / episodes.len() as f64;
        let mean_return = mean(&|e| e.total);
        let deviation = mean(&|e| (e.total - mean_return).powi(2)).sqrt();
        for (number, episode) in episodes.iter().enumerate() {
            println!("episode {:>3}: return {:>10.3}, {} steps", number + 1, episode.total, episode.steps);
        }
        println!(
            "{}, policy version {} ({}): mean return {mean_return:.3} +- {deviation:.3} over {} episodes, mean length \
             {:.1}",
            environment.id,
            checkpoint.policy_version,
            if self.greedy { "greedy" } else { "sampled" },
            episodes.len(),
            mean(&|e| f64::from(e.steps)),
        );
        Ok(ExitCode::SUCCESS)
    }
}

/// What became of one episode.
#[derive(Debug, Clone, Copy, Default)]
struct Episode {
    total: f64,
    steps: u32,
    over: bool,
}

/// Takes final observations and forgets them: evaluation bootstraps nothing.
#[derive(Debug)]
struct Discard(Array);

impl FinalObservations for Discard {
    fn slot(&mut self, _copy: usize) -> ObservationMut<'_> {
        view(&mut self.0)
    }
}

fn view(array: &mut Array) -> ObservationMut<'_> {
    match array {
        Array::F32(values) => ObservationMut::F32(values),
        Array::U8(values) => ObservationMut::U8(values),
        Array::I32(_) => unreachable!("observation buffers are made of floats or bytes"),
    }
}

/// Plays the first episode of every copy to its end.
fn play(
    vector: &mut dyn VectorEnvironment,
    policy: &Policy,
    spec: &PolicySpec,
    streams: &mut [Stream],
    greedy: bool,
) -> anyhow::Result<Vec<Episode>> {
    let environment: EnvironmentSpec = vector.spec().clone();
    let copies = vector.copies();
    let distribution = spec.distribution();
    let observation = environment.observation.len();
    let mut observations = Array::zeros(environment.observation.dtype(), copies * observation);
    let mut discard = Discard(Array::zeros(environment.observation.dtype(), observation));
    let mut discrete = vec![0i32; copies * environment.action.len()];
    let mut continuous = vec![0f32; copies * environment.action.len()];
    let is_discrete = environment.action.dtype() == ElementType::I32;
    let (mut rewards, mut log_probs) = (vec![0.0; copies], vec![0.0; copies]);
    let (mut terminated, mut truncated) = (vec![0; copies], vec![0; copies]);
    let mut episodes = vec![Episode::default(); copies];
    let mut shape = vec![copies];
    shape.extend(environment.observation.shape());

    vector.reset(view(&mut observations))?;
    while episodes.iter().any(|episode| !episode.over) {
        let input = match &observations {
            Array::F32(values) => Tensor::from_slice(values, shape.as_slice(), &Device::Cpu)?,
            Array::U8(values) => Tensor::from_slice(values, shape.as_slice(), &Device::Cpu)?,
            Array::I32(_) => unreachable!("observation buffers are made of floats or bytes"),
        };
        let parameters = policy.distribution(&input)?;
        let actions = if is_discrete {
            ActionMut::Discrete(&mut discrete)
        } else {
            ActionMut::Continuous(&mut continuous)
        };
        kernels::with_slice(&parameters, |parameters| match greedy {
            true => distribution.mode_batch(parameters, actions),
            false => distribution.sample_batch(parameters, streams, actions, &mut log_probs),
        })?;
        let taken =
            if is_discrete { Action::Discrete(&discrete) } else { Action::Continuous(&continuous) };
        vector.step(
            taken,
            VectorStep {
                observations: view(&mut observations),
                rewards: &mut rewards,
                terminated: &mut terminated,
                truncated: &mut truncated,
                final_observations: &mut discard,
            },
        )?;
        for (copy, episode) in episodes.iter_mut().enumerate().filter(|(_, episode)| !episode.over) {
            episode.total += f64::from(rewards[copy]);
            episode.steps += 1;
            episode.over = terminated[copy] == 1 || truncated[copy] == 1;
        }
    }
    Ok(episodes)
}
