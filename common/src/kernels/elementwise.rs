//! Element-wise functions and reductions on slices, vectorised.

use super::{Isa, dispatch};

dispatch! {
    /// Hyperbolic tangent of every element, in place.
    ///
    /// A rational function of degree 9/8, fitted to the smallest relative error on [-9.02, 9.02]: within 7 ulp
    /// and 5e-7 of the true value everywhere, odd, never beyond -1 and 1, exactly 1 from 9.02 on, and the
    /// identity for tiny arguments (denormals included). NaN stays NaN.
    pub fn tanh(xs: &mut [f32]) = tanh_body;

    /// Exponential of every element, in place.
    ///
    /// Within 2 ulp of the true value where that is a normal number, and within one denormal step below;
    /// overflows to infinity and underflows to zero where the true value does. NaN stays NaN.
    pub fn exp(xs: &mut [f32]) = exp_body;

    /// Natural logarithm of every element, in place, for positive normal numbers: within 3 ulp.
    ///
    /// Zero, denormal, negative, infinite and NaN arguments give NaN.
    pub fn ln(xs: &mut [f32]) = ln_body;

    /// Sum of squares, accumulated in `f64`: exact to about 1e-15 relatively, and free of overflow.
    pub fn sum_squares(xs: &[f32]) -> f64 = sum_squares_body;

    /// Whether no element is NaN or infinite.
    pub fn all_finite(xs: &[f32]) -> bool = all_finite_body;
}

#[inline(always)]
pub(super) fn tanh_body<S: Isa>(xs: &mut [f32]) {
    for x in xs {
        *x = tanh_of::<S>(*x);
    }
}

#[inline(always)]
fn exp_body<S: Isa>(xs: &mut [f32]) {
    for x in xs {
        *x = exp_of::<S>(*x);
    }
}

#[inline(always)]
fn ln_body<S: Isa>(xs: &mut [f32]) {
    for x in xs {
        *x = ln_of::<S>(*x);
    }
}

/// `x`, no less than `-limit` and no more than `limit`; NaN stays NaN.
#[inline(always)]
fn bounded(x: f32, limit: f32) -> f32 {
    let x = if x > limit { limit } else { x };
    if x < -limit { -limit } else { x }
}

/// One element of [`tanh`].
#[inline(always)]
pub(crate) fn tanh_of<S: Isa>(x: f32) -> f32 {
    let clamped = bounded(x, 9.02);
    let u = clamped * clamped;
    let p = S::mul_add(1.331_909_6e-8, u, 2.058_35e-5);
    let q = S::mul_add(7.762_029_7e-7, u, 3.283_094_8e-4);
    let p = S::mul_add(p, u, 3.494_035_7e-3);
    let q = S::mul_add(q, u, 2.587_107_8e-2);
    let p = S::mul_add(p, u, 0.133_797_18);
    let q = S::mul_add(q, u, 0.467_130_33);
    let p = S::mul_add(p, u, 1.0);
    let q = S::mul_add(q, u, 1.0);
    let y = bounded(clamped * p / q, 1.0);
    if x.abs() >= 9.02 { 1f32.copysign(x) } else { y }
}

/// One element of [`exp`].
#[inline(always)]
pub(crate) fn exp_of<S: Isa>(x: f32) -> f32 {
    // Beyond these bounds the result is 0 or infinite, by the scaling below.
    let clamped = if x > 89.0 { 89.0 } else { x };
    let clamped = if clamped < -105.0 { -105.0 } else { clamped };
    // x = k ln 2 + r with |r| <= ln 2 / 2; adding 1.5 * 2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let shifted = S::mul_add(clamped, std::f32::consts::LOG2_E, ROUND);
    let k = shifted - ROUND;
    let r = S::mul_add(k, -0.693_359_4, clamped);
    let r = S::mul_add(k, 2.121_944_4e-4, r);
    // e^r = 1 + r + r^2 P(r)
    let p = S::mul_add(1.381_422_2e-3, r, 8.368_899e-3);
    let p = S::mul_add(p, r, 4.166_840_4e-2);
    let p = S::mul_add(p, r, 0.166_665_2);
    let p = S::mul_add(p, r, 0.499_999_94);
    let y = S::mul_add(p, r * r, r) + 1.0;
    // 2^k in two factors, so that results near the ends of the range come out right.
    let k = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = k >> 1;
    let power = |k: i32| f32::from_bits((k.wrapping_add(127) as u32) << 23);
    y * power(half) * power(k.wrapping_sub(half))
}

