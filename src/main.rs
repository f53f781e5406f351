//! `impresario`: one command for one machine.
//!
//! * `train` starts a learner and its actors and trains until solved: [`train`].
//! * `eval` plays episodes with a trained policy: [`eval`].
//! * `plot` draws the learning curves of runs: [`plot`].
//! * `envs` lists environments: [`envs`].
//! * `learner` and `actor` are the two sides by themselves, the same as the binaries of these names.

mod envs;
mod eval;
mod judgement;
mod plot;
mod train;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use impresario_actor::ActorCommand;
use impresario_actor::env::registry::Registry;
use impresario_common::process;
use impresario_learner::LearnerCommand;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Distributed asynchronous actor-learner reinforcement learning.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train with a learner and actors on this machine
    Train(train::TrainCommand),
    /// Play episodes with a trained policy
    Eval(eval::EvalCommand),
    /// Draw the learning curves of runs
    Plot(plot::PlotCommand),
    /// List the environments
    Envs,
    /// Run a learner that actors connect to
    Learner(LearnerCommand),
    /// Run an actor for a learner
    Actor(ActorCommand),
}

fn main() -> ExitCode {
    let cli = match process::parse::<Cli>() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    process::exit(match cli.command {
        Command::Train(command) => command.run(),
        Command::Eval(command) => command.run(),
        Command::Plot(command) => command.run(),
        Command::Envs => envs::run(),
        Command::Learner(command) => command.run(),
        Command::Actor(command) => command.run(Registry::native()),
    })
}
