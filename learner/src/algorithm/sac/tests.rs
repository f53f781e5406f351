//! SAC against PyTorch, and what must survive a restart.

use std::collections::BTreeMap;

use impresario_common::config::AlgorithmConfig;
use serde::Deserialize;

use super::*;
use crate::testing;

#[derive(Deserialize)]
struct Fixture {
    cases: Vec<Case>,
}

/// See tests/oracles/torch_sac.py.
#[derive(Deserialize)]
struct Case {
    kind: String,
    rows: usize,
    inputs: usize,
    hidden: Vec<usize>,
    actions_len: usize,
    gamma: f32,
    alpha: f32,
    reward_scale: f32,
    critics: BTreeMap<String, Vec<f32>>,
    slow: BTreeMap<String, Vec<f32>>,
    observations: Vec<f32>,
    params: Vec<f32>,
    next_observations: Vec<f32>,
    next_params: Vec<f32>,
    nvec: Vec<u32>,
    masks: Vec<u8>,
    next_masks: Vec<u8>,
    noise: Vec<f32>,
    next_noise: Vec<f32>,
    rewards: Vec<f32>,
    terminated: Vec<u8>,
    actions: Vec<f32>,
    targets: Vec<f32>,
    critic_loss: f64,
    d_critics: BTreeMap<String, Vec<f32>>,
    policy_loss: f64,
    entropy: f64,
    d_params: Vec<f32>,
}

fn run_config(config: SacConfig) -> RunConfig {
    let mut run = RunConfig::with_algorithm(AlgorithmConfig::Sac(config));
    run.policy.hidden = vec![5].into();
    run
}

fn sac(action: &Space, config: SacConfig) -> (Sac, TargetPolicy) {
    let run = run_config(config.clone());
    let environment = testing::environment(action.clone());
    let spec = PolicySpec::new(&environment, &run.policy).unwrap();
    let target = TargetPolicy::new(&run, &spec, &spec.initialise(7).unwrap()).unwrap();
    (Sac::new(&run, &config, &environment, &spec).unwrap(), target)
}

fn close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() < 2e-5 * b.abs().max(1.0), "{what}[{at}]: {a}, PyTorch has {b}");
    }
}

fn tensor(values: &[f32], columns: usize) -> Tensor {
    Tensor::from_slice(values, (values.len() / columns, columns), &Device::Cpu).unwrap()
}

