//! `impresario eval`: play episodes with a trained policy, print what came of them, and record it on request.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, bail};
use impresario_actor::counters::Counters;
use impresario_actor::env::gymnasium::interpreter::PythonFlag;
use impresario_actor::env::registry::Registry;
use impresario_actor::env::source::{Environments, Source};
use impresario_actor::rollout::{ActionChoice, Sampler};
use impresario_common::policy::{Policy, PolicySpec};
use impresario_common::process::{self, Usage};
use impresario_common::random::{Purpose, stream};
use impresario_common::unroll::{Unroll, UnrollLayout};
use impresario_learner::checkpoint::{self, Checkpoint};
use impresario_learner::report::RunDir;

use crate::evaluation::{Evaluation, Played};
use crate::film::Film;
use crate::judgement::Judgement;

/// Steps between two looks at whether the episode is over.
const UNROLL_LENGTH: usize = 16;

/// Flags of `impresario eval`.
#[derive(Debug, clap::Args)]
pub(crate) struct EvalCommand {
    /// Run directory, as `train` or `learner` wrote it; its newest valid checkpoint is used
    #[arg(value_name = "RUN_DIR")]
    run_dir: PathBuf,

    /// Evaluate every checkpoint of the run, oldest first; report.checkpoint_steps says how many there are
    #[arg(long)]
    all: bool,

    /// Write the outcome to evaluations.jsonl in the run directory, where `plot` finds it; one that is there is replaced
    #[arg(long)]
    record: bool,

    /// Episodes to play with each checkpoint
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    episodes: u32,

    /// Seed of the episodes
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,

    /// Take the most likely action instead of sampling
    #[arg(long)]
    greedy: bool,

    /// Film the first episode, if the environment draws itself: an animated GIF
    #[arg(long, value_name = "FILE", conflicts_with = "all")]
    gif: Option<PathBuf>,

    #[command(flatten)]
    python: PythonFlag,
}

impl EvalCommand {
    /// Plays the episodes and prints a summary; of a single checkpoint a line for each episode as well.
    pub(crate) fn run(self, registry: Registry) -> anyhow::Result<ExitCode> {
        process::limit_threads(1);
        let checkpoints = self.checkpoints(&self.run_dir.join("checkpoints"))?;
        // All of them are of one run.
        let section = &checkpoint::load(&checkpoints[0])?.config.environment;
        let source = Environments::new(registry, &self.python).find(section)?;
        let mut records = String::new();
        for path in &checkpoints {
            let evaluation = self.evaluate(&source, path, &checkpoint::load(path)?)?;
            if !self.all {
                for (number, episode) in evaluation.episodes.iter().enumerate() {
                    println!(
                        "episode {:>3}: return {:>10.3}, {} steps",
                        number + 1,
                        episode.total,
                        episode.steps
                    );
                }
            }
            println!("{}", evaluation.summary());
            if let Some(gif) = &self.gif {
                println!("wrote {} of the first episode", gif.display());
            }
            records += &format!("{}\n", evaluation.record());
        }
        if self.record {
            RunDir::open(&self.run_dir)?.write_evaluations(&records)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The checkpoints to evaluate, at least one.
    fn checkpoints(&self, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
        let unreadable = || format!("cannot read the checkpoints of {}", self.run_dir.display());
        let found = match self.all {
            true => checkpoint::paths(folder).with_context(unreadable)?,
            false => checkpoint::latest(folder)
                .with_context(unreadable)?
                .into_iter()
                .map(|(path, _)| path)
                .collect(),
        };
        if found.is_empty() {
            bail!(
                "{} holds no valid checkpoint: is it the run directory of a run that has written one?",
                self.run_dir.display()
            );
        }
        Ok(found)
    }

    /// Plays the episodes with one checkpoint.
    fn evaluate<'a>(
        &self,
        source: &'a Source,
        path: &Path,
        checkpoint: &Checkpoint,
    ) -> anyhow::Result<Evaluation<'a>> {
        let environment = &checkpoint.environment;
        let spec = PolicySpec::of_run(&checkpoint.config, environment)?;
        let policy = Policy::new(&spec, &checkpoint.weights)
            .and_then(Policy::packed)
            .with_context(|| format!("{} does not fit its own configuration", path.display()))?;
        let layout = UnrollLayout::of_run(&checkpoint.config, UNROLL_LENGTH, environment, &spec);
        let choice = if self.greedy { ActionChoice::Greedy } else { ActionChoice::Sampled };
        let mut judgement = Judgement::new(source.measure());
        let players = source.players() as u32;
        let mut episodes = vec![];
        for number in 0..self.episodes {
            let dynamics = (0..players).map(|i| stream(self.seed, Purpose::Evaluation, [number, i, 0]));
            // A path that no actor has: evaluation never repeats the draws of training.
            let actions =
                (0..players).map(|i| stream(self.seed, Purpose::Actions, [number, u32::MAX, u32::MAX - i]));
            let vector = source.make_vector(dynamics.collect())?;
            if let Some(mismatch) = environment.mismatch("in the run", vector.spec(), "here") {
                bail!("{mismatch}: evaluate with the version of the environment that the run had");
            }
            let distribution = spec.distribution().clone();
            let mut sampler = Sampler::new(vector, distribution, &layout, actions.collect(), choice)?;
            if judgement.needs_parameters() {
                sampler.keep_parameters();
            }
            let film = self.gif.as_deref().filter(|_| number == 0).map(Film::new);
            if film.is_some() {
                sampler.film().map_err(|e| Usage(format!("--gif: {e}")))?;
            }
            let (played, parameters) = play(&mut sampler, &policy, &layout, film)?;
            judgement.episode(played.total, &parameters, spec.distribution().parameter_count());
            episodes.push(played);
        }
        Ok(Evaluation {
            environment: environment.id.clone(),
            env_steps: checkpoint.env_steps,
            seconds: checkpoint.totals.seconds,
            policy_version: checkpoint.policy_version,
            greedy: self.greedy,
            episodes,
            judgement,
        })
    }
}

/// Plays one episode in a copy of its own. Where copies play one another it is one game, and the return that of the
/// first player. With it come the parameters of the distributions that actions were chosen by, `[steps, copies, P]`, if
/// the sampler keeps them. A film has a picture of the first state and of that after each step.
fn play(
    sampler: &mut Sampler,
    policy: &Policy,
    layout: &UnrollLayout,
    mut film: Option<Film>,
) -> anyhow::Result<(Played, Vec<f32>)> {
    let (counters, stop) = (Counters::default(), AtomicBool::new(false));
    let mut unroll = Unroll::zeros(layout, sampler.copies());
    let (mut parameters, mut rows) = (vec![], 0);
    loop {
        sampler.fill(policy, &mut unroll, &counters, &stop)?;
        rows += layout.length;
        parameters.extend_from_slice(sampler.parameters());
        if let (Some(&total), Some(&steps)) = (unroll.episode_returns.first(), unroll.episode_lengths.first())
        {
            // The last unroll went on after the end.
            parameters.truncate(parameters.len() / rows * steps as usize);
            if let Some(mut film) = film {
                // Pictures of the next episode follow.
                let left = u64::from(steps) + 1 - film.pictures();
                sampler.take_pictures().into_iter().take(left as usize).try_for_each(|p| film.add(p))?;
                film.finish()?;
            }
            return Ok((Played { total: total.into(), steps }, parameters));
        }
        if let Some(film) = &mut film {
            sampler.take_pictures().into_iter().try_for_each(|p| film.add(p))?;
        }
    }
}
