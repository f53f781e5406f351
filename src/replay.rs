//! `impresario replay`: makes the weights of a run with arrivals on record again, without any actor.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use impresario_common::{kernels, process};
use impresario_learner::arrivals::replay::{self, Replay, Replayed};
use impresario_learner::arrivals::{self, hex};
use impresario_learner::checkpoint;

/// Flags of `impresario replay`.
#[derive(Debug, clap::Args)]
pub(crate) struct ReplayCommand {
    /// Directory of a run that was trained with --record-arrivals=content
    #[arg(value_name = "RUN_DIR")]
    run_dir: PathBuf,

    /// Which life of the run, where it was resumed; otherwise all of them, one after the other
    #[arg(long, value_name = "N")]
    life: Option<u64>,
}

impl ReplayCommand {
    /// Replays the lives and says what came out. Call it before any thread is started.
    ///
    /// # Errors
    /// If there is nothing on record, the records cannot be used, or other weights come out than are on record.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let lives = match self.life {
            Some(life) => vec![life],
            None => replay::lives(&self.run_dir)?,
        };
        for (index, life) in lives.into_iter().enumerate() {
            let (_, config) = replay::beginning(&arrivals::records_path(&self.run_dir, life))?;
            let threads = config.learner.threads_in_force();
            if index == 0 {
                // Afterwards there are threads.
                process::limit_threads(threads);
            }
            kernels::set_threads(threads);
            let begun = Instant::now();
            let mut replay = Replay::open(&self.run_dir, life)?;
            let ended = loop {
                match replay.next_update() {
                    Ok(true) => {}
                    Ok(false) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            // What came before the trouble tells as much.
            report(replay.so_far(), begun);
            ended?;
            if !replay.so_far().ended {
                println!(
                    "life {life}: the records are incomplete: they end here without the end of the life, since the learner was killed \
                     or could not write on; what it trained on afterwards is not on record"
                );
            }
            compare(&self.run_dir, replay.so_far())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn report(replayed: &Replayed, begun: Instant) {
    println!(
        "life {}: {} updates on {} unrolls in {:.1} s, each with the weights on record; version {} after {} environment steps, \
         weights {}",
        replayed.life,
        replayed.updates,
        replayed.arrivals,
        begun.elapsed().as_secs_f64(),
        replayed.policy_version,
        replayed.env_steps,
        hex(&replayed.weights)
    );
}

/// Compares with the run's own checkpoint of that step, if it has one.
fn compare(run_dir: &Path, replayed: &Replayed) -> anyhow::Result<()> {
    let folder = run_dir.join("checkpoints");
    for path in checkpoint::paths(&folder)? {
        let Ok(checkpoint) = checkpoint::load(&path) else { continue };
        if (checkpoint.policy_version, checkpoint.env_steps) != (replayed.policy_version, replayed.env_steps)
        {
            continue;
        }
        let same = hash_of(&checkpoint)? == replayed.weights;
        let file = path.display();
        if same {
            println!("{file} holds the same weights");
        } else {
            println!("{file} holds other weights, of another life of the run");
        }
    }
    Ok(())
}

/// The hash of a checkpoint's weights, in the order of the policy's parameters.
fn hash_of(checkpoint: &checkpoint::Checkpoint) -> anyhow::Result<Vec<u8>> {
    let mut trainer = impresario_learner::trainer::Trainer::new(&checkpoint.config, &checkpoint.environment)?;
    trainer.restore(checkpoint)?;
    Ok(arrivals::weights_hash(&trainer.snapshot()?.weights)?)
}
