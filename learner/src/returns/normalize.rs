//! Advantages on one scale, whatever the rewards are.

/// Shifts and scales `values` to mean 0 and standard deviation 1 (with Bessel's correction, as PyTorch's `std`).
///
/// Where all are equal, or there is but one, they become 0.
pub fn normalize(values: &mut [f32]) {
    let count = values.len() as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
    let squares = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>();
    let deviation = (squares / (count - 1.0).max(1.0)).sqrt();
    let scale = 1.0 / (deviation + 1e-8);
    values.iter_mut().for_each(|v| *v = ((f64::from(*v) - mean) * scale) as f32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_is_0_and_deviation_1() {
        let mut values = [1.0, 2.0, 3.0, 4.0];
        normalize(&mut values);
        let deviation = (5.0f32 / 3.0).sqrt();
        for (value, expected) in values.iter().zip([-1.5, -0.5, 0.5, 1.5]) {
            assert!((value - expected / deviation).abs() < 1e-6, "{values:?}");
        }
        let mut equal = [7.0; 3];
        normalize(&mut equal);
        assert_eq!(equal, [0.0; 3]);
        let mut single = [7.0];
        normalize(&mut single);
        assert_eq!(single, [0.0]);
    }
}
