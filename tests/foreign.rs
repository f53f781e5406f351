//! An actor that is none of ours: a Python program with a client generated from the published contract.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/python.rs"]
mod python;
mod support;

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::{assert_balanced, start_actor, start_learner, summary};

/// Generates the client, and starts the actor.
fn start_foreign_actor(stubs: &Path, url: &str) -> std::thread::JoinHandle<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = |kind: &str| format!("--{kind}={}", stubs.display());
    let generate = ["-m", "grpc_tools.protoc", "--proto_path=proto", "impresario.proto"];
    let mut generator = Command::new(python::interpreter());
    generator.current_dir(root).args(generate).args([out("python_out"), out("grpc_python_out")]);
    python::run(&mut generator).unwrap();
    let mut actor = Command::new(python::interpreter());
    let address = url.trim_start_matches("http://");
    actor.arg(root.join("tests/python/foreign_actor.py")).arg(stubs).arg(address);
    std::thread::spawn(move || serde_json::from_str(&python::run(&mut actor).unwrap()).unwrap())
}

#[test]
fn a_python_client_alone_trains_in_lockstep_and_both_sides_agree_on_its_policy() {
    let folder = tempfile::tempdir().unwrap();
    let stubs = tempfile::tempdir().unwrap();
    let run =
        ["--algorithm", "a2c", "--until-return", "never", "--steps", "8000", "--set", "learner.batch_size=8"];
    let lockstep = ["--set", "learner.max_policy_lag=0", "--set", "report.curve_steps=800"];
    let (learner, url) = start_learner(folder.path(), &[&run[..], &lockstep].concat());
    let actor = start_foreign_actor(stubs.path(), &url);
    let ended = learner.end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let told = actor.join().unwrap();
    let outcome = summary(folder.path());
    assert_balanced(&outcome);
    assert_eq!(outcome["accounting"]["produced"], told["produced"], "both sides count the same");
    assert_eq!(outcome["policy_lag"]["max"], 0);
    let curve = std::fs::read_to_string(folder.path().join("curve.jsonl")).unwrap();
    let points: Vec<Value> = curve.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(points.len() >= 10, "{curve}");
    for point in points {
        // Its log-probabilities are the learner's own for the same weights, so every importance weight is 1.
        let rho = point["metrics"]["mean_rho"].as_f64().unwrap();
        assert!((rho - 1.0).abs() < 1e-4, "mean importance weight {rho}: {point}");
    }
}

#[test]
fn a_python_client_acts_beside_an_actor_of_ours() {
    let folder = tempfile::tempdir().unwrap();
    let stubs = tempfile::tempdir().unwrap();
    // A batch needs unrolls of both.
    let run = ["--until-return", "never", "--steps", "20000", "--set", "learner.batch_size=12"];
    let (learner, url) =
        start_learner(folder.path(), &[&run[..], &["--set", "learner.wait_for_actors=2"]].concat());
    let ours = start_actor(&url, &["--envs", "8"]);
    let foreign = start_foreign_actor(stubs.path(), &url);
    assert_eq!(learner.end().code(), 0);
    assert_eq!(ours.end().code(), 0);
    let told = foreign.join().unwrap();
    assert!(told["unrolls"].as_u64().unwrap() > 0, "{told}");
    assert_balanced(&summary(folder.path()));
}
