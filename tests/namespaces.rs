//! The real binaries on machines of their own: a cable is pulled, the network is bad, a machine is gone for good, the learner moves to
//! another one. Hosts are Linux network namespaces, so that a partition is a real one: connections that no longer carry anything stay
//! open on both sides, and TCP, ARP and keepalive do what they do between machines.
//!
//! Without root, `ip` or what they need of the kernel the tests say so and do nothing.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/hosts.rs"]
mod hosts;
mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use hosts::{Host, Network, Quality};
use support::{Process, assert_balanced, end_all, newest, produced, summary, trained, url_of, wait_until};

const FAST_REPORTS: [&str; 2] = ["--set", "report.interval_seconds=0.1"];

/// A run that ends when it is told to, and tells of itself often.
fn endless() -> Vec<&'static str> {
    [&["--until-return", "never", "--steps", "1000000000"][..], &FAST_REPORTS].concat()
}

/// What learner and actors share beside the network.
struct Site {
    folder: tempfile::TempDir,
    token: String,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token");
        std::fs::write(&token, "correct-horse-battery-staple-0123456789\n").unwrap();
        Self { token: token.to_str().unwrap().into(), folder }
    }

    fn run_dir(&self) -> std::path::PathBuf {
        self.folder.path().join("run")
    }

    /// Starts a learner on `host` that listens at `port`; beyond loopback it asks for the token.
    fn learner(&self, host: &Host, port: &str, args: &[&str]) -> (Process, String) {
        let (listen, run_dir) = (format!("{}:{port}", host.address()), self.run_dir());
        let fixed = ["learner", "--listen", &listen, "--log-format", "json", "--token-file", &self.token];
        let mut learner = host.start(&[&fixed[..], &["--run-dir", run_dir.to_str().unwrap()], args].concat());
        let url = url_of(&mut learner);
        (learner, url)
    }

    fn actor(&self, host: &Host, url: &str) -> Process {
        host.start(&["actor", "--learner", url, "--token-file", &self.token])
    }
}

/// Asks the learner to stop, and waits until everybody has; environment steps that the actors tell of.
fn stop(learner: Process, actors: impl IntoIterator<Item = Process>) -> u64 {
    learner.signal("TERM");
    finish(learner, actors)
}

/// Waits until everybody has stopped; environment steps that the actors tell of.
fn finish(learner: Process, actors: impl IntoIterator<Item = Process>) -> u64 {
    end_all(learner, actors).iter().map(produced).sum()
}

/// Waits until so many further steps have been trained on.
fn goes_on(learner: &mut Process, steps: u64) {
    let before = newest(learner, "steps").unwrap_or(0);
    trained(learner, before + steps);
}

fn checkpointed(run_dir: &Path) {
    wait_until("a checkpoint", || {
        impresario_learner::checkpoint::paths(&run_dir.join("checkpoints"))
            .is_ok_and(|paths| !paths.is_empty())
    });
}

#[test]
fn an_actor_whose_cable_is_pulled_until_it_counts_as_lost_comes_back_when_it_is_put_in_again() {
    let Some(network) = Network::create() else { return };
    let (home, near, far) = (network.host(1), network.host(2), network.host(3));
    let site = Site::new();
    let patience = ["--set", "learner.reconnect_seconds=2"];
    let (mut learner, url) = site.learner(&home, "0", &[&endless()[..], &patience].concat());
    let (staying, mut cut_off) = (site.actor(&near, &url), site.actor(&far, &url));
    wait_until("both actors act", || newest(&learner, "actors") == Some(2));
    goes_on(&mut learner, 20_000);

    far.unplug();
    let pulled = Instant::now();
    let seen = |line: &str, what: &str| line.contains(what).then_some(());
    learner.wait_for("its grants to go to others", |line| seen(line, "its grants go to others"));
    println!("the grants of an actor whose cable was pulled went to others after {:?}", pulled.elapsed());
    learner.wait_for("the actor to count as lost", |line| seen(line, "counts as lost"));
    println!("it counted as lost after {:?}", pulled.elapsed());
    goes_on(&mut learner, 20_000);
    assert_eq!(newest(&learner, "actors"), Some(1));
    assert!(cut_off.is_running());
    assert_eq!(cut_off.log().matches("joined run").count(), 1);

    far.plug();
    let put_in = Instant::now();
    wait_until("it has joined again", || cut_off.log().matches("joined run").count() == 2);
    println!("it was back {:?} after the cable", put_in.elapsed());
    assert!(cut_off.log().contains("no longer knows this actor"), "{}", cut_off.log());
    wait_until("both actors act", || newest(&learner, "actors") == Some(2));
    goes_on(&mut learner, 20_000);
    let told = stop(learner, [staying, cut_off]);
    let outcome = summary(&site.run_dir());
    assert_balanced(&outcome);
    assert!(outcome["accounting"]["produced"].as_u64().unwrap() <= told, "{outcome}");
    assert!(outcome["policy_lag"]["max"].as_u64().unwrap() <= 4, "{outcome}");
}

