//! The policy head: from the last hidden layer to a row of the action distribution's parameters.
//!
//! A layer gives logits or means. The logarithms of standard deviations that follow the means are a free vector, the
//! same in every row, or a layer of their own, bounded as in soft actor-critic (Haarnoja et al. 2018,
//! <https://arxiv.org/abs/1812.05905>): beyond a bound they are cut off and have no gradient.
//!
//! In generalised state-dependent exploration (Raffin et al. 2021, <https://arxiv.org/abs/2005.05719>) the noise is a random
//! linear function of the last hidden layer `phi`, `noise_j = sum_i phi_i exp(L_ij) E_ij`, whose `E`, standard normal, is
//! kept for a while. Over draws of `E` an action is normal with `std_j^2 = sum_i phi_i^2 exp(2 L_ij)`, and that is the
//! distribution which the row describes. The gradient of the deviations goes to `L` alone, not into `phi`.

use candle_core::Tensor;

use super::distribution::ActionDistribution;
use super::error::PolicyError;
use super::layers::Linear;
use super::parameters::ParameterSpec;
use super::snapshot::Weights;
use crate::config::{Exploration, LogStd, PolicySection};

/// Name of the layer that gives logits or means.
const OUTPUT: &str = "policy";
/// Name of the vector of logarithms of standard deviations.
const FREE_LOG_STD: &str = "policy.log_std";
/// Name of the layer that gives them.
const LOG_STD: &str = "policy_log_std";
/// Name of the matrix `L` of state-dependent exploration.
const NOISE_LOG_STD: &str = "policy.noise_log_std";
/// Added to a variance, which is 0 where no feature is active.
const LEAST_VARIANCE: f64 = 1e-6;

/// The head with its weights in place.
#[derive(Debug, Clone)]
pub(super) struct PolicyHead {
    output: Linear,
    log_std: Option<LogStdSource>,
}

/// Where a continuous policy's logarithms of standard deviations come from.
#[derive(Debug, Clone)]
enum LogStdSource {
    /// `[D]`.
    Free(Tensor),
    /// A layer, and the least and largest number that it may give.
    State { layer: Linear, min: f32, max: f32 },
    /// `L`, `[H, D]`, of state-dependent exploration, and the steps that its noise is kept for.
    Noise { log_std: Tensor, resample_steps: u32 },
}

/// What the noise of state-dependent exploration is made of, for N observations.
#[derive(Debug, Clone)]
pub struct NoiseFeatures {
    /// `[N, H]`: the last hidden layer.
    pub features: Tensor,
    /// `[H, D]`: logarithms of the standard deviations of the noise's coefficients.
    pub log_std: Tensor,
    /// Environment steps after which the coefficients are drawn anew; 0 is once an episode.
    pub resample_steps: u32,
}

/// Numbers that the layer of logits or means gives.
fn outputs(distribution: &ActionDistribution) -> usize {
    distribution.parameter_count() - distribution.log_std_count()
}

/// The parameters of the layer of logits or means, on `inputs` numbers.
pub(super) fn output_parameters(
    section: &PolicySection,
    distribution: &ActionDistribution,
    inputs: usize,
) -> Vec<ParameterSpec> {
    ParameterSpec::layer(OUTPUT, vec![outputs(distribution), inputs], section.policy_gain, 0.0).into()
}

/// The parameters that logarithms of standard deviations come from; none for discrete actions.
pub(super) fn log_std_parameters(
    section: &PolicySection,
    distribution: &ActionDistribution,
    inputs: usize,
) -> Vec<ParameterSpec> {
    let (count, start) = (distribution.log_std_count(), section.initial_log_std);
    match (count, section.log_std) {
        (0, _) => vec![],
        _ if section.exploration == Exploration::Gsde => {
            vec![ParameterSpec::constant(NOISE_LOG_STD, vec![inputs, count], start)]
        }
        (_, LogStd::Free) => vec![ParameterSpec::constant(FREE_LOG_STD, vec![count], start)],
        (_, LogStd::State) => {
            ParameterSpec::layer(LOG_STD, vec![count, inputs], section.policy_gain, start).into()
        }
    }
}

