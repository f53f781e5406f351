//! Runs that go on after their learner is gone: stopped, killed, its checkpoint damaged, its disk full.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;

use support::{
    Ended, Process, assert_balanced, end_all, produced, resume_learner, run, start, start_actor,
    start_learner, summary, trained, wait_until,
};

const FAST_REPORTS: [&str; 2] = ["--set", "report.interval_seconds=0.1"];

/// A run that ends when it is told to.
const ENDLESS: [&str; 4] = ["--until-return", "never", "--steps", "1000000000"];

fn kill(learner: Process) {
    learner.signal("KILL");
    assert!(!learner.end().status.success());
}

/// The checkpoints in a run's directory, oldest first.
fn checkpoints(run_dir: &Path) -> Vec<std::path::PathBuf> {
    impresario_learner::checkpoint::paths(&run_dir.join("checkpoints")).unwrap()
}

#[test]
fn a_learner_that_is_killed_again_and_again_goes_on_with_its_actors_and_no_step_is_lost_from_the_books() {
    let folder = tempfile::tempdir().unwrap();
    let args = [&ENDLESS[..], &FAST_REPORTS].concat();
    let (mut learner, url) = start_learner(folder.path(), &args);
    let mut actors = vec![start_actor(&url, &[]), start_actor(&url, &["--workers", "2"])];
    // Before there is any checkpoint: the run begins again, and the actors are the same.
    trained(&mut learner, 20_000);
    kill(learner);
    assert!(checkpoints(folder.path()).is_empty());
    let often = ["--set", "report.checkpoint_seconds=0.2"];
    let mut learner = resume_learner(folder.path(), &url, &often);
    for (life, steps) in [60_000, 150_000, 240_000].into_iter().enumerate() {
        trained(&mut learner, steps);
        wait_until("a checkpoint", || !checkpoints(folder.path()).is_empty());
        if life == 1 {
            // One that no checkpoint may know.
            actors.push(start_actor(&url, &[]));
            learner.wait_for("the third actor", |line| line.contains("actor joined").then_some(()));
        }
        kill(learner);
        learner = resume_learner(folder.path(), &url, &[]);
    }
    trained(&mut learner, 300_000);
    // An actor that is not back would look for a learner that is gone for good.
    learner.wait_for("all actors", |line| line.contains("\"actors\":3").then_some(()));
    learner.signal("TERM");
    let ended = learner.end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let ended: Vec<Ended> = actors.into_iter().map(Process::end).collect();
    let mut told = 0;
    for actor in &ended {
        assert_eq!(actor.code(), 0, "{}", actor.stderr);
        assert!(actor.stderr.contains("the learner was restarted"), "{}", actor.stderr);
        assert!(!actor.stderr.contains("no longer knows"), "{}", actor.stderr);
        told += produced(actor);
    }
    let outcome = summary(folder.path());
    assert_balanced(&outcome);
    let books = &outcome["accounting"];
    assert_eq!(books["produced"], told, "both sides count the same: {books}");
    assert!(books["dropped"]["learner_restart"].as_u64().unwrap() > 0, "{books}");
    assert!(books["dropped"].get("actor_lost").is_none(), "{books}");
    assert!(outcome["policy_lag"]["max"].as_u64().unwrap() <= 4, "{outcome}");
}

#[test]
fn a_run_whose_learner_was_killed_is_solved_by_the_next_one_with_the_same_actors() {
    let folder = tempfile::tempdir().unwrap();
    let often = ["--set", "report.checkpoint_seconds=0.2", "--set", "learner.wait_for_actors=2"];
    let (mut learner, url) = start_learner(folder.path(), &[&FAST_REPORTS[..], &often].concat());
    let actors = [start_actor(&url, &[]), start_actor(&url, &[])];
    trained(&mut learner, 10_000);
    wait_until("a checkpoint", || !checkpoints(folder.path()).is_empty());
    kill(learner);
    let ended = resume_learner(folder.path(), &url, &[]).end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    for actor in actors {
        let actor = actor.end();
        assert_eq!(actor.code(), 0, "{}", actor.stderr);
    }
    let outcome = summary(folder.path());
    assert_eq!(outcome["solved"], true, "{outcome}");
    assert_balanced(&outcome);
}

