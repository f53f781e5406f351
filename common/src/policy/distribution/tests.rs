//! Values against slow recomputations in `f64`, gradients against finite differences and candle's own
//! operations, samples against the probabilities they should have.

use candle_core::{DType, Device, Var};
use rand::Rng;

use super::*;
use crate::random::{Purpose, stream};

fn spaces() -> Vec<Space> {
    vec![
        Space::Discrete { n: 1 },
        Space::Discrete { n: 2 },
        Space::Discrete { n: 18 },
        Space::MultiDiscrete { nvec: vec![3, 1, 5] },
        Space::boxed(&[-1.0], &[1.0]),
        Space::boxed(&[-1.0; 5], &[1.0; 5]),
    ]
}

fn distribution(space: &Space) -> ActionDistribution {
    ActionDistribution::new(space).unwrap()
}

/// A distribution for every space, and squashed ones.
fn distributions() -> Vec<ActionDistribution> {
    let mut all: Vec<_> = spaces().iter().map(distribution).collect();
    for dimensions in [1, 3] {
        let space = Space::boxed(&vec![-2.0; dimensions], &vec![3.0; dimensions]);
        all.push(ActionDistribution::squashed(&space).unwrap());
    }
    all
}

/// The largest parameters that a distribution's closed forms are compared at: the quadrature of a squashed one's
/// entropy is as good as exact up to a standard deviation of 1.5, and has a test of its own.
fn scale(distribution: &ActionDistribution) -> f32 {
    if distribution.is_squashed() { 0.4 } else { 2.0 }
}

/// `ln(1 - tanh(u)^2)` as the hyperbolic cosine has it, in `f64`.
fn exact_log_slope(u: f64) -> f64 {
    -2.0 * u.cosh().ln()
}

/// The mean of the above over a normal distribution, by brute force.
fn exact_mean_log_slope(mean: f64, std: f64) -> f64 {
    let (mut sum, mut total) = (0.0, 0.0);
    for at in -900..=900 {
        let z = f64::from(at) * 0.01;
        let weight = (-0.5 * z * z).exp();
        sum += weight * exact_log_slope(mean + std * z);
        total += weight;
    }
    sum / total
}

fn numbers(count: usize, scale: f32, random: &mut Stream) -> Vec<f32> {
    (0..count).map(|_| (random.next_u32() as f32 / u32::MAX as f32 * 2.0 - 1.0) * scale).collect()
}

/// Random actions for `rows` rows.
fn actions(distribution: &ActionDistribution, rows: usize, random: &mut Stream) -> Actions {
    match &distribution.kind {
        Kind::Categorical { alternatives } => Actions::Discrete(
            (0..rows)
                .flat_map(|_| alternatives.iter())
                .map(|n| (random.next_u32() as usize % n) as i32)
                .collect(),
        ),
        Kind::Gaussian { dimensions, .. } => Actions::Continuous(
            Tensor::from_vec(numbers(rows * dimensions, 2.0, random), (rows, *dimensions), &Device::Cpu)
                .unwrap(),
        ),
    }
}

/// Log-probability and entropy of one row by the textbook, in `f64`.
fn exact(distribution: &ActionDistribution, params: &[f64], action: &[f64]) -> [f64; 2] {
    let (mut log_prob, mut entropy) = (0.0, 0.0);
    match &distribution.kind {
        Kind::Categorical { alternatives } => {
            let mut start = 0;
            for (n, action) in alternatives.iter().zip(action) {
                let logits = &params[start..start + n];
                start += n;
                let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = logits.iter().map(|l| (l - max).exp()).sum();
                let probs: Vec<f64> = logits.iter().map(|l| (l - max).exp() / sum).collect();
                log_prob += logits[*action as usize] - max - sum.ln();
                entropy -= probs.iter().filter(|p| **p > 0.0).map(|p| p * p.ln()).sum::<f64>();
            }
        }
        Kind::Gaussian { dimensions, squash } => {
            for d in 0..*dimensions {
                let (mean, std) = (params[d], params[d + dimensions].exp());
                let variance = std * std;
                log_prob -= (action[d] - mean).powi(2) / (2.0 * variance)
                    + 0.5 * (2.0 * std::f64::consts::PI * variance).ln();
                entropy += 0.5 * (2.0 * std::f64::consts::PI * std::f64::consts::E * variance).ln();
                if squash.is_some() {
                    log_prob -= exact_log_slope(action[d]);
                    entropy += exact_mean_log_slope(mean, std);
                }
            }
        }
    }
    [log_prob, entropy]
}

