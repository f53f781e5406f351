//! The example does what it says: its environment is checked, trained in and played, by the program that knows it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

fn compass(args: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_compass")).args(args).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}\n{told}");
    output
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn an_environment_of_ones_own_is_listed_checked_trained_in_and_played() {
    assert!(text(&compass(&["envs"])).contains("Compass-v0"));
    let checked = text(&compass(&["check-env", "Compass-v0", "--seconds", "0"]));
    assert!(checked.contains("verdict: fit for training"), "{checked}");

    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let path = run_dir.to_str().unwrap();
    // Actors are processes of this program, too: any other would not know the environment.
    compass(&["train", "--env", "Compass-v0", "--seed", "1", "--actors", "1", "--run-dir", path]);
    let summary = std::fs::read_to_string(run_dir.join("summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(summary["solved"], true, "{summary}");
    let played = text(&compass(&["eval", path, "--episodes", "5", "--greedy"]));
    assert!(played.contains("Compass-v0, policy version"), "{played}");
}