#[test]
fn a_lockstep_run_goes_on_with_its_actors_after_its_learner_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let lockstep = ["--algorithm", "a2c", "--set", "learner.max_policy_lag=0"];
    let size = ["--envs-per-actor", "8", "--set", "learner.batch_size=32"];
    let patience = ["--set", "learner.wait_for_actors=2", "--set", "report.checkpoint_seconds=0.2"];
    let args = [&ENDLESS[..], &lockstep, &size, &patience, &FAST_REPORTS].concat();
    let (mut learner, url) = start_learner(folder.path(), &args);
    let actors = [start_actor(&url, &[]), start_actor(&url, &["--workers", "2"])];
    trained(&mut learner, 40_000);
    wait_until("a checkpoint", || !checkpoints(folder.path()).is_empty());
    let before = steps_told(&learner);
    kill(learner);
    let mut learner = resume_learner(folder.path(), &url, &[]);
    trained(&mut learner, before + 40_000);
    learner.signal("TERM");
    let told: u64 = end_all(learner, actors).iter().map(produced).sum();
    let outcome = summary(folder.path());
    assert_balanced(&outcome);
    assert_eq!(
        (&outcome["accounting"]["produced"], &outcome["policy_lag"]["max"]),
        (&told.into(), &0.into())
    );
}

#[test]
fn a_damaged_checkpoint_is_named_and_passed_over_and_a_run_without_a_whole_one_is_not_begun_again() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let path = run_dir.to_str().unwrap();
    let steps =
        |steps: &'static str| ["train", "--until-return", "never", "--run-dir", path, "--steps", steps];
    let milestones = ["--set", "report.checkpoint_steps=10000"];
    let ended = run(&[&steps("30000")[..], &milestones].concat());
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let all = checkpoints(&run_dir);
    let newest = all.last().unwrap();
    let mut bytes = std::fs::read(newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(newest, bytes).unwrap();
    let ended = run(&[&steps("40000")[..], &["--resume"]].concat());
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let name = newest.file_name().unwrap().to_str().unwrap();
    assert!(ended.stderr.contains(name) && ended.stderr.contains("its checksum is"), "{}", ended.stderr);
    assert!(ended.stderr.contains("going on from"), "{}", ended.stderr);
    assert_balanced(&summary(&run_dir));

    for checkpoint in checkpoints(&run_dir) {
        std::fs::write(checkpoint, b"not a checkpoint").unwrap();
    }
    let refused = run(&[&steps("50000")[..], &["--resume"]].concat());
    assert_eq!(refused.code(), 64, "{}", refused.stderr);
    assert!(refused.stderr.contains("no checkpoint that is whole"), "{}", refused.stderr);
}

/// The last weights of a run and their version, with what its algorithm remembers.
fn outcome_of(run_dir: &Path) -> (u64, Vec<(String, Vec<f32>)>) {
    let (_, checkpoint) =
        impresario_learner::checkpoint::latest(&run_dir.join("checkpoints")).unwrap().unwrap();
    let flat = |(name, tensor): &(String, candle_core::Tensor)| {
        (name.clone(), tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap())
    };
    let all = checkpoint.weights.0.iter().chain(&checkpoint.algorithm.0);
    (checkpoint.policy_version, all.map(flat).collect())
}

/// A lockstep run of `steps` steps, of which an update takes 320, with two actors.
fn lockstep<'a>(run_dir: &'a Path, steps: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let fixed =
        ["train", "--until-return", "never", "--log-format", "json", "--set", "learner.max_policy_lag=0"];
    let size =
        ["--envs-per-actor", "8", "--set", "learner.batch_size=16", "--set", "rollout.unroll_length=20"];
    // However slow the machine is, nobody counts as hung, and everybody is waited for at the end.
    let patience = ["--set", "learner.grant_timeout_seconds=200", "--set", "learner.grace_seconds=200"];
    let run = ["--run-dir", run_dir.to_str().unwrap(), "--steps", steps];
    [&fixed[..], &size, &patience, &FAST_REPORTS, &run, more].concat()
}

