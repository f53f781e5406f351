//! Whole networks against PyTorch's: outputs and the gradients of all weights, by the fused kernels and by candle's own
//! operations, which other devices take.
//!
//! The fixture is written by `tests/oracles/torch_networks.py`, in double precision.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use candle_core::{Device, Tensor, Var};
use impresario_common::config::PolicySection;
use impresario_common::kernels::{Sequence, composed};
use impresario_common::policy::{Policy, PolicySpec, Weights};
use impresario_common::space::{ElementType, EnvironmentSpec, Space};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    torch: String,
    steps: usize,
    columns: usize,
    actions: u32,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    space: BoxSpace,
    policy: serde_json::Map<String, serde_json::Value>,
    observations: Vec<f64>,
    parameters: BTreeMap<String, Parameter>,
    row_weights: Vec<f64>,
    value_weights: Vec<f64>,
    distribution: Vec<f64>,
    values: Vec<f64>,
}

#[derive(Deserialize)]
struct BoxSpace {
    shape: Vec<usize>,
    dtype: ElementType,
    high: f32,
}

#[derive(Deserialize)]
struct Parameter {
    shape: Vec<usize>,
    data: Vec<f64>,
    gradient: Vec<f64>,
}

fn narrow(numbers: &[f64]) -> Vec<f32> {
    numbers.iter().map(|x| *x as f32).collect()
}

impl Case {
    fn section(&self) -> PolicySection {
        let mut keys = serde_json::to_value(PolicySection::default()).unwrap();
        keys.as_object_mut().unwrap().extend(self.policy.clone());
        serde_json::from_value(keys).unwrap()
    }

    fn environment(&self, actions: u32) -> EnvironmentSpec {
        let BoxSpace { shape, dtype, high } = &self.space;
        let len = shape.iter().product();
        let low = if *dtype == ElementType::U8 { 0.0 } else { -high };
        let observation =
            Space::Box { low: vec![low; len], high: vec![*high; len], shape: shape.clone(), dtype: *dtype };
        EnvironmentSpec::new("Test-v0", observation, Space::Discrete { n: actions })
    }

    fn observations(&self, rows: usize) -> Tensor {
        let shape = [&[rows], self.space.shape.as_slice()].concat();
        match self.space.dtype {
            ElementType::U8 => {
                let bytes: Vec<u8> = self.observations.iter().map(|x| *x as u8).collect();
                Tensor::from_vec(bytes, shape, &Device::Cpu).unwrap()
            }
            _ => Tensor::from_vec(narrow(&self.observations), shape, &Device::Cpu).unwrap(),
        }
    }
}

#[track_caller]
fn assert_close(what: &str, ours: &Tensor, torch: &[f64]) {
    let ours = ours.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(ours.len(), torch.len(), "{what}");
    let size = torch.iter().fold(1f64, |size, x| size.max(x.abs()));
    for (at, (ours, torch)) in ours.iter().zip(torch).enumerate() {
        let error = (f64::from(*ours) - torch).abs();
        assert!(error < 1e-4 * size, "{what}[{at}]: {ours} is not {torch}");
    }
}

fn check(fixture: &Fixture, case: &Case) {
    let spec = PolicySpec::new(&case.environment(fixture.actions), &case.section()).unwrap();
    let ours: BTreeMap<String, Vec<usize>> =
        spec.initialise(1).unwrap().0.into_iter().map(|(name, t)| (name, t.dims().to_vec())).collect();
    let torchs: BTreeMap<String, Vec<usize>> =
        case.parameters.iter().map(|(name, p)| (name.clone(), p.shape.clone())).collect();
    assert_eq!(ours, torchs, "{}", case.name);

    let var = |p: &Parameter| Var::from_vec(narrow(&p.data), p.shape.as_slice(), &Device::Cpu).unwrap();
    let vars: Vec<(&String, Var)> = case.parameters.iter().map(|(name, p)| (name, var(p))).collect();
    let weights = vars.iter().map(|(name, var)| ((*name).clone(), var.as_tensor().clone()));
    let policy = Policy::new(&spec, &Weights(weights.collect())).unwrap();
    let rows = fixture.steps * fixture.columns;
    let sequence = || Sequence {
        columns: fixture.columns,
        resets: vec![0; rows],
        initial: vec![0.0; fixture.columns * spec.core_state_len()],
        branches: vec![],
    };
    let output = policy.forward_sequence(&case.observations(rows), sequence).unwrap();
    assert_close(&format!("{}: rows", case.name), &output.distribution, &case.distribution);
    assert_close(&format!("{}: values", case.name), &output.values, &case.values);

    let weighted = |of: &Tensor, weights: &[f64]| {
        let weights = Tensor::from_vec(narrow(weights), of.shape(), &Device::Cpu).unwrap();
        (of * weights).unwrap().sum_all().unwrap()
    };
    let loss = (weighted(&output.distribution, &case.row_weights)
        + weighted(&output.values, &case.value_weights))
    .unwrap();
    let gradients = loss.backward().unwrap();
    for (name, var) in &vars {
        let gradient = gradients.get(var).unwrap_or_else(|| panic!("{}: {name} has no gradient", case.name));
        assert_close(
            &format!("{}: gradient of {name}", case.name),
            gradient,
            &case.parameters[*name].gradient,
        );
    }
}

#[test]
fn networks_match_pytorch_forward_and_backward_and_so_do_those_of_other_devices() {
    let fixture: Fixture = serde_json::from_str(include_str!("fixtures/torch_networks.json")).unwrap();
    assert_eq!(fixture.torch, "2.15.0");
    assert_eq!(fixture.cases.len(), 6);
    for case in &fixture.cases {
        check(&fixture, case);
        composed(|| check(&fixture, case));
    }
}
