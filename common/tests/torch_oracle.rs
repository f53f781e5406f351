//! The policy's numerics against PyTorch's: distributions, dense layers, optimiser steps.
//!
//! The fixture is written by `tests/oracles/torch_distributions.py`, in double precision.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use candle_core::{Device, Tensor, Var};
use impresario_common::config::{Exploration, PolicySection};
use impresario_common::kernels::{
    Activation, Adam, EpsilonPlacement, RmsProp, adam_step, linear, linear_into, rmsprop_step,
};
use impresario_common::policy::distribution::{ActionDistribution, Actions};
use impresario_common::policy::{Policy, PolicySpec};
use impresario_common::space::{EnvironmentSpec, Space};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    torch: String,
    categorical: Vec<Density>,
    normal: Vec<Density>,
    squashed: Vec<Density>,
    masked: Vec<Masked>,
    gsde: Vec<Gsde>,
    linear: Vec<Layer>,
    rmsprop: Vec<Steps<RmsPropSettings>>,
    rmsprop_tensorflow: Vec<Steps<RmsPropSettings>>,
    adam: Vec<Steps<AdamSettings>>,
}

#[derive(Deserialize)]
struct Density {
    #[serde(default)]
    nvec: Vec<u32>,
    #[serde(default)]
    dimensions: usize,
    params: Vec<f64>,
    other: Vec<f64>,
    actions: Vec<f64>,
    weights: Vec<f64>,
    log_prob: Vec<f64>,
    entropy: Vec<f64>,
    kl: Vec<f64>,
    gradient: Vec<f64>,
}

#[derive(Deserialize)]
struct Masked {
    nvec: Vec<u32>,
    params: Vec<f64>,
    masks: Vec<u8>,
    actions: Vec<i32>,
    weights: Vec<f64>,
    log_prob: Vec<f64>,
    entropy: Vec<f64>,
    gradient: Vec<f64>,
}

#[derive(Deserialize)]
struct Gsde {
    features: usize,
    dimensions: usize,
    phi: Vec<f64>,
    weight: Vec<f64>,
    log_std: Vec<f64>,
    actions: Vec<f64>,
    weights: Vec<f64>,
    log_prob: Vec<f64>,
    entropy: Vec<f64>,
    of_weight: Vec<f64>,
    of_log_std: Vec<f64>,
}

#[derive(Deserialize)]
struct Layer {
    rows: usize,
    activation: String,
    x: Vec<f64>,
    weight: Vec<f64>,
    bias: Vec<f64>,
    y: Vec<f64>,
    grad: Vec<f64>,
    dx: Vec<f64>,
    dw: Vec<f64>,
    db: Vec<f64>,
}

#[derive(Deserialize)]
struct Steps<S> {
    settings: S,
    start: Vec<f64>,
    gradients: Vec<Vec<f64>>,
    after: Vec<Vec<f64>>,
}

#[derive(Deserialize)]
struct RmsPropSettings {
    lr: f32,
    alpha: f32,
    eps: f32,
    momentum: f32,
}

#[derive(Deserialize)]
struct AdamSettings {
    lr: f32,
    betas: [f32; 2],
    eps: f32,
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("fixtures/torch_distributions.json")).unwrap()
}

fn narrow(numbers: &[f64]) -> Vec<f32> {
    numbers.iter().map(|x| *x as f32).collect()
}

