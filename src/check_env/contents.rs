//! Whether numbers are what their space says.

use std::cmp::Ordering;
use std::ops::Range;

use impresario_common::space::Space;
use impresario_common::unroll::Array;

/// What is wrong with a space itself, and what to do.
pub(super) fn flaw(space: &Space) -> Option<String> {
    match space {
        Space::Discrete { n: 0 } => Some("has no alternatives: give it at least one".into()),
        Space::Discrete { .. } => None,
        Space::MultiDiscrete { nvec } if nvec.is_empty() => {
            Some("has no choice: give it at least one".into())
        }
        Space::MultiDiscrete { nvec } => {
            let choice = nvec.iter().position(|&n| n == 0)?;
            Some(format!("has no alternatives in choice {choice}: give each at least one"))
        }
        Space::Box { low, high, shape, .. } => {
            let len = shape.iter().product::<usize>();
            if low.len() != len || high.len() != len {
                let (low, high) = (low.len(), high.len());
                return Some(format!(
                    "has {low} lower and {high} upper bounds for the {len} numbers of shape {shape:?}: give each number both"
                ));
            }
            if len == 0 {
                return Some(format!("holds no number: its shape is {shape:?}"));
            }
            // A bound that is no number cannot be compared.
            let crossed = |(low, high): (&f32, &f32)| low.partial_cmp(high).is_none_or(Ordering::is_gt);
            let at = low.iter().zip(high).position(crossed)?;
            Some(format!(
                "has bounds {}..{} at number {at}: the lower one must not be above the upper one",
                low[at], high[at]
            ))
        }
    }
}

/// The first of `numbers[range]` that is not what `space` says, and how; places count from the start of the range.
pub(super) fn violation(space: &Space, numbers: &Array, range: Range<usize>) -> Option<String> {
    match (space, numbers) {
        (Space::Box { low, high, .. }, Array::F32(values)) => {
            let values = &values[range];
            if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                return Some(format!("number {at} is {}", values[at]));
            }
            outside(values, low, high)
        }
        (Space::Box { low, high, .. }, Array::U8(values)) => {
            let values: Vec<f32> = values[range].iter().map(|&value| value.into()).collect();
            outside(&values, low, high)
        }
        (_, Array::I32(values)) => {
            let choices = space.choices();
            let beyond = |(&value, &n): (&i32, &u32)| u32::try_from(value).map_or(true, |value| value >= n);
            let values = &values[range];
            let at = values.iter().zip(choices).position(beyond)?;
            Some(format!("choice {at} is {} and should be one of 0 to {}", values[at], choices[at] - 1))
        }
        (_, other) => Some(format!("numbers are {} and should be {}", other.dtype(), space.dtype())),
    }
}

fn outside(values: &[f32], low: &[f32], high: &[f32]) -> Option<String> {
    let at = (0..values.len()).find(|&i| !(low[i] <= values[i] && values[i] <= high[i]))?;
    Some(format!("number {at} is {} and should be within {}..{}", values[at], low[at], high[at]))
}

/// Where two arrays of equal length differ first, bit for bit; as a place and both values.
pub(super) fn difference(a: &Array, b: &Array, range: Range<usize>) -> Option<(usize, String, String)> {
    fn first<T: Copy + ToString>(
        a: &[T],
        b: &[T],
        differ: impl Fn(T, T) -> bool,
    ) -> Option<(usize, String, String)> {
        let at = a.iter().zip(b).position(|(&a, &b)| differ(a, b))?;
        Some((at, a[at].to_string(), b[at].to_string()))
    }
    match (a, b) {
        (Array::F32(a), Array::F32(b)) => {
            first(&a[range.clone()], &b[range], |a, b| a.to_bits() != b.to_bits())
        }
        (Array::U8(a), Array::U8(b)) => first(&a[range.clone()], &b[range], |a, b| a != b),
        (Array::I32(a), Array::I32(b)) => first(&a[range.clone()], &b[range], |a, b| a != b),
        _ => Some((0, a.dtype().to_string(), b.dtype().to_string())),
    }
}

#[cfg(test)]
mod tests {
    use impresario_common::space::ElementType;

    use super::*;

    #[test]
    fn flaws_of_spaces_are_found() {
        let boxed = |low: &[f32], high: &[f32], shape: &[usize]| Space::Box {
            low: low.to_vec(),
            high: high.to_vec(),
            shape: shape.to_vec(),
            dtype: ElementType::F32,
        };
        for (space, expected) in [
            (boxed(&[0.0, 2.0], &[1.0, 1.0], &[2]), "2..1 at number 1"),
            (boxed(&[0.0], &[f32::NAN], &[1]), "0..NaN at number 0"),
            (boxed(&[0.0], &[1.0], &[2]), "1 lower and 1 upper bounds for the 2 numbers"),
            (boxed(&[], &[], &[0]), "holds no number"),
            (Space::Discrete { n: 0 }, "no alternatives"),
            (Space::MultiDiscrete { nvec: vec![2, 0] }, "choice 1"),
        ] {
            let found = flaw(&space).unwrap();
            assert!(found.contains(expected), "{found}");
        }
        assert_eq!(flaw(&boxed(&[f32::NEG_INFINITY, 1.0], &[f32::INFINITY, 1.0], &[2, 1])), None);
    }

    #[test]
    fn numbers_outside_their_space_are_found() {
        let space = Space::boxed(&[0.0, -1.0], &[1.0, f32::INFINITY]);
        let found = |values: &[f32]| violation(&space, &Array::F32(values.to_vec()), 0..2);
        assert_eq!(found(&[1.0, 1e30]), None);
        assert_eq!(found(&[1.0, -2.0]).unwrap(), "number 1 is -2 and should be within -1..inf");
        assert_eq!(found(&[0.5, f32::INFINITY]).unwrap(), "number 1 is inf");
        assert_eq!(found(&[f32::NAN, 0.0]).unwrap(), "number 0 is NaN");
        let choices = Space::MultiDiscrete { nvec: vec![2, 3] };
        let found = |values: &[i32]| violation(&choices, &Array::I32(values.to_vec()), 0..2);
        assert_eq!(found(&[1, 2]), None);
        assert_eq!(found(&[-1, 2]).unwrap(), "choice 0 is -1 and should be one of 0 to 1");
    }
}
