//! What importance weights say about the distance of two policies.

use super::Metrics;

/// Adds `mean_rho`, `clipped_fraction` (weights above `bound`) and `approx_kl` of the importance weights
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
    metrics.push("clipped_fraction", clipped / count);
    metrics.push("approx_kl", mean_rho - 1.0 - mean_log_rho);
}