#[track_caller]
fn assert_close(what: &str, ours: &[f32], torch: &[f64], tolerance: f64) {
    assert_eq!(ours.len(), torch.len(), "{what}");
    for (at, (ours, torch)) in ours.iter().zip(torch).enumerate() {
        let error = (f64::from(*ours) - torch).abs();
        assert!(error <= tolerance * torch.abs().max(1.0), "{what}[{at}]: {ours}, torch has {torch}");
    }
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn check_density(case: &Density, distribution: &ActionDistribution, actions: Actions) {
    let (rows, columns) = (case.log_prob.len(), distribution.parameter_count());
    let params = Var::from_vec(narrow(&case.params), (rows, columns), &Device::Cpu).unwrap();
    let out = distribution.log_prob_entropy(&params, actions).unwrap();
    assert_close("log-probability", &numbers(&out.narrow(1, 0, 1).unwrap()), &case.log_prob, 2e-6);
    assert_close("entropy", &numbers(&out.narrow(1, 1, 1).unwrap()), &case.entropy, 2e-6);

    let weights = Tensor::from_vec(narrow(&case.weights), (rows, 2), &Device::Cpu).unwrap();
    let grads = (out * weights).unwrap().sum_all().unwrap().backward().unwrap();
    assert_close("gradient", &numbers(grads.get(&params).unwrap()), &case.gradient, 5e-6);

    let (params, other) = (narrow(&case.params), narrow(&case.other));
    let pairs = params.chunks(columns).zip(other.chunks(columns));
    let divergences: Vec<f32> = pairs.map(|(p, q)| distribution.kl(p, q)).collect();
    assert_close("divergence", &divergences, &case.kl, 5e-6);
    let entropies: Vec<f32> = params.chunks(columns).map(|row| distribution.entropy(row)).collect();
    assert_close("entropy of a row", &entropies, &case.entropy, 2e-6);
}

#[test]
fn categorical_distributions_match_torch() {
    for case in fixture().categorical {
        let space = match &case.nvec[..] {
            [n] => Space::Discrete { n: *n },
            nvec => Space::MultiDiscrete { nvec: nvec.to_vec() },
        };
        let actions = case.actions.iter().map(|a| *a as i32).collect();
        check_density(&case, &ActionDistribution::new(&space).unwrap(), Actions::Discrete(actions));
    }
}

#[test]
fn normal_distributions_match_torch() {
    for case in fixture().normal {
        let space = Space::boxed(&vec![-1.0; case.dimensions], &vec![1.0; case.dimensions]);
        let shape = (case.log_prob.len(), case.dimensions);
        let actions = Tensor::from_vec(narrow(&case.actions), shape, &Device::Cpu).unwrap();
        check_density(&case, &ActionDistribution::new(&space).unwrap(), Actions::Continuous(actions));
    }
}

#[test]
fn squashed_normal_distributions_match_torch() {
    for case in fixture().squashed {
        let space = Space::boxed(&vec![-1.0; case.dimensions], &vec![1.0; case.dimensions]);
        let shape = (case.log_prob.len(), case.dimensions);
        let actions = Tensor::from_vec(narrow(&case.actions), shape, &Device::Cpu).unwrap();
        check_density(&case, &ActionDistribution::squashed(&space).unwrap(), Actions::Continuous(actions));
    }
}

#[test]
fn masked_distributions_match_torchs_over_the_legal_alternatives_alone() {
    for case in fixture().masked {
        let distribution = ActionDistribution::new(&Space::MultiDiscrete { nvec: case.nvec }).unwrap();
        let (rows, columns) = (case.log_prob.len(), distribution.parameter_count());
        let params = Var::from_vec(narrow(&case.params), (rows, columns), &Device::Cpu).unwrap();
        let masked = distribution.masked(&params, &case.masks).unwrap();
        let out = distribution.log_prob_entropy(&masked, Actions::Discrete(case.actions.into())).unwrap();
        assert_close("log-probability", &numbers(&out.narrow(1, 0, 1).unwrap()), &case.log_prob, 2e-6);
        assert_close("entropy", &numbers(&out.narrow(1, 1, 1).unwrap()), &case.entropy, 2e-6);
        let weights = Tensor::from_vec(narrow(&case.weights), (rows, 2), &Device::Cpu).unwrap();
        let grads = (out * weights).unwrap().sum_all().unwrap().backward().unwrap();
        assert_close("gradient", &numbers(grads.get(&params).unwrap()), &case.gradient, 5e-6);

        let mut slice = narrow(&case.params);
        distribution.mask(&mut slice, &case.masks).unwrap();
        assert_eq!(slice, numbers(&masked));
    }
}

#[test]
fn state_dependent_exploration_matches_torch() {
    for case in fixture().gsde {
        let (rows, features, dimensions) = (case.log_prob.len(), case.features, case.dimensions);
        let environment = EnvironmentSpec::new(
            "Test-v0",
            Space::boxed(&vec![-9.0; features], &vec![9.0; features]),
            Space::boxed(&vec![-1.0; dimensions], &vec![1.0; dimensions]),
        );
        let section = PolicySection {
            hidden: vec![].into(),
            exploration: Exploration::Gsde,
            ..PolicySection::default()
        };
        let spec = PolicySpec::new(&environment, &section).unwrap();
        let mut weights = spec.initialise(1).unwrap();
        let mut put = |name: &str, values: &[f64], shape: (usize, usize)| {
            let var = Var::from_vec(narrow(values), shape, &Device::Cpu).unwrap();
            let slot = weights.0.iter_mut().find(|(own, _)| own == name).unwrap();
            slot.1 = var.as_tensor().clone();
            var
        };
        let weight = put("policy.weight", &case.weight, (dimensions, features));
        let log_std = put("policy.noise_log_std", &case.log_std, (features, dimensions));
        let policy = Policy::new(&spec, &weights).unwrap();

        let phi = Tensor::from_vec(narrow(&case.phi), (rows, features), &Device::Cpu).unwrap();
        let params = policy.forward(&phi).unwrap().distribution;
        let actions = Tensor::from_vec(narrow(&case.actions), (rows, dimensions), &Device::Cpu).unwrap();
        let out = spec.distribution().log_prob_entropy(&params, Actions::Continuous(actions)).unwrap();
        assert_close("log-probability", &numbers(&out.narrow(1, 0, 1).unwrap()), &case.log_prob, 5e-6);
        assert_close("entropy", &numbers(&out.narrow(1, 1, 1).unwrap()), &case.entropy, 5e-6);
        let weights = Tensor::from_vec(narrow(&case.weights), (rows, 2), &Device::Cpu).unwrap();
        let grads = (out * weights).unwrap().sum_all().unwrap().backward().unwrap();
        assert_close("of the means", &numbers(grads.get(&weight).unwrap()), &case.of_weight, 1e-5);
        assert_close("of the deviations", &numbers(grads.get(&log_std).unwrap()), &case.of_log_std, 1e-5);

        let acting = policy.act(&phi, &mut []).unwrap();
        assert_eq!(numbers(&acting.distribution), numbers(&params));
        assert_eq!(numbers(&acting.noise.unwrap().features), narrow(&case.phi));
    }
}

#[test]
fn layers_and_their_gradients_match_torch() {
    for case in fixture().linear {
        let activation = match case.activation.as_str() {
            "identity" => Activation::Identity,
            "tanh" => Activation::Tanh,
            _ => Activation::Relu,
        };
        let (rows, outputs) = (case.rows, case.bias.len());
        let inputs = case.x.len() / rows;
        let var =
            |numbers: &[f64], shape: &[usize]| Var::from_vec(narrow(numbers), shape, &Device::Cpu).unwrap();
        let (x, weight) = (var(&case.x, &[rows, inputs]), var(&case.weight, &[outputs, inputs]));
        let bias = var(&case.bias, &[outputs]);
        let y = linear(&x, &weight, &bias, activation).unwrap();
        assert_close("output", &numbers(&y), &case.y, 2e-6);
        let mut slice = vec![0.0; rows * outputs];
        linear_into(
            &narrow(&case.x),
            rows,
            &narrow(&case.weight),
            &narrow(&case.bias),
            activation,
            &mut slice,
        );
        assert_eq!(slice, numbers(&y));

        let grad = Tensor::from_vec(narrow(&case.grad), (rows, outputs), &Device::Cpu).unwrap();
        let grads = (y * grad).unwrap().sum_all().unwrap().backward().unwrap();
        for (name, var, torch) in [("dx", &x, &case.dx), ("dw", &weight, &case.dw), ("db", &bias, &case.db)] {
            assert_close(name, &numbers(grads.get(var).unwrap()), torch, 5e-6);
        }
    }
}

fn check_rmsprop(cases: Vec<Steps<RmsPropSettings>>, epsilon_placement: EpsilonPlacement) {
    for case in cases {
        let rms_prop = RmsProp {
            learning_rate: case.settings.lr,
            decay: case.settings.alpha,
            epsilon: case.settings.eps,
            epsilon_placement,
            momentum: case.settings.momentum,
        };
        let mut params = narrow(&case.start);
        let (mut square_avg, mut buffer) = (vec![0.0; params.len()], vec![0.0; params.len()]);
        for (gradient, after) in case.gradients.iter().zip(&case.after) {
            // Half the gradients, scaled back: the scale belongs to the gradient.
            let half: Vec<f32> = gradient.iter().map(|g| *g as f32 * 0.5).collect();
            let buffer = (rms_prop.momentum > 0.0).then_some(&mut buffer[..]);
            rmsprop_step(&mut params, &half, &mut square_avg, buffer, &rms_prop, 2.0);
            assert_close("parameters", &params, after, 2e-6);
        }
    }
}

#[test]
fn rmsprop_steps_match_torch() {
    check_rmsprop(fixture().rmsprop, EpsilonPlacement::OutsideSqrt);
}

#[test]
fn rmsprop_steps_with_epsilon_inside_the_root_match_tensorflows_formula() {
    check_rmsprop(fixture().rmsprop_tensorflow, EpsilonPlacement::InsideSqrt);
}

#[test]
fn adam_steps_match_torch() {
    for case in fixture().adam {
        let [beta1, beta2] = case.settings.betas;
        let adam = Adam { learning_rate: case.settings.lr, beta1, beta2, epsilon: case.settings.eps };
        let mut params = narrow(&case.start);
        let (mut first, mut second) = (vec![0.0; params.len()], vec![0.0; params.len()]);
        for (step, (gradient, after)) in (1..).zip(case.gradients.iter().zip(&case.after)) {
            adam_step(&mut params, &narrow(gradient), &mut first, &mut second, &adam, step, 1.0);
            assert_close("parameters", &params, after, 2e-5);
        }
    }
}

#[test]
fn the_fixture_says_which_torch_wrote_it() {
    assert!(fixture().torch.starts_with("2."));
}