impl PolicyHead {
    /// The head over `weights`, on a hidden layer of `inputs` numbers.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub(super) fn new(
        section: &PolicySection,
        distribution: &ActionDistribution,
        inputs: usize,
        weights: &Weights,
    ) -> Result<Self, PolicyError> {
        let linear = |name, outputs| Linear::new(weights, name, inputs, outputs);
        let count = distribution.log_std_count();
        let log_std = match (count, section.log_std) {
            (0, _) => None,
            _ if section.exploration == Exploration::Gsde => Some(LogStdSource::Noise {
                log_std: weights.get(NOISE_LOG_STD, &[inputs, count])?,
                resample_steps: section.gsde_resample_steps,
            }),
            (_, LogStd::Free) => Some(LogStdSource::Free(weights.get(FREE_LOG_STD, &[count])?)),
            (_, LogStd::State) => Some(LogStdSource::State {
                layer: linear(LOG_STD, count)?,
                min: section.min_log_std,
                max: section.max_log_std,
            }),
        };
        Ok(Self { output: linear(OUTPUT, outputs(distribution))?, log_std })
    }

    /// Distribution parameters `[N, P]` for `hidden`, `[N, H]`.
    ///
    /// # Errors
    /// If `hidden` has another width.
    pub(super) fn forward(&self, hidden: &Tensor) -> Result<Tensor, PolicyError> {
        let output = self.output.forward(hidden)?;
        let log_std = match &self.log_std {
            None => return Ok(output),
            Some(LogStdSource::Free(log_std)) => log_std.broadcast_as(output.dims())?,
            Some(LogStdSource::State { layer, min, max }) => layer.forward(hidden)?.clamp(*min, *max)?,
            Some(LogStdSource::Noise { log_std, .. }) => {
                let variances = log_std.affine(2.0, 0.0)?.exp()?;
                let variance = hidden.detach().sqr()?.matmul(&variances)?.affine(1.0, LEAST_VARIANCE)?;
                variance.log()?.affine(0.5, 0.0)?
            }
        };
        Ok(Tensor::cat(&[&output, &log_std], 1)?)
    }

    /// What the noise is made of for `hidden`, `[N, H]`, if it is a function of the state.
    pub(super) fn noise(&self, hidden: &Tensor) -> Option<NoiseFeatures> {
        let Some(LogStdSource::Noise { log_std, resample_steps }) = &self.log_std else { return None };
        Some(NoiseFeatures {
            features: hidden.clone(),
            log_std: log_std.clone(),
            resample_steps: *resample_steps,
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};

    use super::*;
    use crate::space::Space;

    /// A head of two continuous actions on three inputs, with a layer for standard deviations.
    fn section() -> PolicySection {
        PolicySection {
            log_std: LogStd::State,
            min_log_std: -3.0,
            max_log_std: 1.0,
            initial_log_std: -0.5,
            policy_gain: 0.7,
            ..PolicySection::default()
        }
    }

    fn distribution() -> ActionDistribution {
        ActionDistribution::new(&Space::boxed(&[-1.0; 2], &[1.0; 2])).unwrap()
    }

    fn flat(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn standard_deviations_start_as_configured_and_keep_their_bounds() {
        let (section, distribution) = (section(), distribution());
        let parameters = log_std_parameters(&section, &distribution, 3);
        assert_eq!(parameters[1], ParameterSpec::constant("policy_log_std.bias", vec![2], -0.5));
        let tensor =
            |values: &[f32], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
        let weights = Weights(vec![
            ("policy.weight".into(), tensor(&[1.0, 0.0, 0.0, 0.0, 1.0, 0.0], &[2, 3])),
            ("policy.bias".into(), tensor(&[0.0, 0.5], &[2])),
            ("policy_log_std.weight".into(), tensor(&[0.0, 0.0, 1.0, 0.0, 0.0, -1.0], &[2, 3])),
            ("policy_log_std.bias".into(), tensor(&[-0.5, -0.5], &[2])),
        ]);
        let head = PolicyHead::new(&section, &distribution, 3, &weights).unwrap();
        let hidden = tensor(&[1.0, 2.0, 0.25, 0.0, -1.0, 9.0], &[2, 3]);
        let rows = head.forward(&hidden).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(rows, [[1.0, 2.5, -0.25, -0.75], [0.0, -0.5, 1.0, -3.0]]);
    }

    #[test]
    fn deviations_of_state_dependent_noise_follow_the_features_and_leave_them_alone() {
        let section = PolicySection {
            exploration: Exploration::Gsde,
            gsde_resample_steps: 7,
            log_std: LogStd::Free,
            ..section()
        };
        let distribution = distribution();
        let parameters = log_std_parameters(&section, &distribution, 3);
        assert_eq!(parameters, [ParameterSpec::constant("policy.noise_log_std", vec![3, 2], -0.5)]);
        let var = |values: &[f32], shape: &[usize]| Var::from_slice(values, shape, &Device::Cpu).unwrap();
        let start = [-0.5f32, 0.3, -1.0, -0.2, 0.1, -2.0];
        let features = [0.5f32, -1.0, 0.25, 0.0, 0.0, 0.0];
        let coefficients = [0.7f32, -1.2, 0.4, 0.9];
        let run = |matrix: &[f32; 6]| {
            let (matrix, hidden) = (var(matrix, &[3, 2]), var(&features, &[2, 3]));
            let weights = Weights(vec![
                ("policy.weight".into(), Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap()),
                ("policy.bias".into(), Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap()),
                ("policy.noise_log_std".into(), matrix.as_tensor().clone()),
            ]);
            let head = PolicyHead::new(&section, &distribution, 3, &weights).unwrap();
            assert_eq!(head.noise(&hidden).unwrap().resample_steps, 7);
            let log_std = head.forward(&hidden).unwrap().narrow(1, 2, 2).unwrap();
            let weights = Tensor::from_slice(&coefficients, (2, 2), &Device::Cpu).unwrap();
            let loss = (&log_std * weights).unwrap().sum_all().unwrap();
            (flat(&log_std), loss, matrix, hidden)
        };
        let exact = |matrix: &[f64]| -> Vec<f64> {
            let variance = |row: usize, j: usize| -> f64 {
                (0..3)
                    .map(|i| f64::from(features[3 * row + i]).powi(2) * (2.0 * matrix[2 * i + j]).exp())
                    .sum()
            };
            (0..4).map(|at| 0.5 * (variance(at / 2, at % 2) + 1e-6).ln()).collect()
        };
        let (log_std, loss, matrix, hidden) = run(&start);
        let wide = start.map(f64::from);
        for (ours, exact) in log_std.iter().zip(exact(&wide)) {
            assert!((f64::from(*ours) - exact).abs() < 1e-5, "{ours} {exact}");
        }
        let gradients = loss.backward().unwrap();
        assert!(gradients.get(&hidden).is_none_or(|g| flat(g).iter().all(|g| *g == 0.0)));
        let gradient = flat(gradients.get(&matrix).unwrap());
        for (at, gradient) in gradient.iter().enumerate() {
            let moved = |by: f64| {
                let mut matrix = wide;
                matrix[at] += by;
                exact(&matrix).iter().zip(coefficients).map(|(x, c)| x * f64::from(c)).sum::<f64>()
            };
            let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((f64::from(*gradient) - slope).abs() < 1e-5, "{gradient} {slope}");
        }
    }

    #[test]
    fn the_gradient_of_state_dependent_deviations_matches_finite_differences_and_ends_at_the_bounds() {
        let (section, distribution) = (section(), distribution());
        let numbers = |count: usize, scale: f32, phase: f32| {
            (0..count).map(|i| (i as f32 * 1.7 + phase).sin() * scale).collect::<Vec<_>>()
        };
        // The last row's deviations lie beyond a bound each.
        let mut hidden = numbers(12, 0.8, 0.3);
        hidden[9..].copy_from_slice(&[4.0, -4.0, 4.0]);
        let hidden = Tensor::from_vec(hidden, (4, 3), &Device::Cpu).unwrap();
        let start = [numbers(6, 0.6, 0.1), vec![0.1, -0.2], numbers(6, 1.0, 2.0), vec![-0.5, -0.4]];
        let shapes: [&[usize]; 4] = [&[2, 3], &[2], &[2, 3], &[2]];
        let names = ["policy.weight", "policy.bias", "policy_log_std.weight", "policy_log_std.bias"];
        let coefficients = Tensor::from_vec(numbers(16, 1.0, 4.0), (4, 4), &Device::Cpu).unwrap();
        let run = |values: &[Vec<f32>; 4]| {
            let vars: Vec<Var> = values
                .iter()
                .zip(shapes)
                .map(|(values, shape)| Var::from_slice(values, shape, &Device::Cpu).unwrap())
                .collect();
            let weights = names.iter().zip(&vars).map(|(n, v)| ((*n).to_owned(), v.as_tensor().clone()));
            let head = PolicyHead::new(&section, &distribution, 3, &Weights(weights.collect())).unwrap();
            let rows = head.forward(&hidden).unwrap();
            let loss = (rows.sqr().unwrap() * &coefficients).unwrap().sum_all().unwrap();
            (rows, loss, vars)
        };
        let (rows, loss, vars) = run(&start);
        let rows = rows.to_vec2::<f32>().unwrap();
        let cut = |row: &Vec<f32>| row[2..].iter().filter(|x| [-3.0, 1.0].contains(*x)).count();
        assert_eq!(rows.iter().map(cut).collect::<Vec<_>>(), [0, 0, 0, 2], "{rows:?}");
        let gradients = loss.backward().unwrap();
        for (at, var) in vars.iter().enumerate() {
            let gradient = flat(gradients.get(var).unwrap());
            for (element, gradient) in gradient.iter().enumerate() {
                let moved = |by: f32| {
                    let mut values = start.clone();
                    values[at][element] += by;
                    run(&values).1.to_scalar::<f32>().unwrap()
                };
                let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
                let error = (gradient - slope).abs();
                assert!(error < 2e-3 * slope.abs().max(1.0), "{}: {gradient} {slope}", names[at]);
            }
        }
    }
}
