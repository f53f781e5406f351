//! The curves of several runs as one: median and range at each of a common grid of abscissas.

/// The curve of one run.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Curve {
    /// `(x, y)`, `x` ascending; straight lines between them.
    pub(super) points: Vec<(f64, f64)>,
    /// Whether its last value stands for what would have come: a run that was ended because it had reached its goal.
    /// Others count as far as they go.
    pub(super) stays: bool,
}

/// Median and range of several curves at one place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Band {
    pub(super) x: f64,
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Curve {
    /// The value at `x`; none before the first point, nor after the last one unless it stays.
    fn at(&self, x: f64) -> Option<f64> {
        // The last point at or before x, and the one after it.
        let after = self.points.partition_point(|point| point.0 <= x);
        let &(x0, y0) = self.points[..after].last()?;
        match self.points.get(after) {
            Some(&(x1, y1)) => Some(y0 + (y1 - y0) * ((x - x0) / (x1 - x0))),
            None => (self.stays || x == x0).then_some(y0),
        }
    }
}

/// Median and range of `curves`, none of them empty, at `count` places evenly spaced from the first point of any to the
/// last one of any. Each place takes the curves that have a value there.
pub(super) fn aggregate(curves: &[Curve], count: usize) -> Vec<Band> {
    let xs = || curves.iter().flat_map(|curve| curve.points.iter().map(|point| point.0));
    let (first, last) = (xs().fold(f64::INFINITY, f64::min), xs().fold(f64::NEG_INFINITY, f64::max));
    let place = |i: usize| {
        // The last one exactly, that its curve's last point counts.
        if i + 1 == count { last } else { first + (last - first) * (i as f64 / (count - 1) as f64) }
    };
    (0..count).map(place).filter_map(|x| band(curves, x)).collect()
}

fn band(curves: &[Curve], x: f64) -> Option<Band> {
    let mut values: Vec<f64> = curves.iter().filter_map(|curve| curve.at(x)).collect();
    values.sort_unstable_by(f64::total_cmp);
    let (low, high) = (*values.first()?, *values.last()?);
    let (lower, upper) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
    Some(Band { x, median: f64::midpoint(lower, upper), low, high })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(points: &[(f64, f64)]) -> Curve {
        Curve { points: points.to_vec(), stays: false }
    }

    #[test]
    fn a_curve_is_straight_between_its_points_and_ends_with_them() {
        let mut curve = curve(&[(10.0, 1.0), (20.0, 3.0), (20.0, 5.0), (40.0, 9.0)]);
        let at = |curve: &Curve, x| curve.at(x);
        assert_eq!(at(&curve, 9.0), None);
        assert_eq!(
            [10.0, 15.0, 20.0, 30.0, 40.0].map(|x| at(&curve, x)),
            [1.0, 2.0, 5.0, 7.0, 9.0].map(Some)
        );
        assert_eq!(at(&curve, 40.1), None);
        curve.stays = true;
        assert_eq!(at(&curve, 1000.0), Some(9.0));
        assert_eq!(at(&curve, 9.0), None);
    }

    #[test]
    fn medians_and_ranges_at_given_places() {
        let flat = |y: f64| curve(&[(0.0, y), (4.0, y)]);
        let rising = curve(&[(0.0, 0.0), (4.0, 8.0)]);
        let bands = aggregate(&[flat(1.0), flat(5.0), rising.clone()], 5);
        let expected =
            [(0.0, 1.0, 0.0, 5.0), (1.0, 2.0, 1.0, 5.0), (2.0, 4.0, 1.0, 5.0), (3.0, 5.0, 1.0, 6.0)];
        for (band, (x, median, low, high)) in bands.iter().zip(expected) {
            assert_eq!(*band, Band { x, median, low, high });
        }
        // Of an even number, between the two in the middle.
        assert_eq!(
            aggregate(&[flat(1.0), flat(4.0)], 2)[0],
            Band { x: 0.0, median: 2.5, low: 1.0, high: 4.0 }
        );
        // A run that was solved stays; one that merely stopped does not.
        let mut short = curve(&[(0.0, 10.0), (1.0, 10.0)]);
        let end = |short: &Curve| *aggregate(&[short.clone(), rising.clone()], 5).last().unwrap();
        assert_eq!(end(&short), Band { x: 4.0, median: 8.0, low: 8.0, high: 8.0 });
        short.stays = true;
        assert_eq!(end(&short), Band { x: 4.0, median: 9.0, low: 8.0, high: 10.0 });
    }

    /// The definition, point by point: search every segment, count how many values lie on either side.
    fn slowly(curves: &[Curve], x: f64) -> Option<(f64, f64, f64)> {
        let mut values = vec![];
        for curve in curves {
            let mut value = None;
            for pair in curve.points.windows(2) {
                let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
                if x0 <= x && x <= x1 {
                    value = Some((y0 * (x1 - x) + y1 * (x - x0)) / (x1 - x0));
                }
            }
            let (end, y) = curve.points[curve.points.len() - 1];
            if curve.stays && x > end {
                value = Some(y);
            }
            values.extend(value);
        }
        // A median has at least half of all values at or below it, and at least half at or above it.
        let half =
            |holds: &dyn Fn(f64) -> bool| 2 * values.iter().filter(|&&v| holds(v)).count() >= values.len();
        let middle: Vec<f64> =
            values.iter().copied().filter(|&m| half(&|v| v <= m) && half(&|v| v >= m)).collect();
        let least = |values: &[f64]| values.iter().copied().reduce(|a, b| if b < a { b } else { a });
        let most = |values: &[f64]| values.iter().copied().reduce(|a, b| if b > a { b } else { a });
        Some(((least(&middle)? + most(&middle)?) / 2.0, least(&values)?, most(&values)?))
    }

    #[test]
    fn the_aggregate_is_what_the_definition_says() {
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as f64 / (1u64 << 31) as f64
        };
        for trial in 0..200 {
            let curves: Vec<Curve> = (0..1 + trial % 7)
                .map(|_| {
                    let mut x = 50.0 * random();
                    let length = 2 + (20.0 * random()) as usize;
                    let points = (0..length).map(|_| {
                        x += 0.1 + 10.0 * random();
                        (x, 1000.0 * random() - 500.0)
                    });
                    Curve { points: points.collect(), stays: random() < 0.3 }
                })
                .collect();
            let bands = aggregate(&curves, 97);
            let first = curves.iter().map(|c| c.points[0].0).reduce(f64::min).unwrap();
            let last = curves.iter().map(|c| c.points[c.points.len() - 1].0).reduce(f64::max).unwrap();
            assert_eq!((bands[0].x, bands[bands.len() - 1].x), (first, last));
            let mut checked = 0;
            for i in 0..97 {
                let x = first + f64::from(i) * (last - first) / 96.0;
                let band = bands.iter().find(|band| (band.x - x).abs() < 1e-9);
                let expected = slowly(&curves, band.map_or(x, |band| band.x));
                match (band, expected) {
                    (Some(band), Some((median, low, high))) => {
                        let error = |a: f64, b: f64| (a - b).abs();
                        let errors =
                            [error(band.median, median), error(band.low, low), error(band.high, high)];
                        assert!(errors.iter().all(|e| *e < 1e-9), "{trial}: {band:?}, not {expected:?}");
                        checked += 1;
                    }
                    (None, None) => {}
                    pair => panic!("trial {trial}, x = {x}: {pair:?}"),
                }
            }
            assert_eq!(checked, bands.len());
        }
    }
}
