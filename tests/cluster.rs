//! A learner and actors by hand: killed, late, stopped, refused, out of reach.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::{assert_balanced, end_all, start_actor, start_learner, summary, trained};

/// A run that ends by its steps alone.
fn budget(steps: &str) -> [&str; 4] {
    ["--until-return", "never", "--steps", steps]
}

const FAST_REPORTS: [&str; 2] = ["--set", "report.interval_seconds=0.1"];

#[test]
fn a_run_survives_a_killed_actor_and_takes_in_a_late_one() {
    let folder = tempfile::tempdir().unwrap();
    let (mut learner, url) = start_learner(folder.path(), &[&budget("600000")[..], &FAST_REPORTS].concat());
    let victim = start_actor(&url, &[]);
    let survivor = start_actor(&url, &[]);
    trained(&mut learner, 50_000);
    victim.signal("KILL");
    let late = start_actor(&url, &[]);
    end_all(learner, [survivor, late]);
    assert!(!victim.end().status.success());
    let outcome = summary(folder.path());
    assert!(outcome["env_steps"].as_u64().unwrap() >= 600_000);
    assert_balanced(&outcome);
}

#[test]
fn a_hung_actors_grants_go_to_the_others() {
    let folder = tempfile::tempdir().unwrap();
    // In lockstep every update needs every grant; without reissue the run would stand still.
    let lockstep = ["--set", "learner.max_policy_lag=0", "--set", "learner.grant_timeout_seconds=1"];
    let size =
        ["--envs-per-actor", "8", "--set", "learner.batch_size=16", "--set", "learner.wait_for_actors=2"];
    let ending = ["--set", "learner.grace_seconds=2"];
    let args = [&budget("100000")[..], &FAST_REPORTS, &lockstep, &size, &ending].concat();
    let (mut learner, url) = start_learner(folder.path(), &args);
    let hung = start_actor(&url, &[]);
    let lively = start_actor(&url, &[]);
    trained(&mut learner, 5_000);
    hung.signal("STOP");
    let ended = learner.end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(lively.end().code(), 0);
    let outcome = summary(folder.path());
    assert!(outcome["env_steps"].as_u64().unwrap() >= 100_000);
    assert_eq!(outcome["policy_lag"]["max"], 0);
    assert_balanced(&outcome);
}

#[test]
fn sigterm_ends_a_learner_and_its_actors_in_good_order() {
    let folder = tempfile::tempdir().unwrap();
    let (mut learner, url) =
        start_learner(folder.path(), &[&budget("1000000000")[..], &FAST_REPORTS].concat());
    let actors = [start_actor(&url, &[]), start_actor(&url, &[])];
    trained(&mut learner, 20_000);
    learner.signal("TERM");
    end_all(learner, actors);
    let outcome = summary(folder.path());
    assert_eq!(outcome["stopped_by"], "shutdown");
    assert_balanced(&outcome);
    assert!(impresario_learner::checkpoint::latest(&folder.path().join("checkpoints")).unwrap().is_some());
}

#[test]
fn sigterm_ends_an_actor_and_the_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (mut learner, url) = start_learner(folder.path(), &[&budget("400000")[..], &FAST_REPORTS].concat());
    let leaving = start_actor(&url, &[]);
    let staying = start_actor(&url, &[]);
    trained(&mut learner, 20_000);
    leaving.signal("TERM");
    assert_eq!(leaving.end().code(), 0);
    assert_eq!(learner.end().code(), 0);
    assert_eq!(staying.end().code(), 0);
    let outcome = summary(folder.path());
    assert_balanced(&outcome);
    assert!(outcome["accounting"]["dropped"].get("actor_lost").is_none(), "{outcome}");
}

#[test]
fn the_lag_bound_holds_at_every_setting() {
    for bound in ["0", "1", "3"] {
        let folder = tempfile::tempdir().unwrap();
        let setting = format!("learner.max_policy_lag={bound}");
        let (learner, url) =
            start_learner(folder.path(), &[&budget("60000")[..], &["--set", &setting]].concat());
        let actors = [start_actor(&url, &[]), start_actor(&url, &["--envs", "16", "--workers", "2"])];
        let ended = learner.end();
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        for actor in actors {
            assert_eq!(actor.end().code(), 0);
        }
        let outcome = summary(folder.path());
        let max = outcome["policy_lag"]["max"].as_u64().unwrap();
        assert!(max <= bound.parse().unwrap(), "lag {max} under bound {bound}");
        assert_balanced(&outcome);
    }
}

#[test]
fn an_actor_that_cannot_form_a_batch_is_refused_with_what_to_change() {
    let folder = tempfile::tempdir().unwrap();
    let (mut learner, url) = start_learner(folder.path(), &[]);
    let refused = start_actor(&url, &["--envs", "4096"]).end();
    assert_eq!(refused.code(), 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("fewer --envs"), "{}", refused.stderr);
    assert!(learner.is_running(), "it harms nobody else");
    learner.signal("TERM");
    assert_eq!(learner.end().code(), 0);
}

#[test]
fn an_actor_gives_up_on_a_learner_that_is_not_there() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let ended = start_actor(&format!("http://127.0.0.1:{port}"), &["--give-up-after", "1"]).end();
    assert_eq!(ended.code(), 1);
    assert!(ended.stderr.contains("cannot reach the learner"), "{}", ended.stderr);
}

#[test]
fn a_learner_that_is_stopped_before_anyone_came_leaves_a_true_summary() {
    let folder = tempfile::tempdir().unwrap();
    let (learner, _) = start_learner(folder.path(), &[]);
    // At once: whoever knows its address may stop it.
    learner.signal("TERM");
    let ended = learner.end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let outcome = summary(folder.path());
    assert_eq!((&outcome["stopped_by"], &outcome["env_steps"]), (&"shutdown".into(), &0.into()));
    assert_balanced(&outcome);
}
