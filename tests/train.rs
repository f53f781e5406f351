//! `impresario train` from the command line to the files it leaves, and `eval` on them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::{assert_balanced, run, summary};

#[test]
fn train_solves_cartpole_and_leaves_a_run_that_eval_plays() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let path = run_dir.to_str().unwrap();
    let ended = run(&["train", "--seed", "1", "--run-dir", path]);
    assert_eq!(ended.code(), 0, "{}\n{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("solved CartPole-v1"), "{}", ended.stdout);

    let outcome = summary(&run_dir);
    assert_eq!(outcome["solved"], true);
    assert!(outcome["mean_return_100"].as_f64().unwrap() >= 475.0);
    assert!(outcome["solved_at_step"].as_u64().unwrap() <= 500_000);
    assert_balanced(&outcome);
    assert!(outcome["policy_lag"]["max"].as_u64().unwrap() <= 4, "the default bound holds");

    let metrics = std::fs::read_to_string(run_dir.join("metrics.jsonl")).unwrap();
    for line in metrics.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["steps_per_second"].is_number() && line["verdict"].is_object(), "{line}");
    }
    assert!(!metrics.is_empty());
    let config = std::fs::read_to_string(run_dir.join("config.toml")).unwrap();
    assert!(config.contains("id = \"CartPole-v1\""), "{config}");
    let names: Vec<_> =
        std::fs::read_dir(&run_dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().any(|name| name.starts_with("events.out.tfevents.")), "{names:?}");

    let played = |choice: &[&str]| {
        let ended = run(&[&["eval", path, "--episodes", "20", "--seed", "3"], choice].concat());
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        let mean = ended.stdout.rsplit_once("mean return ").unwrap().1.split_once(' ').unwrap().0;
        mean.parse::<f64>().unwrap()
    };
    // The sampled policy is the one that was trained to 475; a random one reaches 22, the greedy one may differ.
    let (sampled, greedy) = (played(&[]), played(&["--greedy"]));
    assert!(sampled >= 400.0, "sampled actions reach {sampled}");
    assert!(greedy >= 100.0, "greedy actions reach {greedy}");
}

#[test]
fn a_budget_that_ends_before_the_goal_exits_with_3() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let ended = run(&["train", "--steps", "5000", "--actors", "1", "--run-dir", run_dir.to_str().unwrap()]);
    assert_eq!(ended.code(), 3, "{}", ended.stderr);
    assert!(ended.stdout.contains("not solved"), "{}", ended.stdout);
    let outcome = summary(&run_dir);
    assert_eq!(outcome["solved"], false);
    assert!(outcome["env_steps"].as_u64().unwrap() >= 5000);
    assert_balanced(&outcome);
}

#[test]
fn lockstep_runs_of_one_seed_end_in_the_same_weights() {
    let folder = tempfile::tempdir().unwrap();
    let weights = |algorithm: &str, name: &str, seed: &str| {
        let run_dir = folder.path().join(format!("{algorithm}-{name}"));
        let path = run_dir.to_str().unwrap();
        let lockstep =
            ["--algorithm", algorithm, "--set", "learner.max_policy_lag=0", "--until-return", "never"];
        let size = ["--envs-per-actor", "8", "--set", "learner.batch_size=16", "--steps", "20000"];
        // Several workers finish in an order of their own.
        let workers = ["--set", "rollout.workers_per_actor=2"];
        let ended =
            run(&[&["train", "--seed", seed, "--run-dir", path][..], &lockstep, &size, &workers].concat());
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        let outcome = summary(&run_dir);
        assert_eq!(outcome["policy_lag"]["max"], 0);
        assert_balanced(&outcome);
        let (_, checkpoint) =
            impresario_learner::checkpoint::latest(&run_dir.join("checkpoints")).unwrap().unwrap();
        let flat = |tensor: &candle_core::Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        checkpoint.weights.0.iter().map(|(name, tensor)| (name.clone(), flat(tensor))).collect::<Vec<_>>()
    };
    for algorithm in ["impala", "a2c", "ppo", "trpo", "reinforce"] {
        let first = weights(algorithm, "first", "5");
        assert_eq!(first, weights(algorithm, "second", "5"), "{algorithm}");
        assert_ne!(first, weights(algorithm, "other", "6"), "{algorithm}");
    }
}

