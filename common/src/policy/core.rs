//! The policy's memory: a recurrent layer between encoder and heads.
//!
//! An actor takes it one step at a time with [`Core::step`], for all its copies at once, and keeps their states; the
//! learner takes whole unrolls through [`Core::sequence`], from the states that came with them, so that gradients
//! go back through time to the unroll's first step.

use candle_core::{Device, Tensor};

use super::error::PolicyError;
use super::parameters::{Init, ParameterSpec};
use super::snapshot::Weights;
use crate::config::{CoreKind, PolicySection};
use crate::kernels::{self, Activation, Cell, Sequence, with_slice};

/// Names and roles of a core's parameters, in their order.
const PARAMETERS: [(&str, Role); 4] = [
    ("core.weight_ih", Role::OfInput),
    ("core.weight_hh", Role::OfOutput),
    ("core.bias_ih", Role::InputBias),
    ("core.bias_hh", Role::OutputBias),
];

/// What a parameter multiplies or is added to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// `[G H, I]`: the input.
    OfInput,
    /// `[G H, H]`: the last output.
    OfOutput,
    /// `[G H]`: the input's part of the gates.
    InputBias,
    /// `[G H]`: the last output's part.
    OutputBias,
}

/// What kind of core a policy has, and how large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CoreSpec {
    pub(super) cell: Cell,
    /// H: its outputs.
    pub(super) size: usize,
}

impl CoreSpec {
    /// The core that `section` asks for.
    pub(super) fn new(section: &PolicySection) -> Option<Self> {
        let cell = match section.core {
            CoreKind::None => return None,
            CoreKind::Lstm => Cell::Lstm,
            CoreKind::Gru => Cell::Gru,
        };
        Some(Self { cell, size: section.core_size })
    }

    /// The parameters, where the core has `inputs` inputs; an LSTM's forget gates start with `forget_bias`.
    pub(super) fn parameters(self, inputs: usize, forget_bias: f32) -> [ParameterSpec; 4] {
        PARAMETERS.map(|(name, role)| {
            let init = match role {
                Role::OfInput | Role::OfOutput => Init::Orthogonal { gain: 1.0 },
                Role::InputBias if self.cell == Cell::Lstm => Init::ForgetGates(forget_bias),
                Role::InputBias | Role::OutputBias => Init::Constant(0.0),
            };
            ParameterSpec { name: name.into(), shape: self.shape(role, inputs), init }
        })
    }

    /// Shape of a parameter, where the core has `inputs` inputs.
    fn shape(self, role: Role, inputs: usize) -> Vec<usize> {
        let rows = self.cell.gates() * self.size;
        match role {
            Role::OfInput => vec![rows, inputs],
            Role::OfOutput => vec![rows, self.size],
            Role::InputBias | Role::OutputBias => vec![rows],
        }
    }

    /// S: numbers that it remembers.
    pub(super) fn state_len(self) -> usize {
        self.cell.state_len(self.size)
    }
}

/// A core with its weights in place.
#[derive(Debug, Clone)]
pub(super) struct Core {
    spec: CoreSpec,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
}

impl Core {
    pub(super) fn new(spec: CoreSpec, inputs: usize, weights: &Weights) -> Result<Self, PolicyError> {
        let [weight_ih, weight_hh, bias_ih, bias_hh] =
            PARAMETERS.map(|(name, role)| weights.get(name, &spec.shape(role, inputs)));
        Ok(Self { spec, weight_ih: weight_ih?, weight_hh: weight_hh?, bias_ih: bias_ih?, bias_hh: bias_hh? })
    }

    pub(super) fn state_len(&self) -> usize {
        self.spec.state_len()
    }

    /// The inputs' part of the gates: one product for all rows.
    fn project(&self, inputs: &Tensor) -> Result<Tensor, PolicyError> {
        Ok(kernels::linear(inputs, &self.weight_ih, &self.bias_ih, Activation::Identity)?)
    }

    /// Outputs `[R, H]` for inputs `[R, I]` that follow one another as `sequence` says, with a graph.
    pub(super) fn sequence(&self, inputs: &Tensor, sequence: Sequence) -> Result<Tensor, PolicyError> {
        let projected = self.project(inputs)?;
        Ok(kernels::recurrent(self.spec.cell, &projected, &self.weight_hh, &self.bias_hh, sequence)?)
    }

    /// Outputs `[E, H]` for inputs `[E, I]`; `states` `[E, S]` become those after the step. Records no graph.
    pub(super) fn step(&self, inputs: &Tensor, states: &mut [f32]) -> Result<Tensor, PolicyError> {
        let rows = inputs.dim(0)?;
        if states.len() != rows * self.state_len() {
            return Err(PolicyError::State { expected: rows * self.state_len(), found: states.len() });
        }
        let mut out = vec![0f32; rows * self.spec.size];
        let projected = self.project(inputs)?;
        with_slice(&projected, |projected: &[f32]| {
            with_slice(&self.weight_hh, |weight: &[f32]| {
                with_slice(&self.bias_hh, |bias: &[f32]| {
                    kernels::recurrent_step(self.spec.cell, projected, weight, bias, states, &mut out);
                })
            })
        })???;
        let out = Tensor::from_vec(out, (rows, self.spec.size), &Device::Cpu)?;
        Ok(out.to_device(inputs.device())?)
    }
}
