//! Gymnasium's environments through the whole system: learner and actors of the real binary, and their Python workers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/python.rs"]
mod python;
mod support;

use std::path::Path;

use support::{
    assert_balanced, children, run, runs, start_actor, start_learner, start_with, summary, trained,
    wait_until,
};

const COUNTER: &str = "impresario_test_envs:impresario_test/Counter-v0";
const TROUBLE: &str = "impresario_test_envs:impresario_test/Trouble-v0";

fn interpreter() -> &'static str {
    python::interpreter().to_str().unwrap()
}

/// Trains for a number of steps, which must succeed; the summary.
fn train(run_dir: &Path, args: &[&str]) -> serde_json::Value {
    let fixed = ["train", "--python", interpreter(), "--run-dir", run_dir.to_str().unwrap(), "--seed", "1"];
    let ended = run(&[&fixed, args].concat());
    assert!([0, 3].contains(&ended.code()), "{}\n{}", ended.stdout, ended.stderr);
    let outcome = summary(run_dir);
    assert_balanced(&outcome);
    outcome
}

/// All copies of a rollout worker in one Python process, and none that is timed before the run: it matters here which step
/// fails.
const ONE_GROUP: [&str; 2] = ["--set", "rollout.double_buffering=off"];

#[test]
fn cartpole_of_gymnasium_is_learnt_like_the_native_one_and_can_be_evaluated() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let outcome =
        train(&run_dir, &["--env", "gym:CartPole-v1", "--steps", "400000", "--until-return", "150"]);
    assert_eq!(outcome["env"], "gym:CartPole-v1");
    assert_eq!(outcome["solved"], true, "a mean return of 150 within 400,000 steps: {outcome}");
    let ended = run(&["eval", run_dir.to_str().unwrap(), "--episodes", "2", "--python", interpreter()]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(ended.stdout.contains("over 2 episodes"), "{}", ended.stdout);
}

#[test]
fn an_episode_of_an_environment_of_gymnasium_is_filmed() {
    let folder = tempfile::tempdir().unwrap();
    let (run_dir, film) = (folder.path().join("run"), folder.path().join("episode.gif"));
    let short = ["--env", "gym:CartPole-v1", "--steps", "2000", "--until-return", "never", "--actors", "1"];
    train(&run_dir, &short);
    let (run_dir, film) = (run_dir.to_str().unwrap(), film.to_str().unwrap());
    let ended = run(&["eval", run_dir, "--episodes", "2", "--gif", film, "--python", interpreter()]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let first = ended.stdout.lines().next().unwrap();
    let steps: usize = first.rsplit_once(", ").unwrap().1.strip_suffix(" steps").unwrap().parse().unwrap();
    let mut decoder = gif::DecodeOptions::new().read_info(std::fs::File::open(film).unwrap()).unwrap();
    assert_eq!((decoder.width(), decoder.height()), (600, 400));
    let mut pictures = 0;
    while decoder.read_next_frame().unwrap().is_some() {
        pictures += 1;
    }
    assert_eq!(pictures, steps + 1, "{}", ended.stdout);
}

#[test]
fn an_environment_that_does_not_draw_itself_is_not_filmed() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    train(&run_dir, &["--env", COUNTER, "--steps", "200", "--until-return", "never", "--actors", "1"]);
    let film = folder.path().join("episode.gif");
    let ended =
        run(&["eval", run_dir.to_str().unwrap(), "--gif", film.to_str().unwrap(), "--python", interpreter()]);
    assert_eq!(ended.code(), 64, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("--gif: ") && ended.stderr.contains("without rgb_array"),
        "{}",
        ended.stderr
    );
}

#[test]
fn environments_are_listed_with_gymnasiums_by_where_they_come_from() {
    let ended = run(&["envs", "--python", interpreter()]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let groups: Vec<&str> = ended.stdout.split("\n\n").collect();
    assert!(groups[0].starts_with("ID ") && groups[0].contains("TMaze-v0"), "{}", groups[0]);
    let group = |name: &str| {
        let heading = format!("Gymnasium: {name}\n");
        *groups.iter().find(|group| group.starts_with(&heading)).unwrap_or_else(|| panic!("{name}"))
    };
    let line = |group: &str, id: &str| {
        let found = group.lines().find(|line| line.split(' ').next() == Some(id));
        found.unwrap_or_else(|| panic!("{id} in {group}")).to_owned()
    };
    let control = group("classic_control");
    assert!(line(control, "CartPole-v1").ends_with("has a native twin, above; gym:CartPole-v1 is this one"));
    assert!(line(control, "CartPole-v0").ends_with("CartPole-v1 is newer"));
    let mujoco = group("mujoco");
    let cheetah = line(mujoco, "HalfCheetah-v5");
    assert_eq!(cheetah.split_whitespace().collect::<Vec<_>>(), ["HalfCheetah-v5", "1000", "4800"]);
    assert!(!mujoco.contains("HalfCheetah-v2"), "it only raises an error: {mujoco}");
    line(group("box2d"), "LunarLander-v3");
    line(group("ALE"), "ALE/Pong-v5");
    assert!(!ended.stdout.contains("PongNoFrameskip"));
}

#[test]
fn without_gymnasium_native_environments_are_listed_and_a_line_says_how_to_get_it() {
    for (python, expected) in [
        (
            "/no/such/python",
            "cannot start Python with /no/such/python (chosen by --python or IMPRESARIO_PYTHON)",
        ),
        (bare_python().as_str(), "install it with: "),
    ] {
        let ended = run(&["envs", "--python", python]);
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        let (native, line) = ended.stdout.split_once("\n\n").unwrap();
        assert!(native.contains("CartPole-v1"), "{native}");
        let is_one = line.trim_end().lines().count() == 1;
        assert!(is_one && line.starts_with("Gymnasium's environments are not listed: "), "{line}");
        assert!(line.contains(expected), "{line}");
    }
}

/// A Python without any package, made once.
fn bare_python() -> String {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-bare");
    if !root.join("bin/python").exists() {
        let mut command = std::process::Command::new("python3");
        python::run(command.args(["-m", "venv", "--without-pip"]).arg(&root)).unwrap();
    }
    root.join("bin/python").to_str().unwrap().to_owned()
}

#[test]
fn the_example_package_is_learnt_in() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let task = ["--env", "greenhouse:Greenhouse-v0", "--actors", "1", "--until-return", "-60"];
    let outcome = train(&run_dir, &[&task[..], &["--steps", "1000000"]].concat());
    assert_eq!(outcome["solved"], true, "{outcome}");
}

