//! What importance weights say about the distance of two policies.

use super::Metrics;

/// Adds `mean_rho`, `clip_fraction` (weights above `bound`) and `approx_kl` of the importance weights
/// `rho = pi(a|x) / mu(a|x)`, given with their logarithms.
///
/// `approx_kl` is the mean of `(rho - 1) - ln rho`, an unbiased estimate of `KL(mu, pi)` that is never negative
/// (Schulman 2020, <http://joschu.net/blog/kl-approx.html>, `k3`).
pub fn importance_weights(metrics: &mut Metrics, log_rhos: &[f32], rhos: &[f32], bound: f32) {
    let count = rhos.len() as f64;
    let mean_rho = rhos.iter().map(|&rho| f64::from(rho)).sum::<f64>() / count;
    let mean_log_rho = log_rhos.iter().map(|&log_rho| f64::from(log_rho)).sum::<f64>() / count;
    let clipped = rhos.iter().filter(|&&rho| rho > bound).count() as f64;
    metrics.push("mean_rho", mean_rho);
    metrics.push("clip_fraction", clipped / count);
    metrics.push("approx_kl", mean_rho - 1.0 - mean_log_rho);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_divergence_is_the_one_of_the_definition() {
        // Two actions; each is sampled as often as the behaviour policy takes it, so that the mean is exact.
        let (mu, pi) = ([0.75f32, 0.25], [0.5f32, 0.5]);
        let sampled = [0, 0, 0, 1];
        let rhos = sampled.map(|action| pi[action] / mu[action]);
        let mut metrics = Metrics::default();
        importance_weights(&mut metrics, &rhos.map(f32::ln), &rhos, 1.0);
        let divergence: f32 = (0..2).map(|action| mu[action] * (mu[action] / pi[action]).ln()).sum();
        assert!((metrics.get("approx_kl").unwrap() - divergence).abs() < 1e-6);
        assert!((metrics.get("mean_rho").unwrap() - 1.0).abs() < 1e-6);
        assert_eq!(metrics.get("clip_fraction"), Some(0.25));
    }
}
