//! SAC's arithmetic for discrete actions (Christodoulou 2019, <https://arxiv.org/abs/1910.07207>).
//!
//! The critics estimate all `n` alternatives at once, so that expectations over the policy `p = softmax(l)` are
//! sums and nothing is drawn:
//!
//! ```text
//! V(x)  = sum(p (Q - alpha ln p))
//! loss  = mean(sum(p (alpha ln p - Q)))
//! d loss / d l_j = p_j (f_j - sum(p f)) / N,   f = alpha ln p - Q
//! ```

/// What a policy makes of the critics' estimates.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Soft {
    /// `[N]`: expected estimate plus `alpha` times the entropy.
    pub values: Vec<f32>,
    /// `[N]`: entropies in nats.
    pub entropies: Vec<f32>,
    /// `[N, n]`: gradient of the policy's loss with respect to the logits.
    pub d_logits: Vec<f32>,
}

/// `logits` and `q` are `[N, n]`.
pub fn soft(alternatives: usize, logits: &[f32], q: &[f32], alpha: f32) -> Soft {
    let weight = alternatives as f32 / logits.len() as f32;
    let mut soft = Soft { d_logits: Vec::with_capacity(logits.len()), ..Soft::default() };
    for (logits, q) in logits.chunks_exact(alternatives).zip(q.chunks_exact(alternatives)) {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let ln_sum = logits.iter().map(|l| (l - max).exp()).sum::<f32>().ln();
        let ln_p = |at: usize| logits[at] - max - ln_sum;
        let (mut value, mut entropy) = (0.0, 0.0);
        for (at, q) in q.iter().enumerate() {
            let p = ln_p(at).exp();
            value += p * q;
            entropy -= p * ln_p(at);
        }
        value += alpha * entropy;
        // sum(p f) is minus the value.
        soft.d_logits
            .extend((0..alternatives).map(|at| weight * ln_p(at).exp() * (alpha * ln_p(at) - q[at] + value)));
        soft.values.push(value);
        soft.entropies.push(entropy);
    }
    soft
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_expectations_and_the_gradient_is_the_slope_of_minus_their_mean() {
        let (logits, q, alpha) =
            ([0.2f32, -1.0, 0.7, 2.0, 0.0, -0.5], [1.0f32, 2.0, -1.0, 0.3, 0.6, 4.0], 0.4);
        let result = soft(3, &logits, &q, alpha);
        for row in 0..2 {
            let exp: Vec<f64> = (0..3).map(|a| f64::from(logits[row * 3 + a]).exp()).collect();
            let p: Vec<f64> = exp.iter().map(|e| e / exp.iter().sum::<f64>()).collect();
            let entropy = -p.iter().map(|p| p * p.ln()).sum::<f64>();
            let mean_q = (0..3).map(|a| p[a] * f64::from(q[row * 3 + a])).sum::<f64>();
            assert!((f64::from(result.entropies[row]) - entropy).abs() < 1e-6);
            assert!((f64::from(result.values[row]) - mean_q - 0.4 * entropy).abs() < 1e-6);
        }
        for at in 0..6 {
            let loss = |offset: f32| {
                let mut logits = logits;
                logits[at] += offset;
                -soft(3, &logits, &q, alpha).values.iter().map(|v| f64::from(*v)).sum::<f64>() / 2.0
            };
            let slope = (loss(1e-2) - loss(-1e-2)) / 2e-2;
            assert!((slope - f64::from(result.d_logits[at])).abs() < 1e-3, "{at}");
        }
    }
}
