//! Real containers, where a Docker engine runs: Compose starts a learner and four actors, which solve CartPole. The base image is an
//! archive of the few libraries that the binary needs, so that nothing is pulled.
//!
//! Without an engine or without Compose the test says so and does nothing.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/python.rs"]
mod python;
mod support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use python::run;
use serde_json::Value;

/// Longest wait for a run in containers.
const DEADLINE: Duration = Duration::from_secs(300);

/// Compose as it is installed here, if an engine answers, too.
fn compose() -> Option<Vec<&'static str>> {
    let works = |command: &[&str]| run(Command::new(command[0]).args(&command[1..])).is_ok();
    if !works(&["docker", "info"]) {
        eprintln!("skipped: no Docker engine answers `docker info`");
        return None;
    }
    let versions = [vec!["docker-compose"], vec!["docker", "compose"]];
    let found = versions.into_iter().find(|compose| works(&[compose, &["version"][..]].concat()));
    if found.is_none() {
        eprintln!("skipped: neither docker-compose nor docker compose is installed");
    }
    found
}

fn docker(args: &[&str]) -> String {
    run(Command::new("docker").args(args)).unwrap().trim().to_owned()
}

/// Files that the binary needs beside itself: what `ldd` names.
fn libraries(binary: &Path) -> Vec<PathBuf> {
    let listed = run(Command::new("ldd").arg(binary)).unwrap();
    let paths = listed.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
    paths.collect()
}

/// An image with the binary on a base of its libraries alone; removed with this.
struct Image {
    name: String,
    base: String,
}

impl Image {
    fn build(folder: &Path) -> Self {
        let binary = Path::new(env!("CARGO_BIN_EXE_impresario"));
        let unique = std::process::id();
        let image = Self {
            name: format!("impresario-test:{unique}"),
            base: format!("impresario-test-base:{unique}"),
        };
        let mut tar = Command::new("tar");
        tar.args(["--create", "--dereference", "--absolute-names", "--file=-", "--transform=s,^/,,"]);
        tar.args(libraries(binary))
            .args(["/etc/passwd", "/etc/nsswitch.conf"].into_iter().filter(|f| Path::new(f).exists()));
        let mut archive = tar.stdout(Stdio::piped()).spawn().unwrap();
        let importing = Command::new("docker")
            .args(["import", "-", &image.base])
            .stdin(archive.stdout.take().unwrap())
            .output()
            .unwrap();
        assert!(importing.status.success(), "{}", String::from_utf8_lossy(&importing.stderr));
        assert!(archive.wait().unwrap().success());

        let context = folder.join("context");
        let deploy = python::repository().join("deploy");
        std::fs::create_dir_all(context.join("deploy/rootfs/runs")).unwrap();
        std::fs::write(context.join("deploy/rootfs/runs/.gitkeep"), "").unwrap();
        std::fs::copy(binary, context.join("impresario")).unwrap();
        run(Command::new("docker")
            .args(["build", "--quiet", "--tag", &image.name, "--build-arg", "BINARY=impresario"])
            .args(["--build-arg", &format!("BASE={}", image.base), "--file"])
            .arg(deploy.join("Dockerfile.runtime"))
            .arg(&context))
        .unwrap();
        image
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = run(Command::new("docker").args(["image", "rm", "--force", &self.name, &self.base]));
    }
}

/// A project of Compose; taken down with everything in it when dropped.
struct Project {
    compose: Vec<&'static str>,
    name: String,
    variables: Vec<(&'static str, String)>,
}

impl Project {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.compose[0]);
        let file = python::repository().join("deploy/docker-compose.yml");
        command.args(&self.compose[1..]).args(["--project-name", &self.name, "--file"]).arg(file).args(args);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    fn run(&self, args: &[&str]) -> String {
        run(&mut self.command(args)).unwrap_or_else(|problem| panic!("{problem}\n{}", self.logs()))
    }

    fn logs(&self) -> String {
        run(&mut self.command(&["logs", "--no-color", "--tail", "200"])).unwrap_or_else(|problem| problem)
    }

