//! Losses with known gradients.
//!
//! The losses of the policy-gradient methods are simple functions of what the network says of each step:
//! the log-probability of the action, the entropy, the value. Their gradients with respect to these few
//! numbers are a line of arithmetic each, taken on slices; candle carries them on through the network. That
//! keeps the graph, and with it the cost of small networks' updates, to the network itself.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

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
        let gradients = KnownGradients {
            loss: self.loss as f32,
            d_log_prob_entropy: Tensor::from_vec(
                self.d_log_prob_entropy,
                log_prob_entropy.shape(),
                log_prob_entropy.device(),
            )?,
            d_values: Tensor::from_vec(self.d_values, values.shape(), values.device())?,
        };
        log_prob_entropy.apply_op2(values, gradients)
    }
}

struct KnownGradients {
    loss: f32,
    d_log_prob_entropy: Tensor,
    d_values: Tensor,
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
        let outer = outer.to_scalar::<f32>()?;
        let chain = |gradient: &Tensor| match outer {
            1.0 => Ok(gradient.clone()),
            outer => gradient.affine(f64::from(outer), 0.0),
        };
        Ok((Some(chain(&self.d_log_prob_entropy)?), Some(chain(&self.d_values)?)))
    }
}
