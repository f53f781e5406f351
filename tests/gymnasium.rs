//! Gymnasium's environments through the whole system: learner and actors of the real binary, and their Python workers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/python.rs"]
mod python;
mod support;

use std::path::Path;

use support::{
    assert_balanced, children, run, runs, start_actor, start_learner, summary, trained, wait_until,
};

const COUNTER: &str = "impresario_test_envs:impresario_test/Counter-v0";
const TROUBLE: &str = "impresario_test_envs:impresario_test/Trouble-v0";

fn interpreter() -> &'static str {
    python::interpreter().to_str().unwrap()
}

/// Trains for a number of steps, which must succeed; the summary.
fn train(run_dir: &Path, args: &[&str]) -> serde_json::Value {
    let fixed = ["train", "--python", interpreter(), "--run-dir", run_dir.to_str().unwrap(), "--seed", "1"];
    let ended = run(&[&fixed, args].concat());
    assert!([0, 3].contains(&ended.code()), "{}\n{}", ended.stdout, ended.stderr);
    let outcome = summary(run_dir);
    assert_balanced(&outcome);
    outcome
}

/// All copies of a rollout worker in one Python process, and none that is timed before the run: it matters here which step
/// fails.
const ONE_GROUP: [&str; 2] = ["--set", "rollout.double_buffering=off"];

#[test]
fn cartpole_of_gymnasium_is_learnt_like_the_native_one_and_can_be_evaluated() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let outcome =
        train(&run_dir, &["--env", "gym:CartPole-v1", "--steps", "400000", "--until-return", "150"]);
    assert_eq!(outcome["env"], "gym:CartPole-v1");
    assert_eq!(outcome["solved"], true, "a mean return of 150 within 400,000 steps: {outcome}");
    let ended = run(&["eval", run_dir.to_str().unwrap(), "--episodes", "2", "--python", interpreter()]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(ended.stdout.contains("over 2 episodes"), "{}", ended.stdout);
}

#[test]
fn the_example_package_is_learnt_in() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let task = ["--env", "greenhouse:Greenhouse-v0", "--actors", "1", "--until-return", "-60"];
    let outcome = train(&run_dir, &[&task[..], &["--steps", "1000000"]].concat());
    assert_eq!(outcome["solved"], true, "{outcome}");
}

#[test]
fn a_worker_that_fails_is_replaced_and_what_was_lost_is_in_the_books() {
    let folder = tempfile::tempdir().unwrap();
    let (run_dir, mark) = (folder.path().join("run"), folder.path().join("failed"));
    let mark = format!("environment.kwargs.mark={:?}", mark.display().to_string());
    let task = [
        "--env",
        TROUBLE,
        "--actors",
        "1",
        "--envs-per-actor",
        "4",
        "--steps",
        "2000",
        "--until-return",
        "never",
    ];
    let options =
        ["--set", "environment.kwargs.how=exit", "--set", "environment.kwargs.at=30", "--set", &mark];
    let outcome = train(&run_dir, &[&task[..], &options, &ONE_GROUP].concat());
    // The first unroll of 20 steps got through; in the second, 9 were taken by each of four copies.
    assert_eq!(outcome["accounting"]["dropped"]["environment_failure"], 36, "{outcome}");
}

#[test]
fn a_run_of_failures_stops_the_actor_with_the_cause() {
    let folder = tempfile::tempdir().unwrap();
    let options = ["--env", TROUBLE, "--set", "environment.kwargs.how=raise", "--envs-per-actor", "2"];
    let (_learner, url) = start_learner(folder.path(), &[&options[..], &ONE_GROUP].concat());
    let ended = start_actor(&url, &["--python", interpreter()]).end();
    assert_ne!(ended.code(), 0);
    for expected in [
        "failure 1 of at most 3 in a row",
        "3 failures in a row",
        "RuntimeError: the wheel came off",
        "about to fail",
    ] {
        assert!(ended.stderr.contains(expected), "no {expected:?} in:\n{}", ended.stderr);
    }
}

#[test]
fn an_environment_that_cannot_be_had_is_refused_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let ended = run(&[
        "train",
        "--env",
        "LunarLandr-v3",
        "--python",
        interpreter(),
        "--run-dir",
        run_dir.to_str().unwrap(),
    ]);
    assert_eq!(ended.code(), 64, "{}", ended.stderr);
    assert!(ended.stderr.contains("did you mean \"LunarLander-v3\"?"), "{}", ended.stderr);
    assert!(!run_dir.exists());
}

#[test]
fn workers_do_not_outlive_an_actor_that_is_killed_even_in_a_step_that_hangs() {
    for (id, options) in [
        (COUNTER, vec!["--until-return", "never", "--steps", "1000000000"]),
        (TROUBLE, vec!["--set", "environment.kwargs.how=hang", "--set", "environment.kwargs.at=25"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let often = ["--env", id, "--set", "report.interval_seconds=0.1", "--set", "learner.batch_size=2"];
        let (mut learner, url) = start_learner(
            folder.path(),
            &[&often[..], &["--envs-per-actor", "2"], &options, &ONE_GROUP].concat(),
        );
        let actor = start_actor(&url, &["--python", interpreter()]);
        // Of the one that hangs, only the first unroll arrives.
        trained(&mut learner, 40);
        let workers = children(actor.pid());
        assert_eq!(workers.len(), 1);
        actor.signal("KILL");
        wait_until("its worker ends", || !runs(workers[0]));
    }
}