#[test]
fn a_policy_that_sees_several_frames_trains_in_lockstep_and_is_evaluated_as_it_was_trained() {
    let folder = tempfile::tempdir().unwrap();
    let weights = |name: &str| {
        let run_dir = folder.path().join(name);
        let path = run_dir.to_str().unwrap();
        let stacked = ["--set", "environment.frame_stack=4", "--set", "learner.max_policy_lag=0"];
        let size = ["--envs-per-actor", "8", "--set", "learner.batch_size=16", "--steps", "20000"];
        let run_flags = ["train", "--algorithm", "ppo", "--until-return", "never", "--run-dir", path];
        let ended = run(&[&run_flags[..], &stacked, &size].concat());
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        assert_balanced(&summary(&run_dir));
        let (_, checkpoint) =
            impresario_learner::checkpoint::latest(&run_dir.join("checkpoints")).unwrap().unwrap();
        let layer = checkpoint.weights.0.iter().find(|(name, _)| name == "encoder.0.weight").unwrap();
        layer.1.to_vec2::<f32>().unwrap()
    };
    let first = weights("first");
    assert_eq!(first[0].len(), 16, "four frames of four numbers");
    assert_eq!(first, weights("second"));

    let played = run(&["eval", folder.path().join("first").to_str().unwrap(), "--episodes", "5"]);
    assert_eq!(played.code(), 0, "{}", played.stderr);
    assert!(played.stdout.contains("mean return"), "{}", played.stdout);
}

#[test]
fn lockstep_with_double_buffering_trains_on_every_step_and_repeats_itself() {
    let folder = tempfile::tempdir().unwrap();
    let weights = |name: &str| {
        let run_dir = folder.path().join(name);
        let path = run_dir.to_str().unwrap();
        let two_groups = ["--set", "rollout.double_buffering=on", "--set", "learner.max_policy_lag=0"];
        let size = ["--envs-per-actor", "8", "--set", "learner.batch_size=16", "--steps", "20000"];
        let run_flags = ["train", "--algorithm", "a2c", "--until-return", "never", "--run-dir", path];
        let ended = run(&[&run_flags[..], &two_groups, &size].concat());
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        assert_balanced(&summary(&run_dir));
        let (_, checkpoint) =
            impresario_learner::checkpoint::latest(&run_dir.join("checkpoints")).unwrap().unwrap();
        let flat = |tensor: &candle_core::Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        checkpoint.weights.0.iter().map(|(_, tensor)| flat(tensor)).collect::<Vec<_>>()
    };
    assert_eq!(weights("first"), weights("second"));
}

#[test]
fn environments_are_listed() {
    let ended = run(&["envs"]);
    assert_eq!(ended.code(), 0);
    for id in ["Acrobot-v1", "CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1"] {
        assert!(ended.stdout.contains(id), "{}", ended.stdout);
    }
}

#[test]
fn a_users_mistakes_are_answered_before_anything_starts() {
    let says = |args: &[&str], code: i32, expected: &str| {
        let ended = run(args);
        assert_eq!(ended.code(), code, "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{args:?} answered {:?}, not {expected:?}", ended.stderr);
    };
    says(&["train", "--env", "CartPole-v0"], 64, "did you mean \"CartPole-v1\"");
    says(&["train", "--set", "optimizer.lr=1"], 64, "unknown key optimizer.lr");
    says(&["train", "--config", "/no/such/file.toml"], 64, "/no/such/file.toml");
    says(&["train", "--algorithm", "alchemy"], 64, "alchemy");
    let stacked_choices = ["train", "--env", "TicTacToe-v0", "--set", "environment.frame_stack=4"];
    says(&stacked_choices, 64, "are choices, which are not stacked");
    says(&["eval", "/no/such/run"], 1, "/no/such/run");
    says(&["actor", "--learner", "nonsense"], 64, "nonsense");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.toml"), "").unwrap();
    says(&["train", "--run-dir", folder.path().to_str().unwrap()], 64, "config.toml");
}

