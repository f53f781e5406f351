//! `check-env` finds nothing wrong with the environments of this house.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/python.rs"]
mod python;
mod support;

use support::{Ended, run};

/// Checks an environment of Gymnasium's, for a short time.
fn check(args: &[&str]) -> Ended {
    let python = python::interpreter().to_str().unwrap();
    run(&[&["check-env", "--python", python, "--steps", "200", "--seconds", "0"], args].concat())
}

#[test]
fn every_native_environment_is_fit_for_training() {
    let listed = run(&["envs", "--python", "/none/is/needed"]);
    assert_eq!(listed.code(), 0, "{}", listed.stderr);
    let native = listed.stdout.split("\n\n").next().unwrap();
    let ids: Vec<&str> = native.lines().skip(1).filter_map(|line| line.split(' ').next()).collect();
    assert!(ids.contains(&"CartPole-v1") && ids.contains(&"MinAtar/Seaquest-v0"), "{ids:?}");
    for id in ids {
        let ended = run(&["check-env", id, "--steps", "600", "--seconds", "0"]);
        assert_eq!(ended.code(), 0, "{}{}", ended.stdout, ended.stderr);
        assert!(ended.stdout.ends_with("verdict: fit for training\n"), "{}", ended.stdout);
    }
}

#[test]
fn masks_and_players_are_seen_to() {
    let ended = run(&["check-env", "TicTacToe-v0", "--seconds", "0"]);
    assert!(ended.stdout.contains("  ok    masks"), "{}", ended.stdout);
    let ended = run(&["check-env", "RockPaperScissorsSelfPlay-v0", "--seconds", "0"]);
    assert!(ended.stdout.contains("1000 in each of 8 copies"), "{}", ended.stdout);
}

#[test]
fn an_environment_of_gymnasium_is_fit_and_the_cost_of_the_bridge_is_told() {
    let ended = check(&["gym:CartPole-v1"]);
    assert_eq!(ended.code(), 0, "{}{}", ended.stdout, ended.stderr);
    let speed = ended.stdout.lines().find(|line| line.contains("  speed ")).unwrap();
    for expected in [
        "steps a second with 16 copies in a Python process; alone, in a plain loop there, ",
        ": the bridge adds ",
        " microseconds a step (",
        " %)",
    ] {
        assert!(speed.contains(expected), "{speed}");
    }
    assert!(ended.stdout.ends_with("verdict: fit for training\n"), "{}", ended.stdout);
}

#[test]
fn an_environment_is_checked_as_a_run_is_configured() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.toml");
    let text = "[environment]\nid = \"gym:Pendulum-v1\"\nframe_stack = 3\nmax_episode_steps = 50\n\
                [[environment.wrappers]]\nname = \"gymnasium.wrappers:RescaleAction\"\n\
                kwargs = { min_action = -1.0, max_action = 1.0 }\n";
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let ended = check(&["--config", file, "--set", "environment.kwargs.g=1.0"]);
    assert_eq!(ended.code(), 0, "{}{}", ended.stdout, ended.stderr);
    let (head, _) = ended.stdout.split_once("  ok ").unwrap();
    assert!(head.contains("gym:Pendulum-v1") && head.contains("-> Box(-1..1, [1], f32)"), "{head}");
    assert!(head.contains("the policy sees 3 of these at once: Box(-8..8, [3, 3], f32)"), "{head}");
    assert!(ended.stdout.contains("episodes of at most 50 steps"), "{}", ended.stdout);
    let ended = check(&["--config", file, "--set", "environment.kwargs.gravity=1.0"]);
    assert_eq!(ended.code(), 64, "{}", ended.stdout);
    assert!(ended.stderr.contains("unexpected keyword argument 'gravity'"), "{}", ended.stderr);
    let ended = check(&["CartPole-v1", "--set", "environment.kwargs.gravity=1.0"]);
    assert!(ended.stderr.contains("takes no environment.kwargs; gym:CartPole-v1"), "{}", ended.stderr);
}
