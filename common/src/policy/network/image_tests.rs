//! Networks that look at images: every parameter learns, gradients are slopes, and acting is what learning sees.

use candle_core::Var;

use super::*;
use crate::config::{Activation, CoreKind, EncoderKind, Exploration, LogStd, PolicySection};
use crate::space::{ElementType, EnvironmentSpec, Space};

const ROWS: usize = 6;

/// Encoders small enough for many cases, each with what it looks at.
fn encoders() -> Vec<(PolicySection, Vec<usize>)> {
    let of = |encoder, channels: Vec<usize>, shape: &[usize]| {
        let section = PolicySection {
            encoder,
            channels: channels.into(),
            hidden: vec![6].into(),
            core_size: 5,
            policy_gain: 1.0,
            ..PolicySection::default()
        };
        (section, shape.to_vec())
    };
    let (nature, stacked) = of(EncoderKind::Nature, vec![3, 4], &[2, 9, 10]);
    let nature = PolicySection { kernels: vec![4, 2].into(), strides: vec![2, 1].into(), ..nature };
    vec![
        (nature, stacked),
        of(EncoderKind::Minatar, vec![4], &[6, 5, 3]),
        of(EncoderKind::Residual, vec![3, 4], &[9, 8, 2]),
    ]
}

fn environment(shape: &[usize], dtype: ElementType, action: Space) -> EnvironmentSpec {
    let len = shape.iter().product();
    let observation = Space::Box { low: vec![0.0; len], high: vec![255.0; len], shape: shape.into(), dtype };
    EnvironmentSpec::new("Test-v0", observation, action)
}

fn observations(shape: &[usize]) -> Tensor {
    let shape = [&[ROWS], shape].concat();
    let bytes = (0..shape.iter().product::<usize>()).map(|i| ((i * 7919) % 251) as u8).collect::<Vec<_>>();
    Tensor::from_vec(bytes, shape, &Device::Cpu).unwrap()
}

fn sequence(spec: &PolicySpec) -> Sequence {
    Sequence {
        columns: 2,
        resets: vec![0, 0, 0, 1],
        initial: vec![0.1; 2 * spec.core_state_len()],
        branches: vec![1, 2],
    }
}