fn as_f64(actions: &Actions) -> Vec<f64> {
    match actions {
        Actions::Discrete(actions) => actions.iter().map(|a| f64::from(*a)).collect(),
        Actions::Continuous(actions) => {
            actions.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect()
        }
    }
}

#[test]
fn shapes_follow_the_space() {
    let shape = |space: &Space| {
        let d = distribution(space);
        (d.parameter_count(), d.action_len(), d.action_dtype(), d.log_std_count())
    };
    assert_eq!(shape(&Space::Discrete { n: 4 }), (4, 1, ElementType::I32, 0));
    assert_eq!(shape(&Space::MultiDiscrete { nvec: vec![3, 2] }), (5, 2, ElementType::I32, 0));
    assert_eq!(shape(&Space::boxed(&[0.0; 3], &[1.0; 3])), (6, 3, ElementType::F32, 3));
}

#[test]
fn spaces_nobody_can_act_in_are_refused() {
    let byte_box = Space::Box { low: vec![0.0], high: vec![255.0], shape: vec![1], dtype: ElementType::U8 };
    for (space, reason) in [
        (Space::Discrete { n: 0 }, "between 1 and"),
        (Space::MultiDiscrete { nvec: vec![] }, "no choice"),
        (Space::MultiDiscrete { nvec: vec![2, 0] }, "between 1 and"),
        (Space::boxed(&[], &[]), "no dimension"),
        (byte_box, "continuous actions are f32"),
    ] {
        assert!(ActionDistribution::new(&space).unwrap_err().to_string().contains(reason));
    }
}

#[test]
fn values_match_the_textbook_and_candles_own_operations() {
    let mut random = stream(1, Purpose::Learner, [0; 3]);
    for d in distributions() {
        for rows in [1, 7, 40] {
            let params = numbers(rows * d.parameter_count(), scale(&d), &mut random);
            let actions = actions(&d, rows, &mut random);
            let tensor = Tensor::from_slice(&params, (rows, d.parameter_count()), &Device::Cpu).unwrap();
            let out = d.log_prob_entropy(&tensor, actions.clone()).unwrap().to_vec2::<f32>().unwrap();
            let plain = op::composed(&d, &tensor, &actions).unwrap().to_vec2::<f32>().unwrap();
            let params: Vec<f64> = params.into_iter().map(f64::from).collect();
            let actions = as_f64(&actions);
            for row in 0..rows {
                let row_params = &params[row * d.parameter_count()..][..d.parameter_count()];
                let exact = exact(&d, row_params, &actions[row * d.action_len()..][..d.action_len()]);
                for column in 0..2 {
                    let size = exact[column].abs().max(1.0);
                    assert!((f64::from(out[row][column]) - exact[column]).abs() < 3e-6 * size, "{d:?}");
                    assert!((f64::from(plain[row][column]) - exact[column]).abs() < 3e-6 * size, "{d:?}");
                }
                let row_params: Vec<f32> = row_params.iter().map(|x| *x as f32).collect();
                assert!((f64::from(d.entropy(&row_params)) - exact[1]).abs() < 1e-5);
            }
        }
    }
}

