//! Log-probability and entropy as one operation in candle's graph, with its analytic gradient.
//!
//! On devices other than the CPU the same formulae are made of candle's own operations.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, D, DType, Layout, Result, Shape, Tensor};

use super::{ActionDistribution, Actions, DistributionError, Kind, categorical, gaussian, squash};
use crate::kernels::{is_fused, with_slice};

/// See [`ActionDistribution::log_prob_entropy`].
pub(super) fn log_prob_entropy(
    distribution: &ActionDistribution,
    params: &Tensor,
    actions: Actions,
) -> std::result::Result<Tensor, DistributionError> {
    let mismatch = |what, expected, found| DistributionError::Mismatch { what, expected, found };
    let count = distribution.parameter_count();
    let rows = match params.dims() {
        [rows, columns] if *columns == count && params.dtype() == DType::F32 => *rows,
        dims => {
            let found = format!("{:?} {dims:?}", params.dtype());
            return Err(mismatch(
                "parameters of the action distribution",
                format!("F32 [N, {count}]"),
                found,
            ));
        }
    };
    let width = distribution.action_len();
    match (&distribution.kind, &actions) {
        (Kind::Categorical { .. }, Actions::Discrete(taken)) if taken.len() == rows * width => {
            distribution.check_actions(taken)?;
        }
        (Kind::Gaussian { .. }, Actions::Continuous(taken))
            if taken.dims() == [rows, width] && taken.dtype() == DType::F32 => {}
        (_, actions) => {
            let found = match actions {
                Actions::Discrete(taken) => format!("{} discrete numbers", taken.len()),
                Actions::Continuous(taken) => format!("continuous {:?} {:?}", taken.dtype(), taken.dims()),
            };
            let expected = format!("{} [{rows}, {width}]", distribution.action_dtype());
            return Err(mismatch("actions", expected, found));
        }
    }
    if !is_fused(params.device()) {
        return Ok(composed(distribution, params, &actions)?);
    }
    let density = match (&distribution.kind, actions) {
        (Kind::Categorical { alternatives }, Actions::Discrete(actions)) => {
            Density::Categorical { alternatives: alternatives.clone(), actions }
        }
        (Kind::Gaussian { dimensions, squash }, Actions::Continuous(actions)) => Density::Gaussian {
            dimensions: *dimensions,
            squashed: squash.is_some(),
            actions: actions.detach().contiguous()?,
        },
        _ => unreachable!("actions of another kind were refused above"),
    };
    Ok(params.contiguous()?.apply_op1(density)?)
}

/// The operation: what the actions were.
enum Density {
    Categorical { alternatives: Arc<[usize]>, actions: Arc<[i32]> },
    Gaussian { dimensions: usize, squashed: bool, actions: Tensor },
}

impl CustomOp1 for Density {
    fn name(&self) -> &'static str {
        "log-prob-entropy"
    }

    fn cpu_fwd(&self, params: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, _) = layout.shape().dims2()?;
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("log-prob-entropy: parameters are not contiguous")
        };
        let params = &params.as_slice::<f32>()?[start..end];
        let mut out = vec![0f32; rows * 2];
        match self {
            Self::Categorical { alternatives, actions } => {
                categorical::log_prob_entropy(alternatives, params, actions, &mut out);
            }
            Self::Gaussian { dimensions, squashed, actions } => with_slice(actions, |actions: &[f32]| {
                gaussian::log_prob_entropy(*dimensions, params, actions, &mut out);
                if *squashed {
                    squash::adjust(*dimensions, params, actions, &mut out);
                }
            })?,
        }
        Ok((CpuStorage::F32(out), (rows, 2).into()))
    }

    fn bwd(&self, params: &Tensor, _result: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let mut out = vec![0f32; params.elem_count()];
        let grad = grad.contiguous()?;
        with_slice(params, |params: &[f32]| {
            with_slice(&grad, |grad: &[f32]| match self {
                Self::Categorical { alternatives, actions } => {
                    categorical::log_prob_entropy_gradient(alternatives, params, actions, grad, &mut out);
                    Ok(())
                }
                Self::Gaussian { dimensions, squashed, actions } => {
                    with_slice(actions, |actions: &[f32]| {
                        gaussian::log_prob_entropy_gradient(*dimensions, params, actions, grad, &mut out);
                        if *squashed {
                            squash::adjust_gradient(*dimensions, params, grad, &mut out);
                        }
                    })
                }
            })
        })???;
        Ok(Some(Tensor::from_vec(out, params.shape(), params.device())?))
    }
}