#[test]
fn ten_updates_and_ten_more_after_a_stop_are_twenty_updates_bit_for_bit() {
    let sac = [
        ["--set", "policy.squash=true"],
        ["--set", "algorithm.learning_starts=1000"],
        ["--set", "algorithm.replay_capacity=2000"],
        ["--set", "algorithm.replay_batch=32"],
        ["--set", "algorithm.updates_per_step=0.03"],
    ]
    .concat();
    let sac = [&["--algorithm", "sac", "--env", "Pendulum-v1"][..], &sac].concat();
    let two_workers = ["--set", "rollout.workers_per_actor=2"];
    let lstm = ["--set", "policy.core=lstm"];
    for (name, method) in [
        ("a2c", vec!["--algorithm", "a2c"]),
        ("ppo", [&["--algorithm", "ppo"][..], &two_workers].concat()),
        ("ppo-lstm", [&["--algorithm", "ppo"][..], &lstm].concat()),
        ("sac", sac),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
        let train = |args: &[&str]| {
            let ended = run(args);
            assert_eq!(ended.code(), 0, "{name}: {}", ended.stderr);
            assert!(!ended.stderr.contains("starts new episodes"), "{name}: {}", ended.stderr);
        };
        train(&lockstep(&whole, "6400", &method));
        train(&lockstep(&parts, "3200", &method));
        let half = outcome_of(&parts);
        train(&lockstep(&parts, "6400", &["--resume"]));
        let (version, weights) = outcome_of(&whole);
        assert!(half.0 < version, "{name}: {} and {version} updates", half.0);
        if name != "sac" {
            assert_eq!((half.0, version), (10, 20), "{name}");
        }
        assert!(outcome_of(&parts) == (version, weights), "{name}: the weights differ");
        assert_balanced(&summary(&parts));
        // Episodes that were under way when it stopped have been played to their ends.
        for key in ["episodes", "mean_return_100"] {
            assert_eq!(summary(&parts)[key], summary(&whole)[key], "{name}: {key}");
        }
    }
}

#[test]
fn a_lockstep_run_that_is_stopped_at_any_moment_takes_the_same_way_when_it_is_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    let method = ["--algorithm", "ppo"];
    assert_eq!(run(&lockstep(&whole, "160000", &method)).code(), 0);
    let mut log = String::new();
    let mut first = start(&lockstep(&parts, "160000", &method));
    for steps in [10_000, 40_000] {
        trained(&mut first, steps);
        first.signal("TERM");
        let ended = first.end();
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        log += &ended.stderr;
        assert_eq!(summary(&parts)["stopped_by"], "shutdown");
        first = start(&lockstep(&parts, "160000", &["--resume"]));
    }
    let ended = first.end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    log += &ended.stderr;
    assert!(outcome_of(&parts) == outcome_of(&whole), "the weights differ:\n{log}");
    assert_balanced(&summary(&parts));
}

/// A run whose unrolls come in whatever order, of `steps` steps, on record with their content.
fn recorded(run_dir: &Path, steps: &str, more: &[&str]) -> Ended {
    let fixed =
        ["train", "--until-return", "never", "--run-dir", run_dir.to_str().unwrap(), "--steps", steps];
    let ended = run(&[&fixed[..], more].concat());
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    ended
}

fn replay(run_dir: &Path) -> Ended {
    run(&["replay", run_dir.to_str().unwrap()])
}

#[test]
fn an_asynchronous_run_on_record_is_made_again_bit_for_bit_and_so_is_what_follows_when_it_is_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let content = ["--record-arrivals=content"];
    let uneven = ["--actors", "3", "--envs-per-actor", "12"];
    recorded(folder.path(), "40000", &[&content[..], &uneven].concat());
    let (version, _) = outcome_of(folder.path());
    let first = replay(folder.path());
    assert_eq!(first.code(), 0, "{}", first.stderr);
    assert!(first.stdout.contains(&format!("version {version} after")), "{}", first.stdout);
    assert!(first.stdout.contains("holds the same weights"), "{}", first.stdout);
    assert!(!first.stdout.contains("incomplete"), "{}", first.stdout);

    recorded(folder.path(), "60000", &["--resume", "--actors", "3"]);
    let (version, _) = outcome_of(folder.path());
    let both = replay(folder.path());
    assert_eq!(both.code(), 0, "{}", both.stderr);
    assert!(both.stdout.contains("life 0") && both.stdout.contains("life 1"), "{}", both.stdout);
    assert!(both.stdout.contains(&format!("version {version} after")), "{}", both.stdout);
}

#[test]
fn records_that_were_changed_or_cut_or_are_not_there_are_answered_by_what_and_where() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |expected: &str| {
        let ended = replay(folder.path());
        assert_eq!(ended.code(), 1, "{}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{:?} does not say {expected:?}", ended.stderr);
        ended.stdout
    };
    refused("no arrivals on record: train with --record-arrivals=content");
    recorded(folder.path(), "20000", &["--record-arrivals=content"]);
    let records = folder.path().join("arrivals/life-0.records");
    let whole = std::fs::read(&records).unwrap();
    std::fs::write(&records, &whole[..whole.len() * 2 / 3]).unwrap();
    let so_far = refused("ends in the middle of record");
    assert!(so_far.contains("updates on"), "what is whole was replayed: {so_far}");
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 4;
    std::fs::write(&records, &changed).unwrap();
    refused("was changed: its checksum is");
    std::fs::write(&records, b"something else").unwrap();
    refused("holds no arrivals");

    let order = folder.path().join("order");
    recorded(&order, "5000", &["--record-arrivals"]);
    let ended = replay(&order);
    assert_eq!(ended.code(), 1);
    assert!(ended.stderr.contains("but not the unrolls"), "{}", ended.stderr);
}

