//! The native environments beyond classic control, through the whole system: what is special about each reaches training and
//! `eval`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use impresario_common::composite::Composite;
use impresario_common::config::RunConfig;
use impresario_common::space::{EnvironmentSpec, Space};
use impresario_learner::checkpoint;
use impresario_learner::trainer::Trainer;
use support::{assert_balanced, run, summary};

/// Trains for a number of steps; what `eval` prints, and the mean return at the end.
fn train_and_eval(env: &str, steps: &str, more: &[&str]) -> (String, f64) {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let path = run_dir.to_str().unwrap();
    let task = ["train", "--env", env, "--steps", steps, "--until-return", "never", "--seed", "1"];
    let ended = run(&[&task, &["--run-dir", path][..], more].concat());
    assert_eq!(ended.code(), 0, "{}\n{}", ended.stdout, ended.stderr);
    let outcome = summary(&run_dir);
    assert_balanced(&outcome);
    let ended = run(&["eval", path, "--episodes", "20"]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    (ended.stdout, outcome["mean_return_100"].as_f64().unwrap())
}

/// The exploitability that `eval` printed.
fn exploitability(printed: &str) -> f64 {
    let after = printed.rsplit_once("exploitability: ").expect("eval prints it").1;
    after.split_once(' ').unwrap().0.parse().unwrap()
}

#[test]
fn eval_tells_how_exploitable_a_policy_of_a_matrix_game_is() {
    let (printed, _) = train_and_eval("RockPaperScissors-v0", "20000", &["--actors", "1"]);
    let value = exploitability(&printed);
    assert!((0.0..=1.0).contains(&value), "{printed}");
    assert!(printed.contains("2000 observations"), "{printed}");
}

#[test]
fn a_policy_that_starts_far_from_the_equilibrium_learns_it_and_the_record_shows_how() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let path = run_dir.to_str().unwrap();
    let recipe = concat!(env!("CARGO_MANIFEST_DIR"), "/benchmarks/recipes/ppo-RockPaperScissors-v0.toml");
    let task = ["train", "--config", recipe, "--seed", "4", "--steps", "100000"];
    let task = [&task[..], &["--set", "report.checkpoint_steps=20000", "--run-dir", path]].concat();
    let ended = run(&task);
    assert_eq!(ended.code(), 0, "{}\n{}", ended.stdout, ended.stderr);
    let ended = run(&["eval", path, "--all", "--record", "--episodes", "5"]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);

    let record = std::fs::read_to_string(run_dir.join("evaluations.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> =
        record.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let steps: Vec<u64> = lines.iter().map(|line| line["env_steps"].as_u64().unwrap()).collect();
    // Lockstep updates of 128 x 16 steps: a checkpoint at the first that reaches each multiple, and one at the end.
    assert_eq!(steps, [0, 20480, 40960, 61440, 81920, 100352]);
    let values: Vec<f64> =
        lines.iter().map(|line| line["evaluation"]["exploitability"].as_f64().unwrap()).collect();
    let (first, last) = (values[0], values[values.len() - 1]);
    assert!(first > 0.3, "untrained, by the initialisation: {values:?}");
    assert!(last < 0.1, "trained: {values:?}");
    assert_eq!(ended.stdout.matches("exploitability: ").count(), lines.len(), "{}", ended.stdout);

    let picture = folder.path().join("curve.svg");
    let ended = run(&["plot", path, "--y", "exploitability", "-o", picture.to_str().unwrap()]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(std::fs::read_to_string(picture).unwrap().contains("exploitability"));
}

#[test]
fn one_policy_plays_both_sides_of_a_game() {
    let (printed, mean_return) =
        train_and_eval("RockPaperScissorsSelfPlay-v0", "20000", &["--actors", "1", "--envs-per-actor", "8"]);
    // Of both players' observations; what one wins the other loses.
    assert!(printed.contains("4000 observations"), "{printed}");
    assert!((0.0..=1.0).contains(&exploitability(&printed)));
    assert_eq!(mean_return, 0.0);
}

#[test]
fn a_player_without_a_partner_is_refused_with_what_to_change() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let task = ["train", "--env", "RockPaperScissorsSelfPlay-v0", "--actors", "1", "--envs-per-actor", "3"];
    let ended = run(&[&task[..], &["--run-dir", run_dir.to_str().unwrap()]].concat());
    assert_ne!(ended.code(), 0);
    let said = format!("{}{}", ended.stdout, ended.stderr);
    assert!(
        said.contains("played by 2 copies together") && said.contains("rollout.envs_per_actor"),
        "{said}"
    );
}

#[test]
fn eval_tells_the_share_of_targets_reached() {
    let (printed, _) = train_and_eval("TwoJointArm-v0", "20000", &["--actors", "1"]);
    let reached = printed.rsplit_once("targets reached: ").expect("eval prints it").1;
    assert!(reached.contains(" % (") && reached.contains(" of 20)"), "{printed}");
}

#[test]
fn observations_of_several_choices_are_learnt_from() {
    let scale = ["--set", "algorithm.reward_scale=1"];
    let (_, mean_return) = train_and_eval("TicTacToe-v0", "300000", &scale);
    // Policies that have learnt nothing lose most games by a mark in a taken cell: -0.9.
    assert!(mean_return > 0.2, "the mean return is {mean_return}");
}

#[test]
fn eval_refuses_a_policy_that_was_trained_on_other_parts_of_observations() {
    let folder = tempfile::tempdir().unwrap();
    let state = Space::boxed(&[-4.8, f32::NEG_INFINITY], &[4.8, f32::INFINITY]);
    let angle = Space::boxed(&[-0.418_879_03, f32::NEG_INFINITY], &[0.418_879_03, f32::INFINITY]);
    let parts = Composite::dict([("cart", state.into()), ("pole", angle.into())]);
    let environment = EnvironmentSpec::new("CartPole-v1", parts, Space::Discrete { n: 2 });
    let trainer = Trainer::new(&RunConfig::default(), &environment).unwrap();
    let retention = checkpoint::Retention::of_run(&RunConfig::default());
    checkpoint::save(&folder.path().join("checkpoints"), &trainer.checkpoint(0).unwrap(), retention).unwrap();
    let ended = run(&["eval", folder.path().to_str().unwrap()]);
    assert_ne!(ended.code(), 0);
    // The flat boxes are the same.
    assert!(ended.stderr.contains("part 0 is \"cart\""), "{}", ended.stderr);
    assert!(ended.stderr.contains("but of observations without parts here"), "{}", ended.stderr);
}

#[test]
fn an_episode_is_filmed_from_its_first_state_to_its_last() {
    let folder = tempfile::tempdir().unwrap();
    let (run_dir, film) = (folder.path().join("run"), folder.path().join("episode.gif"));
    let (run_dir, film) = (run_dir.to_str().unwrap(), film.to_str().unwrap());
    for (env, size) in
        [("CartPole-v1", [300, 120]), ("TwoJointArm-v0", [220, 220]), ("MinAtar/Breakout-v1", [160, 160])]
    {
        let steps = ["--steps", "2000", "--until-return", "never", "--actors", "1", "--run-dir", run_dir];
        let ended = run(&[&["train", "--env", env][..], &steps].concat());
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        let ended = run(&["eval", run_dir, "--episodes", "2", "--gif", film]);
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        let first = ended.stdout.lines().next().unwrap();
        let steps: usize =
            first.rsplit_once(", ").unwrap().1.strip_suffix(" steps").unwrap().parse().unwrap();

        let mut options = gif::DecodeOptions::new();
        options.set_color_output(gif::ColorOutput::RGBA);
        let mut decoder = options.read_info(std::fs::File::open(film).unwrap()).unwrap();
        assert_eq!([decoder.width(), decoder.height()], size);
        let mut pictures = vec![];
        while let Some(frame) = decoder.read_next_frame().unwrap() {
            pictures.push(frame.buffer.to_vec());
        }
        assert_eq!(pictures.len(), steps + 1, "{}", ended.stdout);
        assert!(pictures.windows(2).any(|pair| pair[0] != pair[1]), "nothing moves in {env}");
        std::fs::remove_dir_all(run_dir).unwrap();
    }
}

#[test]
fn an_environment_that_does_not_draw_itself_is_not_filmed() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let run_dir = run_dir.to_str().unwrap();
    let task = ["train", "--env", "TMaze-v0", "--steps", "2000", "--until-return", "never", "--actors", "1"];
    assert_eq!(run(&[&task[..], &["--run-dir", run_dir]].concat()).code(), 0);
    let ended = run(&["eval", run_dir, "--gif", "never.gif"]);
    assert_eq!(ended.code(), 64, "{}", ended.stderr);
    assert!(ended.stderr.contains("TMaze-v0: it does not draw itself"), "{}", ended.stderr);
}