    /// Containers of `service`, those that have ended included.
    fn containers(&self, service: &str) -> Vec<String> {
        let project = format!("label=com.docker.compose.project={}", self.name);
        let service = format!("label=com.docker.compose.service={service}");
        let listed = docker(&["ps", "--all", "--quiet", "--filter", &project, "--filter", &service]);
        listed.lines().map(str::to_owned).collect()
    }

    fn learner(&self) -> String {
        let [learner] = self.containers("learner").try_into().unwrap();
        learner
    }

    /// Waits until a container has ended; its exit code.
    fn ended(&self, container: &str) -> i64 {
        let end = Instant::now() + DEADLINE;
        loop {
            let state = inspect(container)["State"].clone();
            if state["Status"] == "exited" {
                return state["ExitCode"].as_i64().unwrap();
            }
            assert!(Instant::now() < end, "{container} has not ended:\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The run's summary, out of the learner's volume.
    fn summary(&self, folder: &Path) -> Value {
        let target = folder.join(format!("{}-summary.json", self.name));
        docker(&["cp", &format!("{}:/runs/run/summary.json", self.learner()), target.to_str().unwrap()]);
        serde_json::from_str(&std::fs::read_to_string(target).unwrap()).unwrap()
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let _ = run(&mut self.command(&["down", "--volumes", "--timeout", "1"]));
    }
}

fn inspect(container: &str) -> Value {
    let listed: Value = serde_json::from_str(&docker(&["inspect", container])).unwrap();
    listed[0].clone()
}

#[test]
fn compose_starts_a_learner_and_four_actors_which_solve_cartpole_and_stop_in_good_order() {
    let Some(compose) = compose() else { return };
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    let mut file = std::fs::File::create(&token).unwrap();
    file.write_all(b"correct-horse-battery-staple-0123456789\n").unwrap();
    let image = Image::build(folder.path());
    let project = |name: &str, flags: &str| Project {
        compose: compose.clone(),
        name: format!("impresario-{name}-{}", std::process::id()),
        variables: vec![
            ("IMPRESARIO_IMAGE", image.name.clone()),
            ("IMPRESARIO_TOKEN_FILE", token.to_str().unwrap().into()),
            ("IMPRESARIO_FLAGS", flags.into()),
        ],
    };

    let solving = project("solve", "--env CartPole-v1 --seed 1");
    solving.run(&["up", "--detach", "--no-build", "--scale", "actor=4"]);
    let (learner, actors) = (solving.learner(), solving.containers("actor"));
    assert_eq!(actors.len(), 4);
    for container in actors.iter().chain([&learner]) {
        let shown = inspect(container);
        assert_eq!(shown["Config"]["User"], "10001:10001");
        assert_eq!(shown["HostConfig"]["ReadonlyRootfs"], true);
        assert!(!shown.to_string().contains("correct-horse"), "the token is in no setting");
    }
    assert_eq!(solving.ended(&learner), 0, "{}", solving.logs());
    for actor in &actors {
        assert_eq!(solving.ended(actor), 0, "{}", solving.logs());
    }
    let outcome = solving.summary(folder.path());
    assert_eq!(outcome["solved"], true, "{outcome}");
    support::assert_balanced(&outcome);
    assert!(!solving.logs().contains("correct-horse"));
    drop(solving);

    let stopping = project("stop", "--until-return never --steps 1000000000");
    stopping.run(&["up", "--detach", "--no-build", "--scale", "actor=2"]);
    let (learner, actors) = (stopping.learner(), stopping.containers("actor"));
    // Actors were started, so the health check has passed.
    assert_eq!(inspect(&learner)["State"]["Health"]["Status"], "healthy");
    let end = Instant::now() + DEADLINE;
    let joined = || stopping.run(&["logs", "--no-color", "learner"]).matches("actor joined").count();
    while joined() < 2 {
        assert!(Instant::now() < end, "the actors do not join:\n{}", stopping.logs());
        std::thread::sleep(Duration::from_millis(200));
    }
    // SIGTERM, and SIGKILL after the grace period; whoever was killed exits with 137.
    stopping.run(&["stop"]);
    for container in actors.iter().chain([&learner]) {
        assert_eq!(stopping.ended(container), 0, "{}", stopping.logs());
    }
    let outcome = stopping.summary(folder.path());
    assert_eq!(outcome["stopped_by"], "shutdown");
    support::assert_balanced(&outcome);
}
