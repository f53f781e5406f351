//! Losses with known gradients.
//!
//! The losses of the policy-gradient methods are simple functions of what the network says of each step:
//! the log-probability of the action, the entropy, the value. Their gradients with respect to these few
//! numbers are a line of arithmetic each, taken on slices; candle carries them on through the network. That
//! keeps the graph, and with it the cost of small networks' updates, to the network itself.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};
use impresario_common::config::LossReduction;
use impresario_common::kernels::is_fused;

use super::Metrics;
use crate::returns::explained_variance;

/// What the network says of `N` rows of observations and the loss derived from it.
#[derive(Debug)]
pub struct Objective {
    /// The loss.
    pub loss: f64,
    /// `[N, 2]`: its gradient with respect to each row's log-probability and entropy.
    pub d_log_prob_entropy: Vec<f32>,
    /// `[N]`: its gradient with respect to each row's value.
    pub d_values: Vec<f32>,
}

impl Objective {
    /// The loss as a scalar tensor of the graph of `log_prob_entropy`, `[N, 2]`, and `values`, `[N]`.
    ///
    /// # Errors
    /// If a shape does not fit.
    pub fn into_tensor(self, log_prob_entropy: &Tensor, values: &Tensor) -> Result<Tensor> {
        known_gradients(self.loss, (log_prob_entropy, self.d_log_prob_entropy), (values, self.d_values))
    }
}

/// How the parts of an actor-critic loss are weighed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ActorCriticWeights {
    /// Weight of the value loss.
    pub baseline_cost: f32,
    /// Weight of the entropy as a bonus.
    pub entropy_cost: f32,
    /// Sum or mean over the steps.
    pub reduction: LossReduction,
    /// What values and targets are divided by in the value loss: 1, or the deviation of PopArt.
    pub value_deviation: f32,
}

impl Objective {
    /// The loss of the actor-critic methods and its gradient with respect to every row's log-probability,
    /// entropy and value, of which only the first rows, those of steps, have one:
    ///
    /// ```text
    /// policy  = sum(-A log pi(a|x))
    /// value   = sum(0.5 ((target - V(x)) / value_deviation)^2)
    /// loss    = policy + baseline_cost * value - entropy_cost * sum(H(pi(.|x)))
    /// ```
    ///
    /// or the mean. `log_prob_entropy` is `[N, 2]`, `values` `[N]`; `advantages` and `targets` are `[steps]` and
    /// taken as constants. The gradient of a value is that of the head's number, `V(x) / value_deviation` and a constant. Adds the losses, the entropy and what is said of the values to `metrics`.
    pub fn actor_critic(
        log_prob_entropy: &[f32],
        values: &[f32],
        advantages: &[f32],
        targets: &[f32],
        weights: ActorCriticWeights,
        metrics: &mut Metrics,
    ) -> Self {
        let steps = targets.len();
        let weight = match weights.reduction {
            LossReduction::Sum => 1.0,
            LossReduction::Mean => 1.0 / steps as f32,
        };
        let mut d_log_prob_entropy = vec![0.0; log_prob_entropy.len()];
        let mut d_values = vec![0.0; values.len()];
        let (mut policy_loss, mut value_loss, mut entropy, mut value) = (0f64, 0f64, 0f64, 0f64);
        let rows = log_prob_entropy.chunks_exact(2).zip(values);
        let gradients = d_log_prob_entropy.chunks_exact_mut(2).zip(&mut d_values);
        for (((row, &v), (&target, &advantage)), (d_row, d_v)) in
            rows.zip(targets.iter().zip(advantages)).zip(gradients)
        {
            let (log_prob, h) = (row[0], row[1]);
            policy_loss -= f64::from(advantage) * f64::from(log_prob);
            let error = (v - target) / weights.value_deviation;
            value_loss += 0.5 * f64::from(error).powi(2);
            entropy += f64::from(h);
            value += f64::from(v);
            d_row[0] = -weight * advantage;
            d_row[1] = -weight * weights.entropy_cost;
            *d_v = weight * weights.baseline_cost * error;
        }
        let weight = f64::from(weight);
        let entropy_loss = -f64::from(weights.entropy_cost) * weight * entropy;
        let loss =
            weight * policy_loss + f64::from(weights.baseline_cost) * weight * value_loss + entropy_loss;
        metrics.push("loss", loss);
        metrics.push("policy_loss", weight * policy_loss);
        metrics.push("value_loss", weight * value_loss);
        metrics.push("entropy_loss", entropy_loss);
        metrics.push("entropy_cost", weights.entropy_cost.into());
        metrics.push("entropy", entropy / steps as f64);
        metrics.push("mean_value", value / steps as f64);
        metrics.push("explained_variance", explained_variance(&values[..steps], targets).into());
        Self { loss, d_log_prob_entropy, d_values }
    }
}

/// A scalar of value `loss` in the graph of `input`, whose gradient with respect to it is known.
///
/// # Errors
/// If the gradient has another number of elements.
pub fn known_gradient(loss: f64, input: &Tensor, gradient: Vec<f32>) -> Result<Tensor> {
    let gradient = Tensor::from_vec(gradient, input.shape(), input.device())?;
    if !is_fused(input.device()) {
        return linear_part(input, &gradient)?.affine(1.0, loss);
    }
    input.apply_op1(KnownGradient { loss: loss as f32, gradient })
}

/// A scalar of value `loss` in the graph of two inputs, whose gradients with respect to them are known.
///
/// # Errors
/// If a gradient has another number of elements.
pub fn known_gradients(
    loss: f64,
    (first, d_first): (&Tensor, Vec<f32>),
    (second, d_second): (&Tensor, Vec<f32>),
) -> Result<Tensor> {
    if !is_fused(first.device()) {
        let d_first = Tensor::from_vec(d_first, first.shape(), first.device())?;
        let d_second = Tensor::from_vec(d_second, second.shape(), second.device())?;
        let sum = (linear_part(first, &d_first)? + linear_part(second, &d_second)?)?;
        return sum.affine(1.0, loss);
    }
    let gradients = KnownGradients {
        loss: loss as f32,
        first: Tensor::from_vec(d_first, first.shape(), first.device())?,
        second: Tensor::from_vec(d_second, second.shape(), second.device())?,
    };
    first.apply_op2(second, gradients)
}

/// A scalar 0 in the graph of `input`, whose gradient with respect to it is `gradient`, of candle's own operations.
fn linear_part(input: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    ((input - input.detach())? * gradient)?.sum_all()
}

struct KnownGradient {
    loss: f32,
    gradient: Tensor,
}

impl CustomOp1 for KnownGradient {
    fn name(&self) -> &'static str {
        "known-gradient"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![self.loss]), Shape::from(())))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, outer: &Tensor) -> Result<Option<Tensor>> {
        chain(&self.gradient, outer).map(Some)
    }
}

/// The gradient times that of what the scalar goes into, which is 1 unless somebody weights it.
fn chain(gradient: &Tensor, outer: &Tensor) -> Result<Tensor> {
    match outer.to_scalar::<f32>()? {
        1.0 => Ok(gradient.clone()),
        outer => gradient.affine(f64::from(outer), 0.0),
    }
}

struct KnownGradients {
    loss: f32,
    first: Tensor,
    second: Tensor,
}

impl CustomOp2 for KnownGradients {
    fn name(&self) -> &'static str {
        "known-gradients"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![self.loss]), Shape::from(())))
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        outer: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(chain(&self.first, outer)?), Some(chain(&self.second, outer)?)))
    }
}
