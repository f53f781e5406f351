//! [`Fisher`]: products of the policy's Fisher matrix with vectors, without the matrix.
//!
//! With `J` the derivative of the distribution's parameters with respect to the weights, and `M` the Fisher matrix of
//! the distribution with respect to its own parameters, `F v = mean(J^T M J v)` over the steps of a batch, a
//! Gauss-Newton product that is never negative. `J v` is a central difference of two forward passes, so that
//! any network will do; `J^T` is a backward pass.

use candle_core::Tensor;
use impresario_common::kernels::with_slice;
use impresario_common::policy::Weights;

use super::super::objective::known_gradient;
use super::super::{TargetPolicy, TrainError};
use super::{dot, move_from};
use crate::batch::Batch;
use crate::parameters::Parameters;

/// Length of the step to either side by which `J v` is measured: long against rounding, short against curvature.
const REACH: f64 = 0.02;

/// The Fisher matrix of `target` at `weights`, damped, over the steps of a batch.
pub struct Fisher<'a> {
    target: &'a TargetPolicy,
    batch: &'a Batch,
    /// `[N, P]`, in the graph of the parameters.
    params: &'a Tensor,
    weights: &'a Weights,
    damping: f64,
}

impl<'a> Fisher<'a> {
    /// The matrix at `weights`, which the parameters of `target` hold; `params` `[N, P]` is what the network says of
    /// `batch` there. `damping` is added to the diagonal.
    ///
    /// # Errors
    /// If the batch does not fit the policy.
    pub fn new(
        target: &'a TargetPolicy,
        batch: &'a Batch,
        params: &'a Tensor,
        weights: &'a Weights,
        damping: f64,
    ) -> Result<Self, TrainError> {
        Ok(Self { target, batch, params, weights, damping })
    }

    /// The product with `v`, a number for each weight in the order of the parameters. The weights are moved on the
    /// way, and are what they were afterwards.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn product(&self, v: &[f32]) -> Result<Vec<f32>, TrainError> {
        let length = dot(v, v).sqrt();
        if length == 0.0 {
            return Ok(vec![0.0; v.len()]);
        }
        let reach = REACH / length;
        let tangents = self.tangents(v, reach)?;
        let distribution = self.target.action_distribution();
        let mut weighed = vec![0.0; tangents.len()];
        with_slice(&self.params.contiguous()?, |params: &[f32]| {
            distribution.fisher_product(&params[..tangents.len()], &tangents, &mut weighed);
        })?;
        let steps = self.batch.steps() as f32;
        weighed.iter_mut().for_each(|w| *w /= steps);
        // Rows that are no steps take no part.
        weighed.resize(self.params.elem_count(), 0.0);
        let mut product =
            flat_gradient(&known_gradient(0.0, self.params, weighed)?, self.target.parameters())?;
        for (product, v) in product.iter_mut().zip(v) {
            *product += self.damping as f32 * v;
        }
        Ok(product)
    }

    /// `J v` of the rows of steps, `[steps, P]`.
    fn tangents(&self, v: &[f32], reach: f64) -> Result<Vec<f32>, TrainError> {
        let at = |step: f64| -> Result<Vec<f32>, TrainError> {
            move_from(self.target, self.weights, v, step)?;
            let params = self.target.forward(self.batch)?.distribution.contiguous()?;
            let numbers = self.batch.steps() * self.target.action_distribution().parameter_count();
            Ok(with_slice(&params, |params: &[f32]| params[..numbers].to_vec())?)
        };
        let sides = at(reach).and_then(|ahead| Ok((ahead, at(-reach)?)));
        self.target.parameters().load(self.weights)?;
        let (ahead, behind) = sides?;
        let scale = 1.0 / (2.0 * reach);
        let difference = |(a, b): (&f32, &f32)| ((f64::from(*a) - f64::from(*b)) * scale) as f32;
        Ok(ahead.iter().zip(&behind).map(difference).collect())
    }
}

/// The gradient of `loss`, a number for each weight in the order of the parameters, 0 for those it does not depend on.
///
/// # Errors
/// If a tensor operation fails.
pub fn flat_gradient(loss: &Tensor, parameters: &Parameters) -> Result<Vec<f32>, TrainError> {
    let gradients = loss.backward()?;
    let mut flat = vec![];
    for (_, var) in parameters.iter() {
        match gradients.get(var) {
            Some(gradient) => with_slice(&gradient.contiguous()?, |g: &[f32]| flat.extend_from_slice(g))?,
            None => flat.resize(flat.len() + var.elem_count(), 0.0),
        }
    }
    Ok(flat)
}
