//! `impresario eval`: play episodes with a trained policy and print their returns.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, bail};
use impresario_actor::counters::Counters;
use impresario_actor::env::registry::Registry;
use impresario_actor::rollout::{ActionChoice, Sampler};
use impresario_common::policy::{Policy, PolicySpec};
use impresario_common::process::{self, Usage};
use impresario_common::random::{Purpose, stream};
use impresario_common::unroll::{Unroll, UnrollLayout};
use impresario_learner::checkpoint;

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

    /// Episodes to play
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    episodes: u32,

    /// Seed of the episodes
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,

    /// Take the most likely action instead of sampling
    #[arg(long)]
    greedy: bool,

    /// Film the first episode, if the environment draws itself: an animated GIF
    #[arg(long, value_name = "FILE")]
    gif: Option<PathBuf>,
}

impl EvalCommand {
    /// Plays the episodes and prints a line each and a summary.
    pub(crate) fn run(self, registry: &Registry) -> anyhow::Result<ExitCode> {
        process::limit_threads(1);
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
        let layout = UnrollLayout {
            core_state_len: spec.core_state_len(),
            ..UnrollLayout::new(UNROLL_LENGTH, environment)
        };
        let choice = if self.greedy { ActionChoice::Greedy } else { ActionChoice::Sampled };
        let mut judgement = Judgement::new(registry.measure(&environment.id)?);
        let players = registry.players(&environment.id)? as u32;
        let mut episodes = vec![];
        for number in 0..self.episodes {
            let dynamics = (0..players).map(|i| stream(self.seed, Purpose::Evaluation, [number, i, 0]));
            // A path that no actor has: evaluation never repeats the draws of training.
            let actions =
                (0..players).map(|i| stream(self.seed, Purpose::Actions, [number, u32::MAX, u32::MAX - i]));
            let vector = registry.make_vector(&environment.id, dynamics.collect())?;
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
            let episode = play(&mut sampler, &policy, &layout, film)?;
            judgement.episode(episode.total, &episode.parameters, spec.distribution().parameter_count());
            episodes.push(episode);
        }

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
        if let Some(summary) = judgement.summary() {
            println!("{summary}");
        }
        if let Some(gif) = &self.gif {
            println!("wrote {} of the first episode", gif.display());
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What became of one episode.
#[derive(Debug)]
struct Episode {
    total: f64,
    steps: u32,
    /// `[steps, copies, P]`: the parameters of the distributions that actions were chosen by, if they were kept.
    parameters: Vec<f32>,
}

/// Plays one episode in a copy of its own. Where copies play one another it is one game, and the return that of the
/// first player. A film has a picture of the first state and of that after each step.
fn play(
    sampler: &mut Sampler,
    policy: &Policy,
    layout: &UnrollLayout,
    mut film: Option<Film>,
) -> anyhow::Result<Episode> {
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
            return Ok(Episode { total: total.into(), steps, parameters });
        }
        if let Some(film) = &mut film {
            sampler.take_pictures().into_iter().try_for_each(|p| film.add(p))?;
        }
    }
}
