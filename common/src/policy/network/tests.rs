//! Whole policies: how they start, what they do, and that every parameter learns.

use super::*;
use crate::config::{CoreKind, Exploration, LogStd, PolicySection};
use crate::policy::Snapshot;
use crate::space::{EnvironmentSpec, Space};

fn spec(action: Space) -> PolicySpec {
    spec_of(action, &section())
}

fn spec_of(action: Space, section: &PolicySection) -> PolicySpec {
    PolicySpec::new(&environment(Space::boxed(&[-1.0; 4], &[1.0; 4]), action), section).unwrap()
}

fn environment(observation: Space, action: Space) -> EnvironmentSpec {
    EnvironmentSpec::new("Test-v0", observation, action)
}

fn section() -> PolicySection {
    PolicySection { hidden: vec![8, 6].into(), ..PolicySection::default() }
}

#[test]
fn initial_weights_are_orthogonal_and_follow_the_seed() {
    let spec = spec(Space::Discrete { n: 3 });
    let weights = spec.initialise(5).unwrap();
    let w = weights.get("encoder.0.weight", &[8, 4]).unwrap();
    let gram = w.t().unwrap().matmul(&w).unwrap().to_vec2::<f32>().unwrap();
    for (i, row) in gram.iter().enumerate() {
        for (j, &value) in row.iter().enumerate() {
            let expected = if i == j { 2.0 } else { 0.0 };
            assert!((value - expected).abs() < 1e-5, "gram[{i}][{j}] = {value}");
        }
    }
    let values =
        |seed| spec.initialise(seed).unwrap().0[0].1.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(values(5), values(5));
    assert_ne!(values(5), values(6));
}

#[test]
fn a_value_encoder_of_its_own_leaves_the_policy_alone() {
    let shared = spec(Space::Discrete { n: 3 });
    let apart = spec_of(Space::Discrete { n: 3 }, &PolicySection { shared_encoder: false, ..section() });
    let weights = apart.initialise(3).unwrap();
    let observations = Tensor::new(&[[0.1f32, -0.2, 0.3, 0.4]], &Device::Cpu).unwrap();
    let run = |weights: &Weights| {
        let output = Policy::new(&apart, weights).unwrap().forward(&observations).unwrap();
        (output.distribution.to_vec2::<f32>().unwrap(), output.values.to_vec1::<f32>().unwrap())
    };
    let mut changed = weights.clone();
    for (name, tensor) in &mut changed.0 {
        if name.starts_with("value_encoder") {
            *tensor = (&*tensor * 2.0).unwrap();
        }
    }
    let ((policy, value), (policy_after, value_after)) = (run(&weights), run(&changed));
    assert_eq!(policy, policy_after);
    assert_ne!(value, value_after);
    assert!(shared.weight_count() < apart.weight_count());
}

#[test]
fn a_policy_of_unreasonable_size_is_refused_before_any_memory_is_taken() {
    let small = || Space::boxed(&[-1.0], &[1.0]);
    for (observation, action) in [
        (small(), Space::Discrete { n: 2_000_000_000 }),
        (Space::Discrete { n: u32::MAX }, small()),
        (Space::boxed(&vec![-1.0; 1 << 24], &vec![1.0; 1 << 24]), Space::Discrete { n: 2 }),
    ] {
        let environment = environment(observation, action);
        let error = PolicySpec::new(&environment, &PolicySection::default()).unwrap_err().to_string();
        assert!(error.contains("weights, at most 67108864"), "{error}");
    }
}

#[test]
fn a_snapshot_survives_its_encoding_in_order() {
    let weights = spec(Space::Discrete { n: 3 }).initialise(1).unwrap();
    let snapshot = Snapshot { version: 9, weights };
    let back = Snapshot::decode(&snapshot.encode().unwrap()).unwrap();
    assert_eq!(back.version, 9);
    let mut names: Vec<_> = snapshot.weights.0.iter().map(|(n, _)| n).collect();
    let mut back_names: Vec<_> = back.weights.0.iter().map(|(n, _)| n).collect();
    names.sort();
    back_names.sort();
    assert_eq!(back_names, names);
    for (name, tensor) in &snapshot.weights.0 {
        let other = back.weights.get(name, tensor.dims()).unwrap();
        let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(flat(tensor), flat(&other));
    }
}

#[test]
fn a_squashed_policy_needs_bounds_and_says_so() {
    let section = PolicySection { squash: true, ..PolicySection::default() };
    let with = |action| environment(Space::boxed(&[-1.0], &[1.0]), action);
    let spec = PolicySpec::new(&with(Space::boxed(&[-1.0], &[1.0])), &section).unwrap();
    assert!(spec.distribution().is_squashed());
    assert!(
        !PolicySpec::new(&with(Space::Discrete { n: 2 }), &section).unwrap().distribution().is_squashed()
    );
    let error = PolicySpec::new(&with(Space::boxed(&[-1.0], &[f32::INFINITY])), &section).unwrap_err();
    assert!(error.to_string().contains("set policy.squash = false"), "{error}");
}

