//! `impresario`: one command for one machine, as a library.
//!
//! A program with environments of its own registers them and hands over to [`main_with`]; it then is `impresario` with these
//! environments.
//!
//! # Layout
//!
//! * `train` starts a learner and its actors and trains until solved: `train`.
//! * `eval` plays episodes with a trained policy: `eval`.
//! * `plot` draws the learning curves of runs: `plot`.
//! * `replay` makes a recorded run's weights again: `replay`.
//! * `envs` lists environments: `envs`.
//! * `check-env` examines an environment: `check_env`.
//! * `health` asks a learner whether it serves: `health`.
//! * `learner` and `actor` are the two sides by themselves, the same as the binaries of these names.

mod check_env;
mod envs;
mod eval;
mod evaluation;
mod film;
mod health;
mod judgement;
mod plot;
mod replay;
mod train;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use impresario_actor::ActorCommand;
use impresario_actor::env::registry::Registry;
use impresario_common::process;
use impresario_learner::LearnerCommand;

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
    /// Make a recorded run's weights again, from its records alone
    Replay(replay::ReplayCommand),
    /// List the environments
    Envs(envs::EnvsCommand),
    /// Examine whether an environment is fit for training
    CheckEnv(check_env::CheckEnvCommand),
    /// Run a learner that actors connect to
    Learner(LearnerCommand),
    /// Run an actor for a learner
    Actor(ActorCommand),
    /// Ask a learner whether it serves: exit code 0 if so, 1 if not
    Health(health::HealthCommand),
}

/// The whole `main` of `impresario` with the environments of `registry`: reads the command line, does what it says, and
/// tells what to exit with. Call it before any thread is started.
pub fn main_with(registry: Registry) -> ExitCode {
    let cli = match process::parse::<Cli>() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    process::exit(match cli.command {
        Command::Train(command) => command.run(&registry),
        Command::Eval(command) => command.run(registry),
        Command::Plot(command) => command.run(&registry),
        Command::Replay(command) => command.run(),
        Command::Envs(command) => command.run(&registry),
        Command::CheckEnv(command) => command.run(&registry),
        Command::Learner(command) => command.run(|environment| registry.spec(&environment.id).ok().cloned()),
        Command::Actor(command) => command.run(registry),
        Command::Health(command) => command.run(),
    })
}
