//! Convolution and max pooling against PyTorch's: outputs and every gradient.
//!
//! The fixture is written by `tests/oracles/torch_convolution.py`, in double precision.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;

use candle_core::{Device, Tensor, Var};
use impresario_common::kernels::{Activation, Geometry, convolution, max_pool};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    torch: String,
    convolutions: Vec<Case>,
    poolings: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    images: [usize; 4],
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    #[serde(default)]
    activation: String,
    x: Vec<f64>,
    #[serde(default)]
    weight: Vec<f64>,
    #[serde(default)]
    bias: Vec<f64>,
    outputs: Vec<f64>,
    of_outputs: Vec<f64>,
    gradients: HashMap<String, Vec<f64>>,
}

fn fixture() -> Fixture {
    let fixture: Fixture = serde_json::from_str(include_str!("fixtures/torch_convolution.json")).unwrap();
    assert!(!fixture.torch.is_empty() && fixture.convolutions.len() == 7 && fixture.poolings.len() == 3);
    fixture
}

fn var(values: &[f64], shape: &[usize]) -> Var {
    Var::from_vec(values.iter().map(|x| *x as f32).collect::<Vec<_>>(), shape, &Device::Cpu).unwrap()
}

#[track_caller]
fn assert_close(ours: &Tensor, reference: &[f64], what: &str) {
    let ours: Vec<f32> = ours.flatten_all().unwrap().to_vec1().unwrap();
    assert_eq!(ours.len(), reference.len(), "{what}");
    let scale = reference.iter().fold(1f64, |scale, x| scale.max(x.abs()));
    for (at, (ours, reference)) in ours.iter().zip(reference).enumerate() {
        let error = (f64::from(*ours) - reference).abs() / scale;
        assert!(error < 3e-6, "{what}[{at}]: {ours}, expected {reference}");
    }
}

impl Case {
    fn geometry(&self) -> Geometry {
        Geometry { stride: self.stride, padding: self.padding }
    }

    /// Compares outputs, and the gradients of the named variables.
    fn check(&self, y: &Tensor, vars: &[(&str, &Var)]) {
        let what = format!("images {:?}, kernel {:?}, {:?}", self.images, self.kernel, self.geometry());
        assert_close(y, &self.outputs, &what);
        let of_outputs = var(&self.of_outputs, y.dims()).as_detached_tensor();
        let grads = (y * of_outputs).unwrap().sum_all().unwrap().backward().unwrap();
        for (name, var) in vars {
            assert_close(grads.get(var).unwrap(), &self.gradients[*name], &format!("{what}, {name}"));
        }
    }
}

#[test]
fn convolutions_and_their_gradients_are_pytorchs() {
    for case in fixture().convolutions {
        let [height, width] = case.kernel;
        let x = var(&case.x, &case.images);
        let weight = var(&case.weight, &[case.bias.len(), height, width, case.images[3]]);
        let bias = var(&case.bias, &[case.bias.len()]);
        let activation = match case.activation.as_str() {
            "relu" => Activation::Relu,
            "tanh" => Activation::Tanh,
            "identity" => Activation::Identity,
            other => panic!("no activation {other}"),
        };
        let y = convolution(&x, &weight, &bias, case.geometry(), activation).unwrap();
        case.check(&y, &[("x", &x), ("weight", &weight), ("bias", &bias)]);
    }
}

#[test]
fn max_pooling_and_its_gradient_are_pytorchs() {
    for case in fixture().poolings {
        let x = var(&case.x, &case.images);
        let y = max_pool(&x, case.kernel, case.geometry()).unwrap();
        case.check(&y, &[("x", &x)]);
    }
}
