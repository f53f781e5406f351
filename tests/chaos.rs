//! Everything at once: actors and learner killed again and again, and a part of the network gone for half a minute. No
//! step may be missing from the books, none counted twice, and the task must be solved as well as in a calm run. And a learner that is
//! away for two minutes. How long recovery took is printed: `cargo test --test chaos -- --nocapture`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/proxy.rs"]
mod proxy;
mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proxy::Proxy;
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use support::{
    Process, assert_balanced, end_all, newest, produced, resume_learner, run, start_actor, start_learner,
    summary, trained, url_of, wait_until,
};

/// Actors killed before, during and after the partition.
const KILLS: usize = 24;
/// Kills after which the learner is killed, too.
const LEARNER_KILLS: [usize; 2] = [6, 20];
/// Kills at whose number the partition begins.
const PARTITION: usize = 10;
/// How long it lasts, at least.
const PARTITION_LASTS: Duration = Duration::from_secs(30);
/// How long the learner is away that actors wait for.
const AWAY: Duration = Duration::from_secs(120);

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

/// The time of day, in seconds.
type TimeOfDay = f64;

fn now() -> TimeOfDay {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() % 86_400.0
}

/// The time of day of an event in a learner's log.
fn time_of(event: &Value) -> Option<TimeOfDay> {
    let (_, time) = event["timestamp"].as_str()?.trim_end_matches('Z').split_once('T')?;
    Some(time.split(':').filter_map(|part| part.parse::<f64>().ok()).fold(0.0, |sum, part| 60.0 * sum + part))
}

/// The number under which an actor has joined last, and whether it was in touch with the learner.
fn place_of(actor: &Process) -> Option<u64> {
    let log = actor.log();
    let told = log.rsplit_once(" as actor ")?.1.split_once(',')?.0;
    in_touch(actor).then(|| told.parse().ok()).flatten()
}

/// Seconds after which the learner gave each killed actor's grants to others, where its log tells: `killed` are their numbers, and
/// when they were killed.
fn grants_back(log: &str, killed: &[(u64, TimeOfDay)]) -> Vec<f64> {
    let events: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let told = |&(actor, when): &(u64, TimeOfDay)| {
        let hit = events.iter().rev().find(|event| {
            event["actor"] == actor
                && event["message"].as_str().is_some_and(|m| m.contains("its grants go to others"))
        })?;
        Some((time_of(hit)? - when).rem_euclid(86_400.0))
    };
    killed.iter().filter_map(told).filter(|seconds| *seconds < 3600.0).collect()
}

/// The environment steps of the newest checkpoint.
fn checkpointed_steps(run_dir: &Path) -> u64 {
    impresario_learner::checkpoint::latest(&run_dir.join("checkpoints")).unwrap().unwrap().1.env_steps
}

/// Kills the learner, and lets another one go on; how long it took from that one's address to the first new step.
fn replace(learner: Process, run_dir: &Path, url: &str, args: &[&str]) -> (Process, Duration) {
    kill(learner);
    let steps = checkpointed_steps(run_dir);
    let mut learner = resume_learner(run_dir, url, args);
    let took = training_goes_on(&mut learner, url, steps);
    (learner, took)
}

/// How long it takes a learner that goes on from `steps` from its address to the first new step.
fn training_goes_on(learner: &mut Process, url: &str, steps: u64) -> Duration {
    assert_eq!(url_of(learner), url);
    let listening = Instant::now();
    trained(learner, steps + 1);
    listening.elapsed()
}

