//! SAC's arithmetic for continuous actions: a normal distribution squashed by `tanh`, drawn from with
//! reparameterisation.
//!
//! With the policy's mean `m`, logarithm of the standard deviation `s` and noise `e` from N(0, 1):
//!
//! ```text
//! u = m + exp(s) e          a = tanh(u)
//! log pi(a|x) = sum(-e^2 / 2 - s - ln(2 pi) / 2 - ln(1 - tanh(u)^2))
//! loss        = mean(alpha log pi(a|x) - Q(x, a))
//! ```
//!
//! so that, `e` being held, `d log pi / d m = 2 a`, `d log pi / d s = 2 a exp(s) e - 1` and `d a / d u = 1 - a^2`.

use std::f32::consts::LN_2;

/// `ln(2 pi) / 2`.
const HALF_LN_TWO_PI: f32 = 0.918_938_5;

/// Actions drawn from rows of parameters.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Drawn {
    /// `[N, D]`: `tanh(u)`.
    pub actions: Vec<f32>,
    /// `[N]`: logarithms of their densities.
    pub log_probs: Vec<f32>,
    /// `[N, D]`: `exp(s) e`, by which `u` differs from the mean.
    spread: Vec<f32>,
}

/// Draws an action from each row of `params`, `[N, 2 D]` (means, logarithms of standard deviations), with the
/// standard normal numbers `noise`, `[N, D]`.
pub fn draw(dimensions: usize, params: &[f32], noise: &[f32]) -> Drawn {
    let mut drawn = Drawn::default();
    for (row, noise) in params.chunks_exact(2 * dimensions).zip(noise.chunks_exact(dimensions)) {
        let (mean, log_std) = row.split_at(dimensions);
        let mut log_prob = 0.0;
        for ((mean, log_std), noise) in mean.iter().zip(log_std).zip(noise) {
            let spread = log_std.exp() * noise;
            let u = mean + spread;
            log_prob -= 0.5 * noise * noise + log_std + HALF_LN_TWO_PI + ln_one_minus_tanh_squared(u);
            drawn.actions.push(u.tanh());
            drawn.spread.push(spread);
        }
        drawn.log_probs.push(log_prob);
    }
    drawn
}

/// `ln(1 - tanh(u)^2)`, which keeps its precision where `tanh(u)` rounds to 1.
fn ln_one_minus_tanh_squared(u: f32) -> f32 {
    let softplus = |x: f32| x.max(0.0) + (-x.abs()).exp().ln_1p();
    2.0 * (LN_2 - u - softplus(-2.0 * u))
}

/// The policy's loss, and its gradient with respect to the rows of parameters, `[N, 2 D]`.
///
/// `q` `[N]` are the critics' estimates of the drawn actions, `d_q` `[N, D]` their gradients with respect to them.
pub fn policy_objective(drawn: &Drawn, q: &[f32], d_q: &[f32], alpha: f32) -> (f64, Vec<f32>) {
    let rows = q.len();
    let dimensions = drawn.actions.len() / rows;
    let weight = 1.0 / rows as f32;
    let loss =
        drawn.log_probs.iter().zip(q).map(|(log_prob, q)| f64::from(alpha * log_prob - q)).sum::<f64>();
    let mut gradient = vec![0.0; 2 * drawn.actions.len()];
    for (row, gradient) in gradient.chunks_exact_mut(2 * dimensions).enumerate() {
        let (of_mean, of_log_std) = gradient.split_at_mut(dimensions);
        for at in 0..dimensions {
            let i = row * dimensions + at;
            let (action, spread) = (drawn.actions[i], drawn.spread[i]);
            let of_u = alpha * 2.0 * action - d_q[i] * (1.0 - action * action);
            of_mean[at] = weight * of_u;
            of_log_std[at] = weight * (of_u * spread - alpha);
        }
    }
    (loss / rows as f64, gradient)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARAMS: [f32; 8] = [0.3, -0.8, -0.2, 0.1, 1.5, 0.2, -1.0, 0.4];
    const NOISE: [f32; 4] = [0.7, -1.1, 0.2, 1.9];

    /// An estimate with a known gradient: `Q = sum(c a - a^2)`.
    fn q(actions: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let c = [0.5f32, -1.0];
        let of_row = |row: &[f32]| row.iter().zip(c).map(|(a, c)| c * a - a * a).sum::<f32>();
        let d = actions.iter().enumerate().map(|(i, a)| c[i % 2] - 2.0 * a).collect();
        (actions.chunks_exact(2).map(of_row).collect(), d)
    }

    #[test]
    fn the_density_is_the_one_of_the_change_of_variables() {
        let drawn = draw(2, &PARAMS, &NOISE);
        for row in 0..2 {
            let mut expected = 0f64;
            for at in 0..2 {
                let (m, s) = (f64::from(PARAMS[row * 4 + at]), f64::from(PARAMS[row * 4 + 2 + at]));
                let u = m + s.exp() * f64::from(NOISE[row * 2 + at]);
                assert!((f64::from(drawn.actions[row * 2 + at]) - u.tanh()).abs() < 1e-6);
                let z = (u - m) / s.exp();
                let normal = (-0.5 * z * z).exp() / (s.exp() * std::f64::consts::TAU.sqrt());
                expected += (normal / (1.0 - u.tanh().powi(2))).ln();
            }
            assert!((f64::from(drawn.log_probs[row]) - expected).abs() < 1e-5);
        }
    }

    #[test]
    fn a_saturated_action_has_a_finite_density() {
        let drawn = draw(1, &[40.0, 0.0], &[0.5]);
        assert_eq!(drawn.actions, [1.0]);
        assert!((drawn.log_probs[0] - (-0.125 - HALF_LN_TWO_PI - 2.0 * (LN_2 - 40.5))).abs() < 1e-4);
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_loss() {
        let alpha = 0.3;
        let loss = |params: &[f32]| {
            let drawn = draw(2, params, &NOISE);
            let (q, d_q) = q(&drawn.actions);
            policy_objective(&drawn, &q, &d_q, alpha)
        };
        let (_, gradient) = loss(&PARAMS);
        for at in 0..PARAMS.len() {
            let step = 1e-2f32;
            let at_offset = |offset: f32| {
                let mut params = PARAMS;
                params[at] += offset;
                loss(&params).0
            };
            let slope = (at_offset(step) - at_offset(-step)) / (2.0 * f64::from(step));
            assert!((slope - f64::from(gradient[at])).abs() < 2e-3, "{at}: {slope} and {}", gradient[at]);
        }
    }
}
