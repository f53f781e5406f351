//! Fully connected hidden layers.

use candle_core::Tensor;

use crate::kernels::Activation;
use crate::policy::error::PolicyError;
use crate::policy::layers::{FinishSpec, Linear};
use crate::policy::parameters::{HIDDEN_GAIN, ParameterSpec};
use crate::policy::snapshot::Weights;

/// Which layers there are.
#[derive(Debug, Clone, PartialEq)]
pub struct MlpSpec {
    /// I: numbers that the first layer sees.
    pub inputs: usize,
    /// Width of each layer.
    pub widths: Vec<usize>,
    /// What each layer applies to its sums.
    pub activation: Activation,
    /// Whether they are normalised before it.
    pub layer_norm: bool,
}

impl MlpSpec {
    /// Numbers that the last layer gives; those that come in where there is no layer.
    pub fn outputs(&self) -> usize {
        self.widths.last().copied().unwrap_or(self.inputs)
    }

    /// Multiplications (with as many additions) that a row costs.
    pub fn products(&self) -> u64 {
        self.layers().map(|(inputs, finish)| (inputs * finish.features) as u64).sum()
    }

    /// Inputs of each layer, and what its sums go through.
    fn layers(&self) -> impl Iterator<Item = (usize, FinishSpec)> {
        let inputs = std::iter::once(self.inputs).chain(self.widths.iter().copied());
        let Self { activation, layer_norm, .. } = *self;
        inputs.zip(self.widths.iter().map(move |&features| FinishSpec { features, activation, layer_norm }))
    }

    /// The layers' parameters: `<name>.<layer>.weight` `[outputs, inputs]`, `<name>.<layer>.bias` `[outputs]`, and those of
    /// its normalisation.
    pub fn parameters(&self, name: &str) -> Vec<ParameterSpec> {
        let mut parameters = vec![];
        for (layer, (inputs, finish)) in self.layers().enumerate() {
            let name = format!("{name}.{layer}");
            let shape = vec![finish.features, inputs];
            parameters.extend(ParameterSpec::layer(&name, shape, HIDDEN_GAIN, 0.0));
            parameters.extend(finish.parameters(&name));
        }
        parameters
    }
}

/// The layers with their weights in place.
#[derive(Debug, Clone)]
pub struct Mlp {
    layers: Vec<Linear>,
}

impl Mlp {
    /// The layers over `weights`, sharing their storage.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(spec: &MlpSpec, name: &str, weights: &Weights) -> Result<Self, PolicyError> {
        let layers = spec.layers().enumerate().map(|(layer, (inputs, finish))| {
            Linear::hidden(weights, &format!("{name}.{layer}"), inputs, &finish)
        });
        Ok(Self { layers: layers.collect::<Result<_, _>>()? })
    }

    /// Lays the weights out for the processor; later changes of them go unnoticed.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn pack(&mut self) -> Result<(), PolicyError> {
        self.layers.iter_mut().try_for_each(Linear::pack)
    }

    /// `[N, O]` for `[N, I]`.
    ///
    /// # Errors
    /// If `x` has another width.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, PolicyError> {
        self.layers.iter().try_fold(x.clone(), |x, layer| layer.forward(&x))
    }
}