/// One element of [`ln`].
#[inline(always)]
pub(crate) fn ln_of<S: Isa>(x: f32) -> f32 {
    // x = 2^k m with m in [sqrt(1/2), sqrt(2)); ln m = f - f^2/2 + f^3 P(f) with f = m - 1.
    const SQRT_HALF_BITS: i32 = 0x3f35_04f3;
    let bits = x.to_bits() as i32;
    let k = bits.wrapping_sub(SQRT_HALF_BITS) >> 23;
    let m = f32::from_bits(bits.wrapping_sub(k << 23) as u32);
    let k = k as f32;
    let f = m - 1.0;
    let p = S::mul_add(-7.634_558e-2, f, 0.127_616_78);
    let p = S::mul_add(p, f, -0.131_602_08);
    let p = S::mul_add(p, f, 0.142_017_47);
    let p = S::mul_add(p, f, -0.166_233_54);
    let p = S::mul_add(p, f, 0.200_012_27);
    let p = S::mul_add(p, f, -0.250_008_23);
    let p = S::mul_add(p, f, 0.333_333_3);
    let square = f * f;
    let tail = S::mul_add(k, -2.121_944_4e-4, p * (square * f));
    let tail = S::mul_add(-0.5, square, tail);
    let y = S::mul_add(k, 0.693_359_4, f + tail);
    if (f32::MIN_POSITIVE..f32::INFINITY).contains(&x) { y } else { f32::NAN }
}

/// Partial sums kept apart, so that the compiler may add them as vectors.
const PARTIAL_SUMS: usize = 32;

#[inline(always)]
fn sum_squares_body<S: Isa>(xs: &[f32]) -> f64 {
    let mut sums = [0f64; PARTIAL_SUMS];
    let (chunks, rest) = xs.as_chunks::<PARTIAL_SUMS>();
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            let x = f64::from(*x);
            *sum += x * x;
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        let x = f64::from(*x);
        *sum += x * x;
    }
    sums.iter().sum()
}

