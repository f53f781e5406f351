//! Everything at once: actors and learner killed again and again, and a part of the network gone for half a minute. No
//! step may be missing from the books, none counted twice, and the task must be solved all the same.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/proxy.rs"]
mod proxy;
mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use proxy::Proxy;
use serde_json::Value;
use support::{
    Process, assert_balanced, resume_learner, start_actor, start_learner, summary, trained, wait_until,
};

/// Actors killed before, during and after the partition.
const KILLS: usize = 24;
/// Kills after which the learner is killed, too.
const LEARNER_KILLS: [usize; 2] = [6, 20];
/// Kills at whose number the partition begins.
const PARTITION: usize = 10;
/// How long it lasts, at least.
const PARTITION_LASTS: Duration = Duration::from_secs(30);

/// A number of the newest report.
fn newest(learner: &Process, key: &str) -> Option<u64> {
    learner.log().lines().rev().find_map(|line| {
        let event: Value = serde_json::from_str(line).ok()?;
        event["steps"].as_u64().and_then(|_| event[key].as_u64())
    })
}

/// Whether an actor has found the learner again, if it ever lost it.
fn in_touch(actor: &Process) -> bool {
    let log = actor.log();
    let found = log.rfind("reached the learner").max(log.rfind("joined run"));
    found > log.rfind("cannot reach the learner")
}

/// Waits until training has gone on.
fn goes_on(learner: &mut Process) {
    let before = newest(learner, "steps").unwrap_or(0);
    trained(learner, before + 1);
}

fn kill(process: Process) {
    process.signal("KILL");
    assert!(!process.end().status.success());
}

#[test]
fn a_run_in_which_everything_dies_is_solved_and_every_step_is_accounted_for() {
    let folder = tempfile::tempdir().unwrap();
    let endless = ["--until-return", "never", "--steps", "1000000000000"];
    let often = ["--set", "report.interval_seconds=0.1", "--set", "report.checkpoint_seconds=0.3"];
    let (mut learner, url) = start_learner(folder.path(), &[&endless[..], &often].concat());
    let network = Proxy::start(&url);
    // Two reach the learner directly, two by the network that will fail.
    let urls = [&url, &url, &network.url, &network.url];
    let start = |place: usize| start_actor(urls[place], &[]);
    let mut actors: Vec<Process> = (0..urls.len()).map(start).collect();
    goes_on(&mut learner);
    let mut partition: Option<Instant> = None;
    for kills in 0..KILLS {
        let place = (kills * 7 + kills / 3) % actors.len();
        kill(std::mem::replace(&mut actors[place], start(place)));
        goes_on(&mut learner);
        if LEARNER_KILLS.contains(&kills) {
            checkpointed(&mut learner, folder.path());
            kill(learner);
            learner = resume_learner(folder.path(), &url, &[]);
            goes_on(&mut learner);
        }
        if kills == PARTITION {
            network.partition();
            partition = Some(Instant::now());
        }
        if kills == PARTITION + 6 {
            let begun = partition.expect("it has begun");
            while begun.elapsed() < PARTITION_LASTS {
                goes_on(&mut learner);
            }
            network.restore();
        }
    }
    learner.wait_for("a return that counts as solved", |line| {
        let event: Value = serde_json::from_str(line).ok()?;
        (event["return"].as_f64()? >= 475.0).then_some(())
    });
    // Whoever was out of reach when the run ends could not be told.
    let everybody = actors.len() as u64;
    wait_until("all actors are back", || {
        newest(&learner, "actors") == Some(everybody) && actors.iter().all(in_touch)
    });
    learner.signal("TERM");
    let ended = learner.end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    for actor in actors {
        let ended = actor.end();
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
    }
    let outcome = summary(folder.path());
    println!("{KILLS} actors and {} learners killed: {}", LEARNER_KILLS.len(), outcome["accounting"]);
    assert_balanced(&outcome);
    assert_eq!(outcome["solved"], true, "{outcome}");
    // What the killed learners had taken in since their last checkpoints.
    assert!(outcome["accounting"]["dropped"]["learner_restart"].as_u64().unwrap() > 0, "{outcome}");
    assert!(outcome["policy_lag"]["max"].as_u64().unwrap() <= 4, "{outcome}");
}

/// Waits until the run directory has a checkpoint.
fn checkpointed(learner: &mut Process, run_dir: &Path) {
    let folder = run_dir.join("checkpoints");
    wait_until("a checkpoint", || {
        impresario_learner::checkpoint::paths(&folder).is_ok_and(|paths| !paths.is_empty())
    });
    assert!(learner.is_running());
}