/// A policy over variables that start at `weights`.
fn policy_of(spec: &PolicySpec, weights: &Weights) -> (Policy, Vec<(String, Var)>) {
    let var = |(name, tensor): &(String, Tensor)| (name.clone(), Var::from_tensor(tensor).unwrap());
    let vars: Vec<_> = weights.0.iter().map(var).collect();
    let shared = Weights(vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect());
    (Policy::new(spec, &shared).unwrap(), vars)
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn every_parameter_of_every_image_network_gets_a_gradient() {
    let actions = [Space::Discrete { n: 3 }, Space::boxed(&[-1.0; 2], &[1.0; 2])];
    for (base, shape) in encoders() {
        let sections = [
            base.clone(),
            PolicySection { shared_encoder: false, ..base.clone() },
            PolicySection { layer_norm: true, ..base.clone() },
            PolicySection { layer_norm: true, shared_encoder: false, log_std: LogStd::State, ..base.clone() },
            PolicySection { core: CoreKind::Lstm, layer_norm: true, ..base.clone() },
            PolicySection { core: CoreKind::Gru, exploration: Exploration::Gsde, ..base.clone() },
        ];
        for (action, section) in actions.iter().flat_map(|a| sections.iter().map(move |s| (a, s))) {
            // Rectifiers may be at rest for all that is seen here.
            let section = PolicySection { activation: Activation::Tanh, ..section.clone() };
            let spec =
                PolicySpec::new(&environment(&shape, ElementType::U8, action.clone()), &section).unwrap();
            let (policy, vars) = policy_of(&spec, &spec.initialise(3).unwrap());
            let output = policy.forward_sequence(&observations(&shape), || sequence(&spec)).unwrap();
            let loss = [&output.distribution, &output.values]
                .map(|of| (of.sqr().unwrap().sum_all().unwrap() + of.sum_all().unwrap()).unwrap());
            let gradients = (&loss[0] + &loss[1]).unwrap().backward().unwrap();
            for (name, var) in &vars {
                let gradient = gradients.get(var).unwrap_or_else(|| panic!("{name} has no gradient"));
                let size: f32 = flat(gradient).iter().map(|g| g.abs()).sum();
                assert!(size > 0.0, "the gradient of {name} is zero with {section:?}");
            }
        }
    }
}

#[test]
fn gradients_of_whole_image_networks_match_finite_differences() {
    for (base, shape) in encoders() {
        let sections = [
            base.clone(),
            PolicySection { layer_norm: true, core: CoreKind::Lstm, ..base.clone() },
            PolicySection { shared_encoder: false, ..base },
        ];
        for section in sections {
            // Smooth, so that a difference is a slope.
            let section = PolicySection { activation: Activation::Tanh, ..section };
            let environment = environment(&shape, ElementType::U8, Space::Discrete { n: 3 });
            let spec = PolicySpec::new(&environment, &section).unwrap();
            let start = spec.initialise(4).unwrap();
            let run = |weights: &Weights| {
                let (policy, vars) = policy_of(&spec, weights);
                let output = policy.forward_sequence(&observations(&shape), || sequence(&spec)).unwrap();
                (output, vars)
            };
            let coefficient = |at: usize| (at as f32 * 1.3 + 0.5).sin();
            let loss = |weights: &Weights| -> f64 {
                let (output, _) = run(weights);
                let numbers = [flat(&output.distribution), flat(&output.values)].concat();
                let terms = numbers.iter().enumerate();
                terms.map(|(at, x)| f64::from(*x) * f64::from(coefficient(at))).sum()
            };
            let (output, vars) = run(&start);
            let rows = output.distribution.elem_count();
            let weighted = |of: &Tensor, first: usize| {
                let weights = (first..first + of.elem_count()).map(coefficient).collect::<Vec<_>>();
                let weights = Tensor::from_vec(weights, of.shape(), &Device::Cpu).unwrap();
                (of * weights).unwrap().sum_all().unwrap()
            };
            let objective = (weighted(&output.distribution, 0) + weighted(&output.values, rows)).unwrap();
            let gradients = objective.backward().unwrap();
            for (which, (name, var)) in vars.iter().enumerate() {
                let gradient = flat(gradients.get(var).unwrap());
                // A few elements of each; some lie at the edges of kernels.
                for element in [0, gradient.len() / 3, gradient.len() - 1] {
                    let moved = |by: f32| {
                        let mut weights = start.copied().unwrap();
                        let (_, tensor) = &mut weights.0[which];
                        let mut values = flat(tensor);
                        values[element] += by;
                        *tensor = Tensor::from_vec(values, tensor.shape(), &Device::Cpu).unwrap();
                        loss(&weights)
                    };
                    // Where another number of a window becomes the greatest the slope jumps, so that a difference across
                    // that place is none; one that keeps to this side of it is.
                    let here = loss(&start);
                    let slopes = [4e-3f32, 1e-3, 3e-4].map(|reach| {
                        let (ahead, behind, reach) = (moved(reach), moved(-reach), f64::from(reach));
                        [(ahead - behind) / (2.0 * reach), (ahead - here) / reach, (here - behind) / reach]
                    });
                    let gradient = f64::from(gradient[element]);
                    let close = |slope: &f64| (gradient - slope).abs() < 3e-3 + 1e-2 * slope.abs();
                    assert!(
                        slopes.iter().flatten().any(close),
                        "{:?}: {name}[{element}] {gradient} is not {slopes:?}",
                        section.encoder
                    );
                }
            }
        }
    }
}

#[test]
fn an_image_is_seen_alike_as_bytes_and_as_numbers_and_in_either_layout() {
    for (section, shape) in encoders() {
        let bytes = observations(&shape);
        let of = |dtype, section: &PolicySection, shape: &[usize], seen: &Tensor| {
            let spec =
                PolicySpec::new(&environment(shape, dtype, Space::Discrete { n: 3 }), section).unwrap();
            let policy = Policy::new(&spec, &spec.initialise(5).unwrap()).unwrap();
            flat(&policy.forward(seen).unwrap().distribution)
        };
        let as_bytes = of(ElementType::U8, &section, &shape, &bytes);
        let numbers = (bytes.to_dtype(candle_core::DType::F32).unwrap() / 255.0).unwrap();
        let as_numbers = of(ElementType::F32, &section, &shape, &numbers);
        // The same pixels in the other layout.
        let (order, other) = match shape[0] < shape[2] {
            true => ((0, 2, 3, 1), [shape[1], shape[2], shape[0]]),
            false => ((0, 3, 1, 2), [shape[2], shape[0], shape[1]]),
        };
        let turned = bytes.permute(order).unwrap().contiguous().unwrap();
        let in_other_layout = of(ElementType::U8, &section, &other, &turned);
        for ((a, b), c) in as_bytes.iter().zip(&as_numbers).zip(&in_other_layout) {
            assert!((a - b).abs() < 1e-5 && (a - c).abs() < 1e-5, "{:?}: {a} {b} {c}", section.encoder);
        }
    }
}

#[test]
fn acting_on_images_step_by_step_is_what_the_learner_sees() {
    for (section, shape) in encoders() {
        let section = PolicySection { core: CoreKind::Gru, ..section };
        let environment = environment(&shape, ElementType::U8, Space::Discrete { n: 3 });
        let spec = PolicySpec::new(&environment, &section).unwrap();
        let policy = Policy::new(&spec, &spec.initialise(6).unwrap()).unwrap();
        let observations = observations(&shape);
        let (columns, state_len) = (2, spec.core_state_len());
        let sequence = Sequence {
            columns,
            resets: vec![0; ROWS],
            initial: vec![0.0; columns * state_len],
            branches: vec![],
        };
        let whole = policy.forward_sequence(&observations, || sequence).unwrap().distribution;
        let mut states = vec![0.0; columns * state_len];
        for t in 0..ROWS / columns {
            let row = observations.narrow(0, t * columns, columns).unwrap();
            let step = flat(&policy.step(&row, &mut states).unwrap());
            let learner = flat(&whole.narrow(0, t * columns, columns).unwrap());
            for (step, learner) in step.iter().zip(&learner) {
                assert!((step - learner).abs() < 1e-5, "{:?}: {step} is not {learner}", section.encoder);
            }
        }
    }
}