#[test]
fn cartpole_is_solved_by_actors_behind_a_network_that_delays_reorders_and_loses_packets() {
    let Some(network) = Network::create() else { return };
    let quality = Quality { delay: Duration::from_millis(30), jitter: Duration::from_millis(10), loss: 0.03 };
    let home = network.host(1);
    let Some(hosts) = [2, 3].into_iter().map(|number| network.far_host(number, quality)).collect() else {
        return;
    };
    let hosts: Vec<Host> = hosts;
    let site = Site::new();
    let both = ["--set", "learner.wait_for_actors=2"];
    let (learner, url) = site.learner(&home, "0", &[&FAST_REPORTS[..], &both].concat());
    let actors: Vec<Process> = hosts.iter().map(|host| site.actor(host, &url)).collect();
    finish(learner, actors);
    for host in &hosts {
        let (carried, lost) = host.traffic();
        println!("{carried} frames carried, {lost} lost");
        assert!(lost > 0);
    }
    let outcome = summary(&site.run_dir());
    println!("{outcome}");
    assert_eq!(outcome["solved"], true, "{outcome}");
    assert_balanced(&outcome);
    assert!(outcome["policy_lag"]["max"].as_u64().unwrap() <= 4, "{outcome}");
}

#[test]
fn a_lockstep_run_goes_on_without_a_machine_that_is_gone_for_good() {
    let Some(network) = Network::create() else { return };
    let home = network.host(1);
    let hosts = [2, 3, 4].map(|number| network.host(number));
    let site = Site::new();
    let lockstep = ["--set", "learner.max_policy_lag=0", "--set", "learner.wait_for_actors=3"];
    let size = ["--envs-per-actor", "8", "--set", "learner.batch_size=24"];
    let budget = ["--until-return", "never", "--steps", "200000"];
    let ending = ["--set", "learner.grace_seconds=2"];
    let (mut learner, url) =
        site.learner(&home, "0", &[&budget[..], &FAST_REPORTS, &lockstep, &size, &ending].concat());
    let [doomed, other, third] = hosts.each_ref().map(|host| site.actor(host, &url));
    trained(&mut learner, 20_000);
    hosts[0].unplug();
    let gone = Instant::now();
    learner.wait_for("its grants to go to others", |line| {
        line.contains("its grants go to others").then_some(())
    });
    goes_on(&mut learner, 1);
    println!("lockstep went on {:?} after a machine was gone", gone.elapsed());
    finish(learner, [other, third]);
    drop(doomed);
    let outcome = summary(&site.run_dir());
    assert!(outcome["env_steps"].as_u64().unwrap() >= 200_000, "{outcome}");
    assert_eq!(outcome["policy_lag"]["max"], 0, "{outcome}");
    assert_balanced(&outcome);
}

#[test]
fn actors_find_a_learner_that_goes_on_with_the_run_on_another_machine() {
    let Some(network) = Network::create() else { return };
    let home = network.host(1);
    let hosts = [2, 3].map(|number| network.host(number));
    let site = Site::new();
    let often = ["--set", "report.checkpoint_seconds=0.2"];
    let (mut learner, url) = site.learner(&home, "0", &[&endless()[..], &often].concat());
    let actors = hosts.each_ref().map(|host| site.actor(host, &url));
    wait_until("both actors act", || newest(&learner, "actors") == Some(2));
    checkpointed(&site.run_dir());
    goes_on(&mut learner, 20_000);
    // Nobody hears of it: the actors' connections stay open.
    home.unplug();
    learner.signal("KILL");
    let before = newest(&learner, "steps").unwrap();
    drop(learner);

    // The address moves, as a floating one does, and so does the volume.
    let elsewhere = network.host(1);
    let port = url.rsplit_once(':').unwrap().1;
    let (mut learner, same) = site.learner(&elsewhere, port, &["--resume"]);
    let listening = Instant::now();
    assert_eq!(same, url);
    trained(&mut learner, before + 1);
    println!("training went on {:?} after the learner listened elsewhere", listening.elapsed());
    wait_until("both actors act", || newest(&learner, "actors") == Some(2));
    goes_on(&mut learner, 20_000);
    let logs = actors.each_ref().map(Process::log);
    let told = stop(learner, actors);
    for log in logs {
        assert!(log.contains("the learner was restarted"), "{log}");
    }
    let outcome = summary(&site.run_dir());
    assert_balanced(&outcome);
    assert_eq!(outcome["accounting"]["produced"], told, "both sides count the same: {outcome}");
    assert!(outcome["policy_lag"]["max"].as_u64().unwrap() <= 4, "{outcome}");
}
