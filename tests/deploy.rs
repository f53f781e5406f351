//! What is in deploy/: manifests against the schemas of Kubernetes, Compose files against Compose where it is installed, dashboards
//! against what a learner tells. tests/containers.rs runs it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/python.rs"]
mod python;
mod support;

use std::process::{Command, Stdio};

use impresario_learner::accounting::Accounting;
use impresario_learner::report::{Line, SystemView, expose};

/// A line of metrics.jsonl in which every number exists.
const LINE: &str = r#"{"unix_time":1.0,"seconds":1.0,"interval_seconds":1.0,"env_steps":1,"updates":1,"skipped_updates":0,
    "steps_per_second":1.0,"updates_per_second":1.0,"episodes":1,"mean_return_100":1.0,"mean_return":1.0,
    "mean_return_episodes":1,"mean_length":1.0,"metrics":{"entropy":1.0},
    "policy_lag":{"mean":1.0,"p50":1,"p99":1,"max":1},
    "actors":{"connected":1,"joined":1,"workers":1,"time":null},"learner":{"idle":0.5,"cores_busy":0.5},
    "queue":{"unrolls":1,"bytes":1,"capacity_bytes":1},
    "traffic":{"weights_bytes_per_second":1.0,"unroll_bytes_per_second":1.0},
    "accounting":{"produced":1,"trained":1,"dropped":{},"in_flight":0},
    "verdict":{"bottleneck":"learner","text":"learner-bound"}}"#;

#[test]
fn manifests_compose_files_and_dashboards_are_valid_and_keep_their_promises() {
    let line: Line = serde_json::from_str(LINE).unwrap();
    let dropped = [("actor_lost".to_owned(), 1)].into();
    let view =
        SystemView { accounting: Accounting { dropped, ..Accounting::default() }, ..SystemView::default() };
    let folder = tempfile::tempdir().unwrap();
    let metrics = folder.path().join("metrics.txt");
    std::fs::write(&metrics, expose(Some(&line), &view)).unwrap();
    let repository = python::repository();
    let mut check = Command::new(python::deploy_interpreter());
    check.arg(repository.join("tests/python/check_deploy.py")).args([&repository, &metrics]);
    python::run(&mut check).unwrap();
}

#[test]
fn kustomize_renders_the_manifests_with_the_token_and_the_run() {
    if !works(&["kubectl", "kustomize", "--help"]) {
        eprintln!("skipped: there is no kubectl");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("kubernetes");
    python::run(Command::new("cp").arg("-r").arg(python::repository().join("deploy/kubernetes")).arg(&copy))
        .unwrap();
    std::fs::write(copy.join("secrets/token"), "0123456789abcdef0123456789abcdef").unwrap();
    let rendered = python::run(Command::new("kubectl").arg("kustomize").arg(&copy)).unwrap();
    // Names with a hash of what they hold, so that a change rolls the pods.
    for expected in
        ["secretName: impresario-token-", "name: impresario-run-", "image: registry.example/impresario:"]
    {
        assert!(rendered.contains(expected), "{expected} is not in\n{rendered}");
    }
    assert_eq!(rendered.matches("\nkind: ").count(), 10, "{rendered}");
}

#[test]
fn a_learner_that_is_started_again_goes_on_with_its_run() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let mut trained = 0;
    for steps in ["20000", "40000"] {
        let flags = ["--resume-or-start", "--until-return", "never", "--steps", steps];
        let (learner, url) = support::start_learner(&run_dir, &flags);
        let actor = support::start_actor(&url, &[]);
        for process in [actor, learner] {
            let ended = process.end();
            assert_eq!(ended.code(), 0, "{}", ended.stderr);
        }
        let outcome = support::summary(&run_dir);
        support::assert_balanced(&outcome);
        assert!(outcome["env_steps"].as_u64().unwrap() >= steps.parse().unwrap());
        let metrics = std::fs::read_to_string(run_dir.join("metrics.jsonl")).unwrap();
        let line: Line = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
        assert!(line.env_steps > trained, "{line:?}");
        trained = line.env_steps;
    }
}

/// Whether a command is there and does not mind.
fn works(command: &[&str]) -> bool {
    let mut trying = Command::new(command[0]);
    trying.args(&command[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    trying.status().is_ok_and(|status| status.success())
}

#[test]
fn compose_and_swarm_read_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "0123456789abcdef0123456789abcdef").unwrap();
    let deploy = python::repository().join("deploy");
    let read = |command: &[&str], args: &[&str]| {
        let mut reading = Command::new(command[0]);
        reading
            .args(&command[1..])
            .args(args)
            .env("IMPRESARIO_TOKEN_FILE", &token)
            .env("IMPRESARIO_IMAGE", "image");
        python::run(&mut reading).unwrap()
    };
    let file = deploy.join("docker-compose.yml");
    let file = file.to_str().unwrap();
    // Each version that is installed, as they do not accept the same.
    let mut read_by_compose = 0;
    for compose in [&["docker-compose"][..], &["docker", "compose"]] {
        if !works(&[compose, &["version"]].concat()) {
            continue;
        }
        read(compose, &["-f", file, "config", "--quiet"]);
        read(compose, &["-f", file, "--profile", "monitoring", "config", "--quiet"]);
        read_by_compose += 1;
    }
    if read_by_compose == 0 {
        eprintln!("skipped: neither docker-compose nor docker compose is installed");
    }
    let stack = deploy.join("stack.yml");
    if works(&["docker", "stack", "config", "--help"]) {
        read(&["docker"], &["stack", "config", "-c", stack.to_str().unwrap()]);
    } else {
        eprintln!("skipped: there is no docker that reads stacks");
    }
}