#[test]
fn gradients_match_finite_differences_and_candles_own_operations() {
    let mut random = stream(2, Purpose::Learner, [0; 3]);
    for d in distributions() {
        let (rows, count) = (3, d.parameter_count());
        let params = numbers(rows * count, 0.75 * scale(&d), &mut random);
        let actions = actions(&d, rows, &mut random);
        let weights = numbers(rows * 2, 1.0, &mut random);
        let var = Var::from_slice(&params, (rows, count), &Device::Cpu).unwrap();
        let weight_tensor = Tensor::from_slice(&weights, (rows, 2), &Device::Cpu).unwrap();
        let gradient = |out: Tensor| {
            let grads = (out * &weight_tensor).unwrap().sum_all().unwrap().backward().unwrap();
            grads.get(&var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let fused = gradient(d.log_prob_entropy(&var, actions.clone()).unwrap());
        let plain = gradient(op::composed(&d, &var, &actions).unwrap());
        let taken = as_f64(&actions);
        let loss = |params: &[f64]| -> f64 {
            (0..rows)
                .map(|row| {
                    let action = &taken[row * d.action_len()..][..d.action_len()];
                    let [log_prob, entropy] = exact(&d, &params[row * count..][..count], action);
                    log_prob * f64::from(weights[row * 2]) + entropy * f64::from(weights[row * 2 + 1])
                })
                .sum()
        };
        for at in 0..params.len() {
            let moved = |by: f64| {
                let mut params: Vec<f64> = params.iter().map(|x| f64::from(*x)).collect();
                params[at] += by;
                loss(&params)
            };
            let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            let size = slope.abs().max(1.0);
            assert!((f64::from(fused[at]) - slope).abs() < 1e-5 * size, "{d:?} {at}: {} {slope}", fused[at]);
            assert!((f64::from(plain[at]) - slope).abs() < 1e-5 * size, "{d:?} {at}: {} {slope}", plain[at]);
        }
    }
}

#[test]
fn extreme_logits_give_finite_values_and_gradients() {
    let d = distribution(&Space::Discrete { n: 3 });
    let extreme =
        [1e4, -1e4, 0.0, -1e4, -1e4, -1e4, 1e4, 1e4, 1e4, 3e38, -3e38, 0.0, 5.0, f32::NEG_INFINITY, 5.0];
    let params = Var::from_slice(&extreme, (5, 3), &Device::Cpu).unwrap();
    let out = d.log_prob_entropy(&params, Actions::Discrete([0, 1, 2, 0, 2].into())).unwrap();
    let values = out.to_vec2::<f32>().unwrap();
    let third = -(3f32.ln());
    for (row, log_prob, entropy) in
        [(0, 0.0, 0.0), (1, third, -third), (2, third, -third), (3, 0.0, 0.0), (4, -(2f32.ln()), 2f32.ln())]
    {
        assert!(
            (values[row][0] - log_prob).abs() < 1e-6 && (values[row][1] - entropy).abs() < 1e-6,
            "{values:?}"
        );
    }
    let grads = out.sum_all().unwrap().backward().unwrap();
    let grads = grads.get(&params).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(grads.iter().all(|g| g.is_finite()), "{grads:?}");
    assert_eq!(grads[13], 0.0, "an impossible alternative gets no gradient");

    let unlikely = d.log_prob_entropy(&params, Actions::Discrete([1, 0, 0, 2, 0].into())).unwrap();
    let unlikely = unlikely.to_vec2::<f32>().unwrap();
    assert_eq!(unlikely[0][0], -2e4);
    assert_eq!(d.kl(&[1e4, -1e4, 0.0], &[1e4, -1e4, 0.0]), 0.0);
    assert!((d.kl(&[1e4, -1e4, 0.0], &[-1e4, 1e4, 0.0]) - 2e4).abs() < 1.0);
    assert_eq!(d.entropy(&[1e4, -1e4, f32::NEG_INFINITY]), 0.0);
}

#[test]
fn actions_and_parameters_of_another_shape_are_refused() {
    let params =
        |rows: usize, columns: usize| Tensor::zeros((rows, columns), DType::F32, &Device::Cpu).unwrap();
    let discrete = distribution(&Space::MultiDiscrete { nvec: vec![2, 3] });
    let message = |params: &Tensor, actions: &[i32]| {
        discrete.log_prob_entropy(params, Actions::Discrete(actions.into())).unwrap_err().to_string()
    };
    assert!(message(&params(2, 5), &[0, 0, 1, 3]).contains("action 3 at row 1, choice 1"));
    assert!(message(&params(1, 5), &[-1, 0]).contains("action -1 at row 0, choice 0"));
    assert!(message(&params(2, 5), &[0, 0, 1]).contains("i32 [2, 2]"));
    assert!(message(&params(2, 4), &[0, 0, 1, 1]).contains("F32 [N, 5]"));
    let normal = distribution(&Space::boxed(&[0.0; 2], &[1.0; 2]));
    assert!(normal.log_prob_entropy(&params(3, 4), Actions::Discrete([0; 6].into())).is_err());
    assert!(normal.log_prob_entropy(&params(3, 4), Actions::Continuous(params(3, 3))).is_err());
}

#[test]
fn samples_of_a_categorical_have_its_frequencies() {
    const DRAWS: usize = 40_000;
    let logits = [0.3f32, -1.2, 2.0, 0.0, -0.5, 1.1];
    let d = distribution(&Space::Discrete { n: 6 });
    let mut random = stream(3, Purpose::Actions, [0; 3]);
    let mut counts = [0f64; 6];
    let total: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
    for _ in 0..DRAWS {
        let mut action = [0];
        let log_prob = d.sample(&logits, &mut random, ActionMut::Discrete(&mut action));
        let expected = f64::from(logits[action[0] as usize]) - total.ln();
        assert!((f64::from(log_prob) - expected).abs() < 2e-6);
        counts[action[0] as usize] += 1.0;
    }
    let chi_square: f64 = logits
        .iter()
        .zip(counts)
        .map(|(l, count)| {
            let expected = DRAWS as f64 * f64::from(*l).exp() / total;
            (count - expected).powi(2) / expected
        })
        .sum();
    // The 99.9 % point of chi-square with 5 degrees of freedom.
    assert!(chi_square < 20.5, "{chi_square}");
}

#[test]
fn choices_of_a_multi_categorical_are_independent() {
    const DRAWS: usize = 40_000;
    let d = distribution(&Space::MultiDiscrete { nvec: vec![2, 3] });
    let params = [0.0f32, 1.0, 0.5, 0.0, -0.5];
    let mut random = stream(4, Purpose::Actions, [0; 3]);
    let mut counts = [[0f64; 3]; 2];
    for _ in 0..DRAWS {
        let mut action = [0; 2];
        d.sample(&params, &mut random, ActionMut::Discrete(&mut action));
        counts[action[0] as usize][action[1] as usize] += 1.0;
    }
    let mut chi_square = 0.0;
    for (a, counts) in counts.iter().enumerate() {
        for (b, count) in counts.iter().enumerate() {
            let log_prob = exact(&d, &params.map(f64::from), &[a as f64, b as f64])[0];
            let expected = DRAWS as f64 * log_prob.exp();
            chi_square += (count - expected).powi(2) / expected;
        }
    }
    assert!(chi_square < 20.5, "{chi_square}");
}

#[test]
fn samples_of_a_normal_have_its_moments() {
    const DRAWS: usize = 40_000;
    let d = distribution(&Space::boxed(&[-1.0; 3], &[1.0; 3]));
    let params = [0.5f32, -2.0, 10.0, 0.0, -1.0, 0.7];
    let mut random = stream(5, Purpose::Actions, [0; 3]);
    let mut sums = [[0f64; 4]; 3];
    let mut crossed = 0.0;
    for _ in 0..DRAWS {
        let mut action = [0f32; 3];
        let log_prob = d.sample(&params, &mut random, ActionMut::Continuous(&mut action));
        let expected = exact(&d, &params.map(f64::from), &action.map(f64::from))[0];
        assert!((f64::from(log_prob) - expected).abs() < 1e-4);
        let z: Vec<f64> = (0..3).map(|i| f64::from((action[i] - params[i]) / params[i + 3].exp())).collect();
        for (sums, z) in sums.iter_mut().zip(&z) {
            for (power, sum) in sums.iter_mut().enumerate() {
                *sum += z.powi(power as i32 + 1);
            }
        }
        crossed += z[0] * z[1];
    }
    // Four standard errors of each moment: Var z = 1, Var z^2 = 2, Var z^3 = 15, Var z^4 = 96.
    let bound = |variance: f64| 4.0 * (variance / DRAWS as f64).sqrt();
    for sums in sums {
        let [mean, second, third, fourth] = sums.map(|sum| sum / DRAWS as f64);
        assert!(mean.abs() < bound(1.0) && (second - 1.0).abs() < bound(2.0), "{mean} {second}");
        assert!(third.abs() < bound(15.0) && (fourth - 3.0).abs() < bound(96.0), "{third} {fourth}");
    }
    assert!((crossed / DRAWS as f64).abs() < bound(1.0));
}

#[test]
fn a_batch_gives_each_row_what_it_would_get_alone() {
    for d in distributions() {
        let rows = 9;
        let params = numbers(rows * d.parameter_count(), 2.0, &mut stream(6, Purpose::Learner, [0; 3]));
        let streams =
            || (0..rows as u32).map(|row| stream(7, Purpose::Actions, [row, 0, 0])).collect::<Vec<_>>();
        let (mut discrete, mut continuous) =
            (vec![0; rows * d.action_len()], vec![0.0; rows * d.action_len()]);
        let mut log_probs = vec![0.0; rows];
        let batch = match d.action_dtype() {
            ElementType::I32 => ActionMut::Discrete(&mut discrete),
            _ => ActionMut::Continuous(&mut continuous),
        };
        d.sample_batch(&params, &mut streams(), batch, &mut log_probs);
        for (row, mut random) in streams().into_iter().enumerate() {
            let row_params = &params[row * d.parameter_count()..][..d.parameter_count()];
            let own = row * d.action_len()..(row + 1) * d.action_len();
            let (mut i, mut f) = (vec![0; d.action_len()], vec![0.0; d.action_len()]);
            let action = match d.action_dtype() {
                ElementType::I32 => ActionMut::Discrete(&mut i),
                _ => ActionMut::Continuous(&mut f),
            };
            assert_eq!(d.sample(row_params, &mut random, action), log_probs[row]);
            assert_eq!((&i[..], &f[..]), (&discrete[own.clone()], &continuous[own]));
        }
    }
}

#[test]
fn the_mode_is_the_likeliest_action() {
    let d = distribution(&Space::MultiDiscrete { nvec: vec![3, 2] });
    let mut action = [9; 2];
    d.mode(&[0.0, 2.0, 1.0, 3.0, 3.0], ActionMut::Discrete(&mut action));
    assert_eq!(action, [1, 0]);
    let d = distribution(&Space::boxed(&[0.0; 2], &[1.0; 2]));
    let mut action = [9.0; 2];
    d.mode(&[0.25, -4.0, 1.0, 1.0], ActionMut::Continuous(&mut action));
    assert_eq!(action, [0.25, -4.0]);
}

#[test]
fn impossible_alternatives_are_never_sampled_and_nan_is_never_hidden() {
    let d = distribution(&Space::Discrete { n: 4 });
    let mut random = stream(8, Purpose::Actions, [0; 3]);
    let masked = [f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY, 0.0];
    for _ in 0..2000 {
        let mut action = [0];
        d.sample(&masked, &mut random, ActionMut::Discrete(&mut action));
        assert!(action == [1] || action == [3]);
    }
    for at in 0..4 {
        let mut params = [0.0f32; 4];
        params[at] = f32::NAN;
        let mut action = [9];
        assert!(d.sample(&params, &mut random, ActionMut::Discrete(&mut action)).is_nan());
        assert!((0..4).contains(&action[0]));
        assert!(d.entropy(&params).is_nan());
    }
}

#[test]
fn divergence_matches_its_definition() {
    let d = distribution(&Space::MultiDiscrete { nvec: vec![3, 2] });
    let (p, q) = ([0.1f32, 1.0, -0.7, 0.0, 0.4], [1.1f32, 0.0, 0.3, -0.2, 2.0]);
    let mut expected = 0.0;
    for a in 0..3 {
        for b in 0..2 {
            let action = [a as f64, b as f64];
            let of = |params: [f32; 5]| exact(&d, &params.map(f64::from), &action)[0];
            expected += of(p).exp() * (of(p) - of(q));
        }
    }
    assert!((f64::from(d.kl(&p, &q)) - expected).abs() < 1e-6);
    assert!(d.kl(&p, &p).abs() < 1e-7);

    let d = distribution(&Space::boxed(&[0.0], &[1.0]));
    let (p, q) = ([0.3f32, 0.2], [-0.4f32, -0.5]);
    let (variance_p, variance_q) = ((2.0 * 0.2f64).exp(), (2.0 * -0.5f64).exp());
    let expected = -0.5 - 0.2 + (variance_p + 0.7f64.powi(2)) / (2.0 * variance_q) - 0.5;
    assert!((f64::from(d.kl(&p, &q)) - expected).abs() < 1e-6);
    assert_eq!(d.kl(&p, &p), 0.0);
}

#[test]
fn the_entropy_of_a_squashed_normal_is_as_exact_as_documented() {
    let d = ActionDistribution::squashed(&Space::boxed(&[0.0], &[1.0])).unwrap();
    for (std, tolerance) in [(1e-3, 1e-5), (0.3, 1e-5), (2.0, 1e-5), (4.0, 1e-3), (8.0, 2e-2)] {
        for step in 0..40 {
            let mean = f64::from(step) * 0.25 - 5.0;
            let normal = 0.5 * (2.0 * std::f64::consts::PI * std::f64::consts::E * std * std).ln();
            let expected = normal + exact_mean_log_slope(mean, std);
            let params = [mean as f32, std.ln() as f32];
            let error = (f64::from(d.entropy(&params)) - expected).abs();
            assert!(error < tolerance * expected.abs().max(1.0), "{mean} {std}: {error}");
            // No distribution on (-1, 1) has more entropy than the uniform one.
            assert!(d.entropy(&params) < std::f32::consts::LN_2 + 1e-3);
        }
    }
}

#[test]
fn a_squashed_density_integrates_to_one_and_its_samples_have_its_mean() {
    const DRAWS: usize = 40_000;
    let d = ActionDistribution::squashed(&Space::boxed(&[-2.0], &[3.0])).unwrap();
    let params = [0.4f32, -0.3];
    let density = |a: f64| {
        let u = Tensor::new(&[[a.atanh() as f32]], &Device::Cpu).unwrap();
        let row = Tensor::new(&[params], &Device::Cpu).unwrap();
        let out = d.log_prob_entropy(&row, Actions::Continuous(u)).unwrap().to_vec2::<f32>().unwrap();
        f64::from(out[0][0]).exp()
    };
    let grid: Vec<f64> = (0..1000).map(|i| (f64::from(i) + 0.5) / 500.0 - 1.0).collect();
    let total: f64 = grid.iter().map(|a| density(*a) / 500.0).sum();
    assert!((total - 1.0).abs() < 1e-4, "{total}");
    let moment = |power: i32| grid.iter().map(|a| a.powi(power) * density(*a) / 500.0).sum::<f64>();

    let mut random = stream(9, Purpose::Actions, [0; 3]);
    let (mut sum, mut squares, mut surprise, mut buffer) = (0.0, 0.0, 0.0, vec![]);
    for _ in 0..DRAWS {
        let mut action = [0f32];
        surprise -= f64::from(d.sample(&params, &mut random, ActionMut::Continuous(&mut action)));
        let seen = f64::from(d.to_environment(&action, &mut buffer)[0]);
        let squashed = (seen + 2.0) / 2.5 - 1.0;
        sum += squashed;
        squares += squashed * squashed;
    }
    let (mean, variance) = (moment(1), moment(2) - moment(1).powi(2));
    let draws = DRAWS as f64;
    assert!((sum / draws - mean).abs() < 4.0 * (variance / draws).sqrt(), "{} {mean}", sum / draws);
    let spread = moment(4) - moment(2).powi(2);
    assert!((squares / draws - moment(2)).abs() < 4.0 * (spread / draws).sqrt());
    // The entropy is the mean surprise, whose variance here is below 1.
    assert!((surprise / draws - f64::from(d.entropy(&params))).abs() < 4.0 / draws.sqrt());
}

#[test]
fn the_environment_sees_squashed_actions_within_its_bounds_and_others_as_they_are() {
    let space = Space::boxed(&[-2.0, 0.1], &[3.0, 0.7]);
    let actions = [0.0, 0.0, 1e9, -1e9, f32::MIN, f32::MAX, 0.5, -0.5];
    let mut buffer = vec![];
    assert_eq!(distribution(&space).to_environment(&actions, &mut buffer), actions);
    let squashed = ActionDistribution::squashed(&space).unwrap();
    let seen = squashed.to_environment(&actions, &mut buffer);
    let half = 0.5f64.tanh();
    let expected = [0.5, 0.4, 3.0, 0.1, -2.0, 0.7, -2.0 + 2.5 * (half + 1.0), 0.1 + 0.3 * (1.0 - half)];
    for (seen, expected) in seen.iter().zip(expected) {
        assert!((f64::from(*seen) - expected).abs() < 1e-6, "{seen} {expected}");
    }
    assert_eq!(seen[2..6], [3.0, 0.1, -2.0, 0.7]);
    // In the environment's terms the likeliest action is the squashed mean.
    let mut mode = [9.0; 2];
    squashed.mode(&[0.5, -0.5, 1.0, 1.0], ActionMut::Continuous(&mut mode));
    assert_eq!(mode, [0.5, -0.5]);

    for bounds in [(-1.0, f32::INFINITY), (f32::NEG_INFINITY, 1.0), (1.0, 1.0), (f32::MIN, f32::MAX)] {
        let error = ActionDistribution::squashed(&Space::boxed(&[bounds.0], &[bounds.1])).unwrap_err();
        assert!(error.to_string().contains("between finite bounds"), "{error}");
    }
    assert!(!ActionDistribution::squashed(&Space::Discrete { n: 3 }).unwrap().is_squashed());
}

#[test]
fn masked_alternatives_are_never_chosen_and_the_rest_share_their_probability() {
    const DRAWS: usize = 20_000;
    let d = distribution(&Space::MultiDiscrete { nvec: vec![4, 2] });
    let mut params = [3.0f32, 0.5, 9.0, 0.0, -1.0, 1.0];
    d.mask(&mut params, &[1, 1, 0, 1, 1, 0]).unwrap();
    let mut random = stream(10, Purpose::Actions, [0; 3]);
    let mut counts = [0f64; 4];
    for _ in 0..DRAWS {
        let mut action = [9; 2];
        d.sample(&params, &mut random, ActionMut::Discrete(&mut action));
        assert_eq!(action[1], 0);
        counts[action[0] as usize] += 1.0;
    }
    let total = 3f64.exp() + 0.5f64.exp() + 1.0;
    for (logit, count) in [3.0f64, 0.5, f64::NEG_INFINITY, 0.0].into_iter().zip(counts) {
        let p = logit.exp() / total;
        let bound = 4.0 * (DRAWS as f64 * p * (1.0 - p)).sqrt();
        assert!((count - DRAWS as f64 * p).abs() <= bound, "{counts:?}");
    }
    let mut action = [9; 2];
    d.mode(&params, ActionMut::Discrete(&mut action));
    assert_eq!(action, [0, 0]);
    assert!(d.kl(&params, &params).abs() < 1e-7);
}

#[test]
fn masks_that_leave_nothing_or_do_not_fit_are_refused() {
    let d = distribution(&Space::MultiDiscrete { nvec: vec![2, 3] });
    let says = |masks: &[u8], expected: &str| {
        let mut params = vec![0.0; 10];
        let error = d.mask(&mut params, masks).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    says(
        &[1, 0, 0, 0, 1, 0, 1, 0, 0, 0],
        "row 1 of the masks of legal actions leaves choice 1 no alternative",
    );
    says(&[1; 5], "a flag for each of 10 logits, got 5 flags");
    let normal = distribution(&Space::boxed(&[0.0], &[1.0]));
    let error = normal.mask(&mut [0.0, 0.0], &[1, 1]).unwrap_err().to_string();
    assert!(error.contains("continuous actions have no alternatives"), "{error}");
}