#[test]
fn every_parameter_of_every_network_gets_a_gradient() {
    let actions = [
        Space::Discrete { n: 3 },
        Space::MultiDiscrete { nvec: vec![2, 3] },
        Space::boxed(&[-1.0; 2], &[1.0; 2]),
    ];
    let sections = [
        PolicySection { shared_encoder: false, ..section() },
        PolicySection { log_std: LogStd::State, ..section() },
        PolicySection { core: CoreKind::Lstm, log_std: LogStd::State, ..section() },
        PolicySection { core: CoreKind::Gru, ..section() },
        PolicySection { core: CoreKind::Gru, exploration: Exploration::Gsde, ..section() },
        PolicySection { exploration: Exploration::Gsde, ..section() },
        section(),
    ];
    for (action, section) in actions.iter().flat_map(|a| sections.iter().map(move |s| (a, s))) {
        let spec = spec_of(action.clone(), section);
        let vars = spec.initialise(3).unwrap();
        let vars: Vec<_> = vars
            .0
            .into_iter()
            .map(|(name, tensor)| (name, candle_core::Var::from_tensor(&tensor).unwrap()))
            .collect();
        let weights = Weights(vars.iter().map(|(n, v)| (n.clone(), v.as_tensor().clone())).collect());
        let policy = Policy::new(&spec, &weights).unwrap();
        let observations: Vec<f32> = (0..20).map(|i| (i as f32 * 0.7).sin()).collect();
        let observations = Tensor::from_vec(observations, (5, 4), &Device::Cpu).unwrap();
        let sequence = || Sequence {
            columns: 2,
            resets: vec![0, 0, 0, 1],
            initial: vec![0.0; 2 * spec.core_state_len()],
            branches: vec![1],
        };
        let output = policy.forward_sequence(&observations, sequence).unwrap();
        let loss = (output.distribution.sqr().unwrap().sum_all().unwrap()
            + output.distribution.sum_all().unwrap()
            + output.values.sqr().unwrap().sum_all().unwrap()
            + output.values.sum_all().unwrap())
        .unwrap();
        let gradients = loss.backward().unwrap();
        for (name, var) in &vars {
            let gradient = gradients.get(var).unwrap_or_else(|| panic!("{name} has no gradient"));
            let size = gradient.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(size > 0.0, "the gradient of {name} is zero with {section:?}");
        }
    }
}

#[test]
fn acting_step_by_step_is_the_sequence_and_needs_the_states_it_remembers() {
    for core in [CoreKind::Lstm, CoreKind::Gru] {
        let section = PolicySection { core, core_size: 5, policy_gain: 1.0, ..section() };
        let spec = spec_of(Space::Discrete { n: 3 }, &section);
        let policy = Policy::new(&spec, &spec.initialise(2).unwrap()).unwrap();
        let (length, columns, state_len) = (4, 2, spec.core_state_len());
        let observations: Vec<f32> = (0..32).map(|i| (i as f32 * 0.7).sin()).collect();
        let observations = Tensor::from_vec(observations, (length * columns, 4), &Device::Cpu).unwrap();
        let resets = vec![0, 0, 1, 0, 0, 0, 0, 1];
        let initial: Vec<f32> = (0..columns * state_len).map(|i| (i as f32).cos() / 2.0).collect();
        let sequence =
            Sequence { columns, resets: resets.clone(), initial: initial.clone(), branches: vec![] };
        let whole = policy.forward_sequence(&observations, || sequence).unwrap().distribution;
        let whole = whole.to_vec2::<f32>().unwrap();
        let mut states = initial;
        for t in 0..length {
            for column in (0..columns).filter(|column| resets[t * columns + column] == 1) {
                states[column * state_len..(column + 1) * state_len].fill(0.0);
            }
            let row = observations.narrow(0, t * columns, columns).unwrap();
            let step = policy.step(&row, &mut states).unwrap().to_vec2::<f32>().unwrap();
            for (step, whole) in step.iter().flatten().zip(whole[t * columns..].iter().flatten()) {
                assert!((step - whole).abs() < 1e-6, "{core:?}, step {t}: {step} is not {whole}");
            }
        }
        let error = policy.step(&observations, &mut states).unwrap_err().to_string();
        assert!(error.contains("remembers"), "{error}");
    }
}

#[test]
fn an_lstm_starts_with_open_forget_gates_only() {
    let section = PolicySection { core: CoreKind::Lstm, core_size: 2, ..section() };
    let spec = spec_of(Space::Discrete { n: 3 }, &section);
    let weights = spec.initialise(2).unwrap();
    let bias = |name| weights.get(name, &[8]).unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(bias("core.bias_ih"), [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(bias("core.bias_hh"), [0.0; 8]);
}