/// Keeps others from taking a port that nobody listens at: it refuses connections for as long as this lives.
fn keep_free(url: &str) -> Socket {
    let address: SocketAddr = url.strip_prefix("http://").unwrap().parse().unwrap();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
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
    let (mut killed, mut recovered) = (vec![], vec![]);
    for kills in 0..KILLS {
        let place = (kills * 7 + kills / 3) % actors.len();
        let number = place_of(&actors[place]);
        kill(std::mem::replace(&mut actors[place], start(place)));
        killed.extend(number.map(|number| (number, now())));
        goes_on(&mut learner);
        if LEARNER_KILLS.contains(&kills) {
            checkpointed(&mut learner, folder.path());
            recovered.extend(grants_back(&learner.log(), &killed));
            killed.clear();
            let took;
            (learner, took) = replace(learner, folder.path(), &url, &[]);
            println!("training went on {took:.2?} after the next learner listened");
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
    // Whoever was out of reach when the run ends could not be told.
    let everybody = actors.len() as u64;
    wait_until("all actors are back", || {
        newest(&learner, "actors") == Some(everybody) && actors.iter().all(in_touch)
    });
    recovered.extend(grants_back(&learner.log(), &killed));
    recovered.sort_by(f64::total_cmp);
    println!(
        "grants of {} killed actors went to others after so many seconds: {recovered:.2?}",
        recovered.len()
    );
    // Killed a last time; the next one ends the run by the rule that ends a calm one, when all actors are back.
    let goal = ["--until-return", "475", "--set", "learner.wait_for_actors=4"];
    let (learner, took) = replace(learner, folder.path(), &url, &goal);
    println!("all four were back {took:.2?} after the last learner listened, two of whom nobody tells");
    end_all(learner, actors);
    let outcome = summary(folder.path());
    println!("{KILLS} actors and {} learners killed: {}", LEARNER_KILLS.len() + 1, outcome["accounting"]);
    assert_balanced(&outcome);
    assert_eq!(outcome["solved"], true, "{outcome}");
    // What the killed learners had taken in since their last checkpoints.
    assert!(outcome["accounting"]["dropped"]["learner_restart"].as_u64().unwrap() > 0, "{outcome}");
    assert!(outcome["policy_lag"]["max"].as_u64().unwrap() <= 4, "{outcome}");

    // What `tests/train.rs` asks of a calm run.
    let sampled = ["eval", folder.path().to_str().unwrap(), "--episodes", "20", "--seed", "3"];
    let played = |choice: &[&str]| {
        let ended = run(&[&sampled[..], choice].concat());
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        let mean = ended.stdout.rsplit_once("mean return ").unwrap().1.split_once(' ').unwrap().0;
        mean.parse::<f64>().unwrap()
    };
    let (sampled, greedy) = (played(&[]), played(&["--greedy"]));
    println!("its policy reaches {sampled} with sampled and {greedy} with greedy actions");
    assert!(sampled >= 400.0, "sampled actions reach {sampled}");
    assert!(greedy >= 100.0, "greedy actions reach {greedy}");
}

#[test]
fn actors_wait_two_minutes_for_a_learner_that_is_away_and_go_on_with_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let endless = ["--until-return", "never", "--steps", "1000000000000"];
    let often = ["--set", "report.interval_seconds=0.1", "--set", "report.checkpoint_seconds=0.3"];
    let (mut learner, url) = start_learner(folder.path(), &[&endless[..], &often].concat());
    let actors = [start_actor(&url, &[]), start_actor(&url, &["--workers", "2"])];
    wait_until("both actors act", || newest(&learner, "actors") == Some(2));
    trained(&mut learner, 20_000);
    checkpointed(&mut learner, folder.path());
    kill(learner);
    let steps = checkpointed_steps(folder.path());
    let port = keep_free(&url);
    std::thread::sleep(AWAY);
    drop(port);
    let mut learner = resume_learner(folder.path(), &url, &[]);
    let took = training_goes_on(&mut learner, &url, steps);
    println!("training went on {took:.2?} after a learner listened again that was away for {AWAY:?}");
    wait_until("both actors are back", || newest(&learner, "actors") == Some(2));
    goes_on(&mut learner);
    learner.signal("TERM");
    let actors = end_all(learner, actors);
    for actor in &actors {
        assert!(actor.stderr.contains("the learner was restarted"), "{}", actor.stderr);
        assert_eq!(actor.stderr.matches("joined run").count(), 1, "{}", actor.stderr);
    }
    let told: u64 = actors.iter().map(produced).sum();
    let outcome = summary(folder.path());
    assert_balanced(&outcome);
    let books = &outcome["accounting"];
    assert_eq!(books["produced"], told, "both sides count the same: {books}");
    assert!(books["dropped"].get("actor_lost").is_none(), "{books}");
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
