//! [`Critic`]: an estimate of the return of an action, `Q(x, a)`; SAC has two, and a slow copy of each.

use candle_core::{Device, Tensor};
use impresario_common::kernels::{self, Activation};
use impresario_common::policy::{PolicyError, Weights, network};
use impresario_common::random::Stream;

/// Layers of rectified linear units over weights that it shares.
#[derive(Debug, Clone)]
pub struct Critic {
    /// `[outputs, inputs]` and `[outputs]` of each layer.
    layers: Vec<(Tensor, Tensor)>,
}

/// Widths of a critic's layers: inputs, hidden ones, outputs.
pub type Widths<'a> = &'a [usize];

impl Critic {
    /// Weights that a critic called `name` may start from: orthogonal, with biases 0.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn initialise(name: &str, widths: Widths<'_>, random: &mut Stream) -> Result<Weights, PolicyError> {
        let mut weights = Weights::default();
        let layers = widths.len() - 1;
        for (layer, pair) in widths.windows(2).enumerate() {
            let (inputs, outputs) = (pair[0], pair[1]);
            let gain = if layer + 1 == layers { 1.0 } else { std::f32::consts::SQRT_2 };
            let matrix = network::orthogonal(outputs, inputs, gain, random);
            let (weight, bias) = names(name, layer);
            weights.0.push((weight, Tensor::from_vec(matrix, (outputs, inputs), &Device::Cpu)?));
            weights.0.push((bias, Tensor::from_vec(vec![0f32; outputs], outputs, &Device::Cpu)?));
        }
        Ok(weights)
    }

    /// The critic called `name` over `weights`, sharing their storage: with variables it records a graph.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(name: &str, widths: Widths<'_>, weights: &Weights) -> Result<Self, PolicyError> {
        let layer = |(layer, pair): (usize, &[usize])| {
            let (weight, bias) = names(name, layer);
            Ok((weights.get(&weight, &[pair[1], pair[0]])?, weights.get(&bias, &[pair[1]])?))
        };
        Ok(Self { layers: widths.windows(2).enumerate().map(layer).collect::<Result<_, PolicyError>>()? })
    }

    /// The same critic over the same storage, recording no graph of its weights.
    pub fn detached(&self) -> Self {
        Self { layers: self.layers.iter().map(|(w, b)| (w.detach(), b.detach())).collect() }
    }

    /// Estimates for the rows of `input`, `[N, inputs]`: `[N, outputs]`.
    ///
    /// # Errors
    /// If a shape does not fit.
    pub fn forward(&self, input: &Tensor) -> Result<Tensor, PolicyError> {
        let mut x = input.clone();
        for (layer, (weight, bias)) in self.layers.iter().enumerate() {
            let last = layer + 1 == self.layers.len();
            let activation = if last { Activation::Identity } else { Activation::Relu };
            x = kernels::linear(&x, weight, bias, activation)?;
        }
        Ok(x)
    }
}

fn names(critic: &str, layer: usize) -> (String, String) {
    (format!("{critic}.{layer}.weight"), format!("{critic}.{layer}.bias"))
}