/// A file system of a few megabytes; `None` where this process may not mount one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(bytes: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={bytes}");
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder.path())
            .output()
            .ok()?;
        mount.status.success().then_some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_costs_the_checkpoint_that_does_not_fit_and_nothing_else() {
    let Some(disk) = SmallDisk::mount("4m") else {
        eprintln!("skipped: no file system can be mounted here");
        return;
    };
    let run_dir = disk.0.path().join("run");
    let often = ["--set", "report.checkpoint_seconds=0.1", "--set", "report.tensorboard=false"];
    let (mut learner, url) = start_learner(&run_dir, &[&ENDLESS[..], &often, &FAST_REPORTS].concat());
    let actor = start_actor(&url, &[]);
    wait_until("a checkpoint", || !checkpoints(&run_dir).is_empty());
    // Whatever room there is, but for less than a checkpoint takes.
    let filling = disk.0.path().join("filling");
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let zeros = vec![0; 4096];
    let mut file = std::fs::File::create(&filling).unwrap();
    while std::io::Write::write_all(&mut file, &zeros).is_ok() {}
    let message = learner.wait_for("the error", |line| {
        (line.contains("could not write a checkpoint")).then(|| line.to_owned())
    });
    assert!(message.contains("No space left on device") && message.contains("step-"), "{message}");
    assert!(size(&filling) > 0);
    let steps = steps_told(&learner);
    trained(&mut learner, steps + 20_000);
    // With room again, the next attempt succeeds.
    let newest = checkpoints(&run_dir).pop();
    drop(file);
    std::fs::remove_file(&filling).unwrap();
    wait_until("a newer checkpoint", || checkpoints(&run_dir).pop() > newest);
    learner.signal("TERM");
    let ended = learner.end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(actor.end().code(), 0);
    assert_balanced(&summary(&run_dir));
    assert!(impresario_learner::checkpoint::latest(&run_dir.join("checkpoints")).unwrap().is_some());
}

#[test]
fn a_full_disk_ends_the_records_of_arrivals_which_say_so_and_training_goes_on() {
    let Some(disk) = SmallDisk::mount("8m") else {
        eprintln!("skipped: no file system can be mounted here");
        return;
    };
    let run_dir = disk.0.path().join("run");
    // Checkpoints need their room at the end; until then the records have it.
    let quiet = ["--set", "report.checkpoint_seconds=100000", "--set", "report.tensorboard=false"];
    let content = ["--record-arrivals=content", "--seed", "1"];
    let (mut learner, url) =
        start_learner(&run_dir, &[&ENDLESS[..], &quiet, &content, &FAST_REPORTS].concat());
    let actor = start_actor(&url, &[]);
    let event = learner.wait_for("the end of the records", |line| {
        let event: serde_json::Value = serde_json::from_str(line).ok()?;
        event["message"].as_str()?.contains("arrivals on record are incomplete from here").then_some(event)
    });
    let message = event["message"].as_str().unwrap();
    assert!(message.contains("No space left on device") && message.contains("life-0.records"), "{message}");
    let (arrivals, updates) = (event["arrivals"].as_u64().unwrap(), event["updates"].as_u64().unwrap());
    assert!(arrivals > 100 && updates > 10, "{message}");
    let steps = steps_told(&learner);
    trained(&mut learner, steps + 20_000);
    learner.signal("TERM");
    let ended = learner.end();
    assert_eq!(actor.end().code(), 0);
    assert!(ended.stderr.matches("arrivals on record are incomplete").count() == 1, "{}", ended.stderr);

    let replayed = replay(&run_dir);
    assert_eq!(replayed.code(), 0, "{}\n{}", replayed.stdout, replayed.stderr);
    let expected = format!("{updates} updates on {arrivals} unrolls");
    assert!(replayed.stdout.contains(&expected), "no {expected:?} in {}", replayed.stdout);
    assert!(replayed.stdout.contains("the records are incomplete"), "{}", replayed.stdout);
}

/// Environment steps that a learner's last report tells of.
fn steps_told(learner: &Process) -> u64 {
    let steps = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok()?["steps"].as_u64();
    learner.log().lines().rev().find_map(steps).unwrap_or(0)
}
