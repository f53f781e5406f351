//! `check-env` finds nothing wrong with the environments of this house.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::run;

#[test]
fn every_native_environment_is_fit_for_training() {
    let listed = run(&["envs"]);
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
