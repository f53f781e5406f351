//! The conjugate gradient method (Hestenes and Stiefel 1952): `A x = b` for a symmetric positive definite `A` of which
//! only products with vectors are known.

use super::dot;

/// Where the iterations ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Solution {
    /// The estimate of `A^-1 b`.
    pub x: Vec<f32>,
    /// `|b - A x| / |b|`; 0 if `b` is 0.
    pub residual: f64,
}

/// Relative residual at which iterations end early.
const GOOD_ENOUGH: f64 = 1e-5;

/// Solves `A x = b` from `x = 0` in at most `iterations`.
///
/// # Errors
/// What `product` fails with.
pub fn solve<E>(
    b: &[f32],
    iterations: usize,
    product: impl Fn(&[f32]) -> Result<Vec<f32>, E>,
) -> Result<Solution, E> {
    let mut x = vec![0.0f32; b.len()];
    let mut residual = b.to_vec();
    let mut direction = b.to_vec();
    let start = dot(b, b);
    let mut squared = start;
    for _ in 0..iterations {
        if squared <= start * GOOD_ENOUGH * GOOD_ENOUGH {
            break;
        }
        let along = product(&direction)?;
        let curvature = dot(&direction, &along);
        // Rounding, or a matrix that is none of the promised kind: further steps would lead astray.
        if !(curvature.is_finite() && curvature > 0.0) {
            break;
        }
        let step = squared / curvature;
        let moves = x.iter_mut().zip(&mut residual).zip(direction.iter().zip(&along));
        for ((x, r), (d, a)) in moves {
            *x = (f64::from(*x) + step * f64::from(*d)) as f32;
            *r = (f64::from(*r) - step * f64::from(*a)) as f32;
        }
        let next = dot(&residual, &residual);
        let keep = next / squared;
        squared = next;
        for (d, r) in direction.iter_mut().zip(&residual) {
            *d = (f64::from(*r) + keep * f64::from(*d)) as f32;
        }
    }
    let residual = if start > 0.0 { (squared / start).sqrt() } else { 0.0 };
    Ok(Solution { x, residual })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn product(v: &[f32]) -> Result<Vec<f32>, Infallible> {
        let a = [[4.0f32, 1.0, 0.5], [1.0, 3.0, -0.2], [0.5, -0.2, 2.0]];
        Ok(a.iter().map(|row| row.iter().zip(v).map(|(a, v)| a * v).sum()).collect())
    }

    #[test]
    fn as_many_iterations_as_dimensions_solve_the_system() {
        let x = [1.0f32, -2.0, 0.5];
        let b = product(&x).unwrap();
        let solution = solve(&b, 3, product).unwrap();
        for (found, expected) in solution.x.iter().zip(x) {
            assert!((found - expected).abs() < 1e-5, "{:?}", solution.x);
        }
        assert!(solution.residual < 1e-5);
        let early = solve(&b, 1, product).unwrap();
        assert!(early.residual > 1e-2 && early.residual < 1.0, "{}", early.residual);
    }

    #[test]
    fn nothing_asked_is_nothing_done() {
        assert_eq!(solve(&[0.0; 3], 5, product).unwrap(), Solution { x: vec![0.0; 3], residual: 0.0 });
    }
}