/// The same made of candle's own operations, for other devices (and as a check of the above).
pub(super) fn composed(
    distribution: &ActionDistribution,
    params: &Tensor,
    actions: &Actions,
) -> Result<Tensor> {
    let (log_prob, entropy) = match (&distribution.kind, actions) {
        (Kind::Categorical { alternatives }, Actions::Discrete(actions)) => {
            composed_categorical(alternatives, params, actions)?
        }
        (Kind::Gaussian { dimensions, squash }, Actions::Continuous(actions)) => {
            let actions = &actions.detach().to_device(params.device())?;
            let (log_prob, entropy) = composed_gaussian(*dimensions, params, actions)?;
            match squash {
                None => (log_prob, entropy),
                Some(_) => (
                    (log_prob - composed_log_slope(actions)?.sum(1)?)?,
                    (entropy + composed_mean_log_slopes(*dimensions, params)?)?,
                ),
            }
        }
        _ => candle_core::bail!("actions are of another kind than their distribution"),
    };
    Tensor::stack(&[log_prob, entropy], 1)
}

/// `ln(2 pi) / 2`.
const HALF_LN_TWO_PI: f64 = 0.918_938_533_204_672_7;

/// Log-density and entropy of a diagonal normal, `[N]` each.
fn composed_gaussian(dimensions: usize, params: &Tensor, actions: &Tensor) -> Result<(Tensor, Tensor)> {
    let (mean, log_std) = (params.narrow(1, 0, dimensions)?, params.narrow(1, dimensions, dimensions)?);
    let z = ((actions - mean)? * log_std.neg()?.exp()?)?;
    let log_prob = ((z.sqr()? * -0.5)? - &log_std)?.affine(1.0, -HALF_LN_TWO_PI)?.sum(1)?;
    let entropy = log_std.affine(1.0, 0.5 + HALF_LN_TWO_PI)?.sum(1)?;
    Ok((log_prob, entropy))
}

/// The logarithm of the slope of the hyperbolic tangent, for every element.
fn composed_log_slope(u: &Tensor) -> Result<Tensor> {
    let size = u.abs()?;
    let tail = size.affine(-2.0, 0.0)?.exp()?.affine(1.0, 1.0)?.log()?;
    (size + tail)?.affine(-2.0, 2.0 * std::f64::consts::LN_2)
}

/// What squashing adds to the entropy of each row, `[N]`.
fn composed_mean_log_slopes(dimensions: usize, params: &Tensor) -> Result<Tensor> {
    let device = params.device();
    let points = Tensor::new(&squash::QUADRATURE.points, device)?.reshape((1, 1, squash::POINTS))?;
    let weights = Tensor::new(&squash::QUADRATURE.weights, device)?.reshape((1, 1, squash::POINTS))?;
    let (mean, log_std) = (params.narrow(1, 0, dimensions)?, params.narrow(1, dimensions, dimensions)?);
    let u = log_std.exp()?.unsqueeze(2)?.broadcast_mul(&points)?.broadcast_add(&mean.unsqueeze(2)?)?;
    composed_log_slope(&u)?.broadcast_mul(&weights)?.sum((1, 2))
}

/// Log-probability and entropy of independent categoricals, `[N]` each.
fn composed_categorical(
    alternatives: &[usize],
    params: &Tensor,
    actions: &[i32],
) -> Result<(Tensor, Tensor)> {
    let rows = params.dim(0)?;
    let mut sums: Option<(Tensor, Tensor)> = None;
    let mut start = 0;
    for (choice, count) in alternatives.iter().enumerate() {
        let logits = params.narrow(1, start, *count)?;
        start += count;
        let shifted = logits.broadcast_sub(&logits.detach().max_keepdim(D::Minus1)?)?;
        let log_probs = shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(D::Minus1)?.log()?)?;
        // A finite stand-in for -inf, so that impossible alternatives add 0 to the entropy.
        let bounded = log_probs.maximum(f64::from(f32::MIN))?;
        let entropy = (log_probs.exp()? * bounded)?.sum(1)?.neg()?;
        let taken: Vec<u32> =
            actions.iter().skip(choice).step_by(alternatives.len()).map(|a| *a as u32).collect();
        let taken = Tensor::from_vec(taken, (rows, 1), params.device())?;
        let log_prob = log_probs.contiguous()?.gather(&taken, 1)?.squeeze(1)?;
        sums = Some(match sums {
            None => (log_prob, entropy),
            Some((log_probs, entropies)) => ((log_probs + log_prob)?, (entropies + entropy)?),
        });
    }
    sums.ok_or_else(|| candle_core::Error::msg("a categorical distribution without a choice"))
}