#[test]
fn a_worker_that_fails_is_replaced_and_what_was_lost_is_in_the_books() {
    let folder = tempfile::tempdir().unwrap();
    let (run_dir, mark) = (folder.path().join("run"), folder.path().join("failed"));
    let mark = format!("environment.kwargs.mark={:?}", mark.display().to_string());
    let task = [
        "--env",
        TROUBLE,
        "--actors",
        "1",
        "--envs-per-actor",
        "4",
        "--steps",
        "2000",
        "--until-return",
        "never",
    ];
    let options =
        ["--set", "environment.kwargs.how=exit", "--set", "environment.kwargs.at=30", "--set", &mark];
    let outcome = train(&run_dir, &[&task[..], &options, &ONE_GROUP].concat());
    // The first unroll of 20 steps got through; in the second, 9 were taken by each of four copies.
    assert_eq!(outcome["accounting"]["dropped"]["environment_failure"], 36, "{outcome}");
}

#[test]
fn a_run_of_failures_stops_the_actor_with_the_cause() {
    let folder = tempfile::tempdir().unwrap();
    let options = ["--env", TROUBLE, "--set", "environment.kwargs.how=raise", "--envs-per-actor", "2"];
    let (_learner, url) = start_learner(folder.path(), &[&options[..], &ONE_GROUP].concat());
    let ended = start_actor(&url, &["--python", interpreter()]).end();
    assert_ne!(ended.code(), 0);
    for expected in [
        "failure 1 of at most 3 in a row",
        "3 failures in a row",
        "RuntimeError: the wheel came off",
        "about to fail",
    ] {
        assert!(ended.stderr.contains(expected), "no {expected:?} in:\n{}", ended.stderr);
    }
}

#[test]
fn a_worker_does_not_inherit_the_token() {
    const SECRET: &str = "a-token-that-is-nobodys-business";
    let folder = tempfile::tempdir().unwrap();
    let secret = [("IMPRESARIO_TOKEN", SECRET), ("IMPRESARIO_SEEN", "by everybody")];
    let task = ["--env", "impresario_test_envs:impresario_test/Telltale-v0", "--envs-per-actor", "2"];
    let (run_dir, listen) = (folder.path().join("run"), ["--listen", "127.0.0.1:0", "--log-format", "json"]);
    let run_dir = ["--run-dir", run_dir.to_str().unwrap()];
    let mut learner = start_with(&[&["learner"], &listen[..], &run_dir, &task, &ONE_GROUP].concat(), &secret);
    let address = learner.wait_for("the learner's address", |line| {
        let event: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(event["address"].as_str()?.to_owned())
    });
    let url = format!("http://{address}");
    let refused = start_actor(&url, &["--python", interpreter()]).end();
    assert!(refused.stderr.contains("this learner asks for a token"), "{}", refused.stderr);
    let ended = start_with(&["actor", "--learner", &url, "--python", interpreter()], &secret).end();
    assert_ne!(ended.code(), 0);
    let told = ended.stderr.lines().find(|line| line.contains("RuntimeError: variables:"));
    let told = told.unwrap_or_else(|| panic!("the environment told nothing:\n{}", ended.stderr));
    assert!(told.contains("'PATH'") && told.contains("'IMPRESARIO_SEEN': 'by everybody'"), "{told}");
    assert!(!told.contains("IMPRESARIO_TOKEN"), "{told}");
    assert!(!ended.stderr.contains(SECRET), "{}", ended.stderr);
}

#[test]
fn an_environment_that_cannot_be_had_is_refused_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let ended = run(&[
        "train",
        "--env",
        "LunarLandr-v3",
        "--python",
        interpreter(),
        "--run-dir",
        run_dir.to_str().unwrap(),
    ]);
    assert_eq!(ended.code(), 64, "{}", ended.stderr);
    assert!(ended.stderr.contains("did you mean \"LunarLander-v3\"?"), "{}", ended.stderr);
    assert!(!run_dir.exists());
}

#[test]
fn workers_do_not_outlive_an_actor_that_is_killed_even_in_a_step_that_hangs() {
    for (id, options) in [
        (COUNTER, vec!["--until-return", "never", "--steps", "1000000000"]),
        (TROUBLE, vec!["--set", "environment.kwargs.how=hang", "--set", "environment.kwargs.at=25"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let often = ["--env", id, "--set", "report.interval_seconds=0.1", "--set", "learner.batch_size=2"];
        let (mut learner, url) = start_learner(
            folder.path(),
            &[&often[..], &["--envs-per-actor", "2"], &options, &ONE_GROUP].concat(),
        );
        let actor = start_actor(&url, &["--python", interpreter()]);
        // Of the one that hangs, only the first unroll arrives.
        trained(&mut learner, 40);
        let workers = children(actor.pid());
        assert_eq!(workers.len(), 1);
        actor.signal("KILL");
        wait_until("its worker ends", || !runs(workers[0]));
    }
}