#[inline(always)]
fn all_finite_body<S: Isa>(xs: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    xs.chunks(1024).all(|chunk| {
        chunk.iter().fold(0u32, |bad, x| bad | u32::from(x.to_bits() & EXPONENT == EXPONENT)) == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::simd::tests::at_every_level;

    /// Floats spread over the whole range by their bits: every sign and exponent, denormals included.
    fn spread(step: usize) -> Vec<f32> {
        (0..=u32::MAX).step_by(step).map(f32::from_bits).filter(|x| !x.is_nan()).collect()
    }

    fn dense(low: f32, high: f32, count: usize) -> Vec<f32> {
        (0..=count).map(|i| low + (high - low) * i as f32 / count as f32).collect()
    }

    /// Distance of `y` from `exact` in units of the last place of `exact` (of the smallest normal below it).
    fn ulps(y: f32, exact: f64) -> f64 {
        let nearest = exact as f32;
        if y == nearest {
            return 0.0;
        }
        let magnitude = nearest.abs().max(f32::MIN_POSITIVE);
        let unit = f64::from(f32::from_bits(magnitude.to_bits() + 1)) - f64::from(magnitude);
        (f64::from(y) - exact).abs() / unit
    }

    fn worst(function: fn(&mut [f32]), exact: fn(f64) -> f64, xs: &[f32]) -> (f64, f32) {
        let mut ys = xs.to_vec();
        function(&mut ys);
        xs.iter().zip(&ys).fold((0.0, 0.0), |worst, (x, y)| {
            let error = ulps(*y, exact(f64::from(*x)));
            if error > worst.0 || error.is_nan() { (error, *x) } else { worst }
        })
    }

    #[test]
    fn tanh_stays_within_its_error_over_the_whole_range() {
        at_every_level(|level| {
            for xs in [spread(10_007), dense(-10.0, 10.0, 400_000)] {
                let (error, at) = worst(tanh, f64::tanh, &xs);
                assert!(error <= 7.0, "{level:?}: {error} ulp at {at}");
                let mut ys = xs.clone();
                tanh(&mut ys);
                for (x, y) in xs.iter().zip(&ys) {
                    assert!(
                        (f64::from(*y) - f64::from(*x).tanh()).abs() <= 5e-7 && y.abs() <= 1.0,
                        "{x}: {y}"
                    );
                }
            }
        });
    }

    #[test]
    fn exp_stays_within_its_error_over_the_whole_range() {
        at_every_level(|level| {
            for xs in [spread(10_007), dense(-104.5, 89.5, 400_000), dense(-1.0, 1.0, 100_000)] {
                let (error, at) = worst(exp, f64::exp, &xs);
                assert!(error <= 2.0, "{level:?}: {error} ulp at {at}");
            }
        });
    }

    #[test]
    fn ln_stays_within_its_error_over_positive_normal_numbers() {
        at_every_level(|level| {
            let positive: Vec<f32> =
                spread(10_007).into_iter().filter(|x| x.is_normal() && *x > 0.0).collect();
            for xs in [positive, dense(0.5, 20.0, 400_000)] {
                let (error, at) = worst(ln, f64::ln, &xs);
                assert!(error <= 3.0, "{level:?}: {error} ulp at {at}");
            }
        });
    }

    #[test]
    fn special_values_keep_their_meaning() {
        at_every_level(|_| {
            let special = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 0.0, -0.0, 1e-40, -1e-40];
            let mut ys = special;
            tanh(&mut ys);
            assert_eq!(ys[..2], [1.0, -1.0]);
            assert!(ys[2].is_nan());
            assert_eq!(ys[3..], special[3..]);
            assert!(ys[4].is_sign_negative());
            let mut ys = special;
            exp(&mut ys);
            assert_eq!(ys[..2], [f32::INFINITY, 0.0]);
            assert!(ys[2].is_nan());
            assert_eq!(ys[3..], [1.0; 4]);
            let mut ys = [1.0, 0.0, -1.0, f32::INFINITY, f32::NAN, 1e-40];
            ln(&mut ys);
            assert_eq!(ys[0], 0.0);
            assert!(ys[1..].iter().all(|y| y.is_nan()));
        });
    }

    #[test]
    fn every_length_is_covered_to_its_last_element() {
        at_every_level(|_| {
            for length in 0..70 {
                let xs: Vec<f32> = (0..length).map(|i| i as f32 * 0.05 - 1.0).collect();
                let mut ys = xs.clone();
                tanh(&mut ys);
                assert!(xs.iter().zip(&ys).all(|(x, y)| (x.tanh() - y).abs() < 1e-6));
                let exact: f64 = xs.iter().map(|x| f64::from(*x).powi(2)).sum();
                assert!((sum_squares(&xs) - exact).abs() < 1e-12);
            }
        });
    }

    #[test]
    fn squares_are_summed_without_loss_or_overflow() {
        at_every_level(|_| {
            assert_eq!(sum_squares(&[f32::MAX, 1.0]), f64::from(f32::MAX).powi(2) + 1.0);
            let ones = vec![1f32; (1 << 24) + 3];
            assert_eq!(sum_squares(&ones), f64::from((1 << 24) + 3));
        });
    }

    #[test]
    fn one_bad_number_anywhere_is_found() {
        at_every_level(|_| {
            let mut xs = vec![f32::MAX; 3000];
            assert!(all_finite(&xs) && all_finite(&[]));
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for at in [0, 1023, 1024, 2999] {
                    let good = std::mem::replace(&mut xs[at], bad);
                    assert!(!all_finite(&xs));
                    xs[at] = good;
                }
            }
        });
    }
}
