//! The optimisers: RMSProp and Adam over named parameters, with clipping by the global norm.
//!
//! Gradients come from an algorithm's loss; parameters change in place. The formulas are PyTorch's, so that
//! published hyperparameters carry over. An optimiser's state can be saved and restored exactly: training
//! goes on bit for bit as if it had not stopped.

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor};
use impresario_common::config::{OptimizerKind, OptimizerSection};
use impresario_common::kernels::{self, EpsilonPlacement, sum_squares, update_in_place, with_slice};
use impresario_common::policy::{PolicyError, Weights};

use crate::parameters::Parameters;

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Step {
    /// The parameters moved.
    Applied {
        /// Global norm of the gradients before clipping.
        grad_norm: f64,
    },
    /// Parameters and state are as before: the gradients are not finite, or too large to square in `f32`.
    Refused {
        /// Global norm of the gradients.
        grad_norm: f64,
    },
}

/// An optimiser with its state.
#[derive(Debug)]
pub struct Optimizer {
    section: OptimizerSection,
    parameters: Parameters,
    /// One for each parameter.
    moments: Vec<Moments>,
    steps: u64,
}

/// Running means of one parameter's gradients, in its shape; empty where the rule has none.
#[derive(Debug, Clone, Default)]
struct Moments {
    /// RMSProp: the momentum buffer. Adam: the mean of gradients.
    first: Vec<f32>,
    /// The mean of squared gradients.
    second: Vec<f32>,
}

/// The state of an [`Optimizer`], as a checkpoint holds it.
#[derive(Debug, Clone, Default)]
pub struct OptimizerState {
    /// Steps taken; Adam's bias correction depends on it.
    pub steps: u64,
    /// `<parameter>/square_avg`, `<parameter>/momentum` of RMSProp; `<parameter>/first_moment`,
    /// `<parameter>/second_moment` of Adam. Each has its parameter's shape.
    pub moments: Weights,
}

impl Optimizer {
    /// An optimiser of `parameters` that has taken no step.
    pub fn new(section: &OptimizerSection, parameters: &Parameters) -> Self {
        let (first, second) = moment_names(section);
        let moments = parameters.iter().map(|(_, var)| Moments {
            first: first.map_or(vec![], |_| vec![0.0; var.elem_count()]),
            second: second.map_or(vec![], |_| vec![0.0; var.elem_count()]),
        });
        Self {
            section: section.clone(),
            moments: moments.collect(),
            parameters: parameters.clone(),
            steps: 0,
        }
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Takes a step against `gradients`, scaled by `max_norm / (norm + 1e-6)` where their global norm exceeds the
    /// maximum. Parameters without a gradient stay.
    ///
    /// # Errors
    /// If a gradient does not have its parameter's shape.
    pub fn step(&mut self, gradients: &GradStore, learning_rate: f64) -> Result<Step, PolicyError> {
        let mut squares = 0.0;
        for (_, var) in self.parameters.iter() {
            if let Some(gradient) = gradients.get(var) {
                squares += with_slice(&gradient.contiguous()?, sum_squares)?;
            }
        }
        let grad_norm = squares.sqrt();
        let scale = match self.section.max_grad_norm {
            max_norm if max_norm > 0.0 => (max_norm / (grad_norm + 1e-6)).min(1.0),
            _ => 1.0,
        };
        // Squared gradients are kept in f32.
        let representable = (grad_norm * scale).powi(2) < f64::from(f32::MAX);
        if !(grad_norm.is_finite() && representable) {
            return Ok(Step::Refused { grad_norm });
        }
        self.steps += 1;
        for ((_, var), moments) in self.parameters.iter().zip(&mut self.moments) {
            if let Some(gradient) = gradients.get(var) {
                let rule = (&self.section, learning_rate as f32, self.steps);
                with_slice(&gradient.contiguous()?, |gradient: &[f32]| {
                    update_in_place(var, |values| moments.step(rule, values, gradient, scale as f32))
                })??;
            }
        }
        Ok(Step::Applied { grad_norm })
    }

    /// A copy of the state.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn state(&self) -> Result<OptimizerState, PolicyError> {
        let (first, second) = moment_names(&self.section);
        let mut state = OptimizerState { steps: self.steps, moments: Weights::default() };
        for ((name, var), moments) in self.parameters.iter().zip(&self.moments) {
            for (moment, values) in [(first, &moments.first), (second, &moments.second)] {
                let Some(moment) = moment else { continue };
                let tensor = Tensor::from_slice(values, var.shape(), &Device::Cpu)?;
                state.moments.0.push((format!("{name}/{moment}"), tensor));
            }
        }
        Ok(state)
    }

    /// Goes on from `state`: all of it, or none if a tensor does not fit.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape; so it is after a change of the rule.
    pub fn load_state(&mut self, state: &OptimizerState) -> Result<(), PolicyError> {
        let (first, second) = moment_names(&self.section);
        let mut loaded = Vec::with_capacity(self.moments.len());
        for (name, var) in self.parameters.iter() {
            let read = |moment: Option<&str>| -> Result<Vec<f32>, PolicyError> {
                let Some(moment) = moment else { return Ok(vec![]) };
                let tensor = state.moments.get(&format!("{name}/{moment}"), var.dims())?;
                Ok(tensor.flatten_all()?.to_vec1()?)
            };
            loaded.push(Moments { first: read(first)?, second: read(second)? });
        }
        self.moments = loaded;
        self.steps = state.steps;
        Ok(())
    }
}

impl Moments {
    fn step(
        &mut self,
        (section, learning_rate, step): (&OptimizerSection, f32, u64),
        values: &mut [f32],
        gradient: &[f32],
        scale: f32,
    ) {
        let Self { first, second } = self;
        match section.kind {
            OptimizerKind::RmsProp => {
                let rule = kernels::RmsProp {
                    learning_rate,
                    decay: section.decay as f32,
                    epsilon: section.epsilon as f32,
                    epsilon_placement: EpsilonPlacement::OutsideSqrt,
                    momentum: section.momentum as f32,
                };
                let momentum = (!first.is_empty()).then_some(first.as_mut_slice());
                kernels::rmsprop_step(values, gradient, second, momentum, &rule, scale);
            }
            OptimizerKind::Adam => {
                let rule = kernels::Adam {
                    learning_rate,
                    beta1: section.beta1 as f32,
                    beta2: section.beta2 as f32,
                    epsilon: section.epsilon as f32,
                };
                kernels::adam_step(values, gradient, first, second, &rule, step, scale);
            }
        }
    }
}

/// What the rule calls its first and second moments, of those that it has.
fn moment_names(section: &OptimizerSection) -> (Option<&'static str>, Option<&'static str>) {
    match section.kind {
        OptimizerKind::RmsProp if section.momentum > 0.0 => (Some("momentum"), Some("square_avg")),
        OptimizerKind::RmsProp => (None, Some("square_avg")),
        OptimizerKind::Adam => (Some("first_moment"), Some("second_moment")),
    }
}

#[cfg(test)]
mod tests;