#[test]
fn targets_losses_and_gradients_are_pytorchs() {
    let text = include_str!("../../../tests/fixtures/torch_sac.json");
    let fixture: Fixture = serde_json::from_str(text).unwrap();
    for case in &fixture.cases {
        let action = match case.kind.as_str() {
            "continuous" => Space::boxed(&vec![-1.0; case.actions_len], &vec![1.0; case.actions_len]),
            _ if case.nvec.len() > 1 => Space::MultiDiscrete { nvec: case.nvec.clone() },
            _ => Space::Discrete { n: case.nvec[0] },
        };
        let config = SacConfig {
            gamma: case.gamma,
            reward_scale: case.reward_scale,
            critic_hidden: case.hidden.clone(),
            ..SacConfig::default()
        };
        let (sac, target) = sac(&action, config);
        let load = |from: &BTreeMap<String, Vec<f32>>| {
            let shaped = |(name, var): (&str, &Var)| {
                (name.to_owned(), Tensor::from_slice(&from[name], var.shape(), &Device::Cpu).unwrap())
            };
            Weights(sac.critics.parameters.iter().map(shaped).collect())
        };
        sac.critics.parameters.load(&load(&case.critics)).unwrap();
        polyak::follow(&sac.slow, &Parameters::new(&load(&case.slow)).unwrap(), 1.0).unwrap();

        let actions = match sac.kind {
            Kind::Continuous(_) => Array::F32(case.actions.clone()),
            Kind::Discrete(_) => Array::I32(case.actions.iter().map(|a| *a as i32).collect()),
        };
        let sample = Sample {
            observations: Array::F32(case.observations.clone()),
            next_observations: Array::F32(case.next_observations.clone()),
            actions: actions.clone(),
            rewards: case.rewards.clone(),
            terminated: case.terminated.clone(),
            masks: case.masks.clone(),
            next_masks: case.next_masks.clone(),
        };
        let columns = case.params.len() / case.rows;
        let (input, next) =
            (tensor(&case.observations, case.inputs), tensor(&case.next_observations, case.inputs));
        let params = legal(&target, tensor(&case.next_params, columns), &sample.next_masks).unwrap();
        let targets = sac.targets(&sample, &next, &params, case.alpha, &case.next_noise).unwrap();
        close(&targets, &case.targets, "targets");

        let (loss, objective, _) = sac.critic_loss(&input, &actions, &case.targets).unwrap();
        assert!((loss - case.critic_loss).abs() < 1e-5, "{loss}, PyTorch has {}", case.critic_loss);
        let gradients = objective.backward().unwrap();
        for (name, var) in sac.critics.parameters.iter() {
            let gradient = gradients.get(var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            close(&gradient, &case.d_critics[name], name);
        }

        let params = legal(&target, tensor(&case.params, columns), &sample.masks).unwrap();
        let (loss, gradient, entropy) = sac.policy_loss(&input, &params, case.alpha, &case.noise).unwrap();
        assert!((loss - case.policy_loss).abs() < 1e-5, "{loss}, PyTorch has {}", case.policy_loss);
        assert!((entropy - case.entropy).abs() < 1e-5, "{entropy}, PyTorch has {}", case.entropy);
        close(&gradient, &case.d_params, "gradient of the policy's parameters");
    }
}

fn spaces() -> [Space; 3] {
    [Space::Discrete { n: 2 }, Space::MultiDiscrete { nvec: vec![2, 3] }, Space::boxed(&[-1.0; 2], &[1.0; 2])]
}

fn small() -> SacConfig {
    SacConfig {
        replay_batch: 16,
        learning_starts: 24,
        updates_per_step: 0.25,
        critic_hidden: vec![6],
        ..SacConfig::default()
    }
}

/// Everything that an update may change.
fn everything(sac: &Sac, target: &TargetPolicy) -> Vec<(String, Vec<f32>)> {
    let flat = |(name, tensor): (String, Tensor)| (name, tensor.flatten_all().unwrap().to_vec1().unwrap());
    let weights = target.parameters().copied().unwrap().0;
    let moments = target.optimizer().state().unwrap().moments.0;
    weights.into_iter().chain(moments).chain(sac.state().unwrap().0).map(flat).collect()
}

#[test]
fn it_waits_for_the_replay_and_then_takes_the_steps_that_a_batch_is_worth() {
    for action in spaces() {
        let (mut sac, mut target) = sac(&action, small());
        let mut version = 0;
        for seed in 0..4 {
            let before = everything(&sac, &target);
            let progress = Progress { env_steps: 12 * seed, version };
            let report = sac.update(&mut target, &testing::batch(&action, seed), progress).unwrap();
            if seed == 0 {
                assert_eq!(report.outcome, Outcome::Kept);
                assert_eq!(everything(&sac, &target), before);
                continue;
            }
            assert_eq!(report.outcome, Outcome::Applied);
            // 12 steps, a quarter of a gradient step for each.
            assert_eq!(report.metrics.get("gradient_steps"), Some(3.0));
            version += 1;
            for ((name, before), (_, after)) in before.iter().zip(everything(&sac, &target)) {
                // Of the value head, which SAC has no use for, nothing is learned.
                let idle = name.starts_with("value") || name == "due";
                assert_eq!(*before == after, idle, "{action}: {name}");
            }
        }
    }
}

#[test]
fn a_restored_method_goes_on_bit_for_bit() {
    for action in spaces() {
        let ((mut first, mut target), (mut second, mut other)) =
            (sac(&action, small()), sac(&action, small()));
        for seed in 0..3 {
            let progress = Progress { env_steps: 0, version: seed };
            first.update(&mut target, &testing::batch(&action, seed), progress).unwrap();
        }
        second.load_state(&first.state().unwrap()).unwrap();
        other.parameters().load(&target.parameters().copied().unwrap()).unwrap();
        other.optimizer_mut().load_state(&target.optimizer().state().unwrap()).unwrap();
        // The replay is not part of the state.
        second.replay = Replay::new(1000, &testing::environment(action.clone()));
        first.replay = Replay::new(1000, &testing::environment(action.clone()));
        for seed in 5..8 {
            let progress = Progress { env_steps: 0, version: seed };
            first.update(&mut target, &testing::batch(&action, seed), progress).unwrap();
            second.update(&mut other, &testing::batch(&action, seed), progress).unwrap();
        }
        assert_eq!(everything(&first, &target), everything(&second, &other));
    }
}

#[test]
fn an_update_that_turns_infinite_leaves_everything_as_it_was() {
    for action in spaces() {
        let (mut sac, mut target) = sac(&action, SacConfig { learning_starts: 12, ..small() });
        let mut batch = testing::batch(&action, 2);
        batch.rewards.fill(f32::MAX);
        let before = everything(&sac, &target);
        let report = sac.update(&mut target, &batch, Progress { env_steps: 0, version: 0 }).unwrap();
        assert!(matches!(report.outcome, Outcome::Skipped { .. }), "{:?}", report.outcome);
        let after = everything(&sac, &target);
        for ((name, before), (_, after)) in before.iter().zip(after) {
            assert!(*before == after || name == "due", "{name} has changed");
        }
    }
}

#[test]
fn critics_look_at_pixels_with_trunks_of_their_own() {
    for action in spaces() {
        let mut run = run_config(small());
        (run.policy.channels, run.policy.layer_norm) = (vec![3].into(), true);
        let environment = testing::pixel_environment(action.clone());
        let spec = PolicySpec::new(&environment, &run.policy).unwrap();
        let mut target = TargetPolicy::new(&run, &spec, &spec.initialise(7).unwrap()).unwrap();
        let mut sac = Sac::new(&run, &small(), &environment, &spec).unwrap();
        let names: Vec<_> = sac.critics.parameters.iter().map(|(name, _)| name.to_owned()).collect();
        assert_eq!(names[..2], ["critic.0.convolution.0.weight", "critic.0.convolution.0.bias"]);
        let before = everything(&sac, &target);
        for seed in 0..3 {
            let progress = Progress { env_steps: 0, version: seed };
            sac.update(&mut target, &testing::pixel_batch(&action, seed), progress).unwrap();
        }
        for ((name, before), (_, after)) in before.iter().zip(everything(&sac, &target)) {
            let idle = name.starts_with("value") || name == "due";
            assert_eq!(*before == after, idle, "{action}: {name}");
        }
    }
}

#[test]
fn actions_that_it_cannot_learn_are_refused() {
    let refused = |action: Space, squash: bool| {
        let mut run = run_config(SacConfig::default());
        run.policy.squash = squash;
        let environment = testing::environment(action);
        let spec = PolicySpec::new(&environment, &run.policy).unwrap();
        Sac::new(&run, &SacConfig::default(), &environment, &spec).unwrap_err().to_string()
    };
    let many = refused(Space::MultiDiscrete { nvec: vec![9; 4] }, true);
    assert!(many.contains("MultiDiscrete([9, 9, 9, 9]) has more than 4096"), "{many}");
    assert!(refused(Space::boxed(&[-1.0], &[1.0]), false).contains("policy.squash = true"));
}

#[test]
fn the_entropy_aimed_at_is_half_of_what_the_legal_actions_allow() {
    let (sac, _) =
        sac(&Space::MultiDiscrete { nvec: vec![2, 4] }, SacConfig { target_entropy_scale: 0.8, ..small() });
    let close =
        |found: f64, expected: f64| assert!((found - expected).abs() < 1e-6, "{found}, not {expected}");
    close(sac.entropy_aimed_at(2, &[]), 0.4 * 8f64.ln());
    let masks = [1, 0, 1, 0, 0, 0, 1, 1, 1, 1, 1, 0];
    close(sac.entropy_aimed_at(2, &masks), 0.4 * 6f64.ln() / 2.0);
}

#[test]
fn with_masks_it_learns_among_the_legal_actions_alone() {
    let action = Space::Discrete { n: 3 };
    let run = run_config(small());
    let environment = testing::environment(action.clone()).with_masked_actions();
    let spec = PolicySpec::new(&environment, &run.policy).unwrap();
    let mut target = TargetPolicy::new(&run, &spec, &spec.initialise(7).unwrap()).unwrap();
    let mut sac = Sac::new(&run, &small(), &environment, &spec).unwrap();
    for seed in 0..6 {
        let mut batch = testing::batch(&action, seed);
        // The third alternative is always illegal, and no step was taken with it.
        batch.action_masks = [1, 1, 0].repeat(12);
        let progress = Progress { env_steps: 0, version: seed };
        let before =
            target.parameters().shared().get("policy.weight", &[3, 5]).unwrap().to_vec2::<f32>().unwrap();
        let report = sac.update(&mut target, &batch, progress).unwrap();
        // 8 of 12 steps lead to a known mask or terminate.
        assert_eq!(report.metrics.get("replay"), Some(8.0 * (seed + 1) as f32));
        let after =
            target.parameters().shared().get("policy.weight", &[3, 5]).unwrap().to_vec2::<f32>().unwrap();
        match report.outcome {
            Outcome::Kept => assert!(seed < 2),
            Outcome::Applied => {
                assert_ne!(before[..2], after[..2]);
                assert_eq!(before[2], after[2], "nothing is learned of what cannot be done");
                assert!(report.metrics.get("entropy").unwrap() <= 2f32.ln() + 1e-6);
            }
            Outcome::Skipped { reason } => panic!("{reason}"),
        }
    }
}