#[test]
fn a_run_that_cannot_go_well_is_refused_before_anything_starts_with_what_to_change() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let run_dir = ["--run-dir", run_dir.to_str().unwrap()];
    let refused = |args: &[&str], expected: &str| {
        let ended = run(&[args, &run_dir].concat());
        assert_eq!(ended.code(), 64, "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{args:?}: no {expected:?} in {}", ended.stderr);
        assert!(!ended.stderr.contains("listens on"), "{args:?}: {}", ended.stderr);
        assert!(!std::path::Path::new(run_dir[1]).exists(), "{args:?} leaves nothing");
    };
    let endless = ["--algorithm", "sac", "--set", "algorithm.replay_capacity=1000000000000"];
    let learner = ["learner", "--listen", "127.0.0.1:0"];
    let too_much = "lower algorithm.replay_capacity";
    refused(&[&learner[..], &endless].concat(), too_much);
    refused(&[&["train"][..], &endless].concat(), too_much);
    // Whatever the environment, which this program does not know.
    refused(&[&learner[..], &endless, &["--env", "Unheard-v0"]].concat(), too_much);
    let queue = ["--set", "learner.queue_bytes=10000"];
    for command in [&learner[..], &["train"]] {
        refused(&[command, &queue].concat(), "learner.queue_bytes is 10000: raise it");
    }
    let large = ["train", "--envs-per-actor", "64", "--set", "learner.batch_size=8"];
    refused(&large, "an unroll of 64 environment copies exceeds the 40 columns");
    let waits = ["train", "--actors", "2", "--set", "learner.wait_for_actors=3"];
    refused(&waits, "learner.wait_for_actors is 3, and 2 actors would wait for the others for ever");
    let few = ["train", "--actors", "9", "--set", "limits.connections=16"];
    refused(&few, "limits.connections is 16, must be at least twice learner.wait_for_actors");
}

#[test]
fn memory_is_told_before_the_learner_listens() {
    let folder = tempfile::tempdir().unwrap();
    let (learner, _) = support::start_learner(&folder.path().join("run"), &[]);
    let log = learner.log();
    let told = log.find("memory, at most about: network").unwrap_or_else(|| panic!("{log}"));
    assert!(told < log.find("learner listens on").unwrap(), "{log}");
}

#[test]
fn a_stopped_run_resumes_from_its_checkpoint_and_counts_on() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let path = run_dir.to_str().unwrap();
    let ended = run(&["train", "--until-return", "never", "--steps", "30000", "--run-dir", path]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let first = summary(&run_dir);

    let again = run(&["train", "--until-return", "never", "--steps", "60000", "--run-dir", path]);
    assert_eq!(again.code(), 64, "a run is not overwritten by accident");
    assert!(again.stderr.contains("--resume"), "{}", again.stderr);

    let more_memory = ["--algorithm", "sac", "--set", "algorithm.replay_capacity=1000000000000"];
    let refused = run(&[&["train", "--resume", "--run-dir", path][..], &more_memory].concat());
    assert_eq!(refused.code(), 64, "{}", refused.stderr);

    let resumed = run(&["train", "--resume", "--steps", "60000", "--run-dir", path]);
    assert_eq!(resumed.code(), 0, "{}", resumed.stderr);
    let second = summary(&run_dir);
    let count = |summary: &serde_json::Value, key: &str| summary[key].as_u64().unwrap();
    assert!(count(&second, "env_steps") >= 60_000);
    assert!(count(&second, "updates") > count(&first, "updates"));
    assert!(count(&second, "episodes") > count(&first, "episodes"));
    assert_eq!(count(&second, "env_steps"), 640 * count(&second, "updates"), "versions count on");
    assert_balanced(&second);
}
