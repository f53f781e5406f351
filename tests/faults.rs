//! What goes wrong in a cluster, done to the real binaries: cut networks, stopped and killed processes. The
//! books must balance after each of it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/proxy.rs"]
mod proxy;
mod support;

use std::time::{Duration, Instant};

use proxy::Proxy;
use support::{
    Process, assert_balanced, children, end_all, processor_time, produced, runs, signal, start, start_actor,
    start_learner, summary, trained, wait_until,
};

const FAST_REPORTS: [&str; 2] = ["--set", "report.interval_seconds=0.1"];

/// A run that ends by its steps alone, and tells of itself often.
fn budget(steps: &str) -> Vec<&str> {
    [&["--until-return", "never", "--steps", steps][..], &FAST_REPORTS].concat()
}

#[test]
fn a_network_that_is_cut_again_and_again_neither_loses_nor_doubles_an_unroll() {
    let folder = tempfile::tempdir().unwrap();
    let bound = ["--set", "learner.max_policy_lag=1"];
    let (mut learner, url) = start_learner(folder.path(), &[&budget("400000")[..], &bound].concat());
    let network = Proxy::start(&url);
    let actors = [start_actor(&network.url, &[]), start_actor(&network.url, &["--workers", "2"])];
    for (cut, steps) in [50_000, 100_000, 150_000, 200_000, 250_000, 300_000].into_iter().enumerate() {
        trained(&mut learner, steps);
        if cut % 2 == 0 {
            // New streams come while the learner still believes in the old ones.
            network.cut_unheard();
        } else {
            network.cut();
            // Long enough that their grants go to others, and come back.
            std::thread::sleep(Duration::from_millis(if cut == 1 { 1500 } else { 50 }));
            network.restore();
        }
    }
    let actors = end_all(learner, actors);
    for actor in &actors {
        assert!(actor.stderr.contains("reached the learner"), "it was cut off:\n{}", actor.stderr);
    }
    let told: u64 = actors.iter().map(produced).sum();
    let outcome = summary(folder.path());
    assert_balanced(&outcome);
    assert!(outcome["policy_lag"]["max"].as_u64().unwrap() <= 1);
    let books = &outcome["accounting"];
    assert_eq!(books["produced"], told, "both sides count the same: {books}");
    assert!(books["dropped"].get("actor_lost").is_none(), "{books}");
}

/// Waits until a process has done nothing for a while.
fn stands_still(process: &Process) {
    let mut last = (processor_time(process.pid()), Instant::now());
    wait_until("the actor stands still", || {
        let now = processor_time(process.pid());
        // A few ticks of a hundred a second go into signs of life.
        if now > last.0 + 10 {
            last = (now, Instant::now());
        }
        last.1.elapsed() > Duration::from_secs(1)
    });
}

#[test]
fn actors_stand_still_while_the_learner_does_and_nobody_is_blamed_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let small = ["--set", "rollout.uplink_bytes=200000", "--set", "learner.max_policy_lag=unlimited"];
    let impatient = ["--set", "learner.grant_timeout_seconds=1"];
    let args = [&budget("1000000")[..], &small, &impatient].concat();
    let (mut learner, url) = start_learner(folder.path(), &args);
    let actors = [start_actor(&url, &[]), start_actor(&url, &[])];
    trained(&mut learner, 50_000);
    learner.signal("STOP");
    // Backpressure reaches the environments through queue, stream and uplink.
    actors.iter().for_each(stands_still);
    learner.signal("CONT");
    let ended = learner.end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(!ended.stderr.contains("silent"), "it was the learner that was away:\n{}", ended.stderr);
    for actor in actors {
        assert_eq!(actor.end().code(), 0);
    }
    let outcome = summary(folder.path());
    assert_balanced(&outcome);
    assert!(outcome["accounting"]["dropped"].get("actor_lost").is_none(), "{outcome}");
}

/// `impresario train` whose report can be read.
fn start_train(run_dir: &str, args: &[&str]) -> Process {
    start(&[&["train", "--log-format", "json", "--run-dir", run_dir], args].concat())
}

#[test]
fn train_replaces_actors_that_are_killed_or_sent_away() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let brief = ["--set", "learner.grace_seconds=1"];
    let args = [&budget("600000")[..], &brief].concat();
    let mut train = start_train(run_dir.to_str().unwrap(), &args);
    // The elder one each time: two deaths each, as a third right after a start would look like a start in vain.
    for steps in [50_000, 120_000, 190_000, 260_000] {
        trained(&mut train, steps);
        wait_until("both actors run", || children(train.pid()).len() == 2);
        signal(children(train.pid())[0], "KILL");
    }
    trained(&mut train, 400_000);
    wait_until("both actors run", || children(train.pid()).len() == 2);
    // All of them leave in peace, and the run is not over.
    for actor in children(train.pid()) {
        signal(actor, "TERM");
    }
    let ended = train.end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("starting another"), "{}", ended.stderr);
    let outcome = summary(&run_dir);
    assert!(outcome["env_steps"].as_u64().unwrap() >= 600_000);
    assert_balanced(&outcome);
    assert!(outcome["policy_lag"]["max"].as_u64().unwrap() <= 4);
}

#[test]
fn actors_do_not_outlive_a_train_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let mut train = start_train(run_dir.to_str().unwrap(), &budget("1000000000"));
    trained(&mut train, 20_000);
    let actors = children(train.pid());
    assert_eq!(actors.len(), 2);
    train.signal("KILL");
    wait_until("its actors give up", || !actors.iter().any(|&actor| runs(actor)));
}

#[test]
fn an_interrupt_from_the_terminal_reaches_all_processes_and_ends_the_run_in_good_order() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let mut train = start_train(run_dir.to_str().unwrap(), &budget("1000000000"));
    trained(&mut train, 20_000);
    let actors = children(train.pid());
    for process in actors.iter().copied().chain([train.pid()]) {
        signal(process, "INT");
    }
    let ended = train.end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(!actors.iter().any(|&actor| runs(actor)));
    let outcome = summary(&run_dir);
    assert_eq!(outcome["stopped_by"], "shutdown");
    assert_balanced(&outcome);
    assert!(outcome["accounting"]["dropped"].get("actor_lost").is_none(), "{outcome}");
}
