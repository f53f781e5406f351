//! Recurrent layers against PyTorch's: outputs, states and every gradient, with resets and branches.
//!
//! The fixture is written by `tests/oracles/torch_recurrent.py`, in double precision.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;

use candle_core::{Device, Tensor, Var};
use impresario_common::kernels::{
    Activation, Cell, Sequence, linear, linear_into, recurrent, recurrent_step,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    torch: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    cell: String,
    inputs: usize,
    size: usize,
    length: usize,
    columns: usize,
    x: Vec<f64>,
    resets: Vec<u8>,
    initial: Vec<f64>,
    branches: Vec<usize>,
    weights: Vec<f64>,
    parameters: HashMap<String, Vec<f64>>,
    outputs: Vec<f64>,
    final_states: Vec<f64>,
    gradients: HashMap<String, Vec<f64>>,
}

fn cases() -> Vec<Case> {
    let fixture: Fixture = serde_json::from_str(include_str!("fixtures/torch_recurrent.json")).unwrap();
    assert!(!fixture.torch.is_empty() && fixture.cases.len() == 6);
    fixture.cases
}

fn floats(values: &[f64]) -> Vec<f32> {
    values.iter().map(|x| *x as f32).collect()
}

#[track_caller]
fn assert_close(ours: &[f32], reference: &[f64], what: &str) {
    assert_eq!(ours.len(), reference.len(), "{what}");
    let scale = reference.iter().fold(1f64, |scale, x| scale.max(x.abs()));
    for (at, (ours, reference)) in ours.iter().zip(reference).enumerate() {
        let error = (f64::from(*ours) - reference).abs() / scale;
        assert!(error < 3e-6, "{what}[{at}]: {ours}, expected {reference}");
    }
}

impl Case {
    fn cell(&self) -> Cell {
        if self.cell == "lstm" { Cell::Lstm } else { Cell::Gru }
    }

    fn name(&self) -> String {
        format!("{} of {}", self.cell, self.size)
    }

    fn parameter(&self, name: &str) -> Vec<f32> {
        floats(&self.parameters[name])
    }

    fn sequence(&self) -> Sequence {
        Sequence {
            columns: self.columns,
            resets: self.resets.clone(),
            initial: floats(&self.initial),
            branches: self.branches.clone(),
        }
    }
}

#[test]
fn sequences_and_their_gradients_are_those_of_pytorch() {
    for case in cases() {
        let (rows, width) = (case.sequence().rows(), case.cell().gates() * case.size);
        let var = |values: Vec<f32>, shape: &[usize]| Var::from_vec(values, shape, &Device::Cpu).unwrap();
        let x = var(floats(&case.x), &[rows, case.inputs]);
        let shapes = [vec![width, case.inputs], vec![width, case.size], vec![width], vec![width]];
        let names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"];
        let vars: Vec<Var> =
            names.iter().zip(&shapes).map(|(name, shape)| var(case.parameter(name), shape)).collect();
        let projected = linear(&x, &vars[0], &vars[2], Activation::Identity).unwrap();
        let out = recurrent(case.cell(), &projected, &vars[1], &vars[3], case.sequence()).unwrap();
        let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_close(&flat(&out), &case.outputs, &format!("{}: outputs", case.name()));
        let weights = Tensor::from_vec(floats(&case.weights), (rows, case.size), &Device::Cpu).unwrap();
        let gradients = (out * weights).unwrap().sum_all().unwrap().backward().unwrap();
        for (name, var) in std::iter::once(("x", &x)).chain(names.into_iter().zip(&vars)) {
            let gradient = flat(gradients.get(var).unwrap());
            assert_close(&gradient, &case.gradients[name], &format!("{}: gradient of {name}", case.name()));
        }
    }
}

#[test]
fn steps_one_at_a_time_end_in_the_states_of_pytorch() {
    for case in cases() {
        let (width, state_len) = (case.cell().gates() * case.size, case.cell().state_len(case.size));
        let mut states = floats(&case.initial);
        let x = floats(&case.x);
        let (mut projected, mut out) = (vec![0.0; case.columns * width], vec![0.0; case.columns * case.size]);
        for t in 0..case.length {
            for column in (0..case.columns).filter(|column| case.resets[t * case.columns + column] == 1) {
                states[column * state_len..(column + 1) * state_len].fill(0.0);
            }
            let row = case.columns * case.inputs;
            linear_into(
                &x[t * row..(t + 1) * row],
                case.columns,
                &case.parameter("weight_ih"),
                &case.parameter("bias_ih"),
                Activation::Identity,
                &mut projected,
            );
            let (weight, bias) = (case.parameter("weight_hh"), case.parameter("bias_hh"));
            recurrent_step(case.cell(), &projected, &weight, &bias, &mut states, &mut out);
        }
        assert_close(&states, &case.final_states, &format!("{}: final states", case.name()));
    }
}
