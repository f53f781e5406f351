use candle_core::{Device, Var};
use impresario_common::random::{self, Purpose, Stream};

use super::*;

const SHAPES: [(&str, &[usize]); 3] = [("a.weight", &[3, 5]), ("a.bias", &[3]), ("b", &[17])];

fn parameters(random: &mut Stream) -> Parameters {
    let tensors = SHAPES.iter().map(|(name, shape)| {
        let values: Vec<f32> = normals(shape.iter().product(), 1.0, random);
        ((*name).to_owned(), Tensor::from_vec(values, *shape, &Device::Cpu).unwrap())
    });
    Parameters::new(&Weights(tensors.collect())).unwrap()
}

fn normals(len: usize, scale: f64, random: &mut Stream) -> Vec<f32> {
    (0..len).map(|_| (random::normal(random) * scale) as f32).collect()
}

fn gradients(parameters: &Parameters, scale: f64, random: &mut Stream) -> GradStore {
    let mut store = GradStore::default();
    for (_, var) in parameters.iter() {
        let values = normals(var.elem_count(), scale, random);
        store.insert(var, Tensor::from_vec(values, var.dims(), &Device::Cpu).unwrap());
    }
    store
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn values(parameters: &Parameters) -> Vec<f32> {
    parameters.iter().flat_map(|(_, var)| flat(var)).collect()
}

fn all_gradients(parameters: &Parameters, store: &GradStore) -> Vec<f64> {
    let gradients = parameters.iter().flat_map(|(_, var)| flat(store.get(var).unwrap()));
    gradients.map(f64::from).collect()
}

fn section(kind: OptimizerKind, momentum: f64, max_grad_norm: f64) -> OptimizerSection {
    OptimizerSection { kind, momentum, max_grad_norm, learning_rate: 0.01, ..OptimizerSection::default() }
}

/// The update written out number by number in `f64`, clipping included.
struct Slow {
    section: OptimizerSection,
    values: Vec<f64>,
    first: Vec<f64>,
    second: Vec<f64>,
    step: i32,
}

impl Slow {
    fn step(&mut self, gradients: &[f64]) -> f64 {
        self.step += 1;
        let s = &self.section;
        let norm = gradients.iter().map(|g| g * g).sum::<f64>().sqrt();
        let clip = s.max_grad_norm / (norm + 1e-6);
        let scale = if s.max_grad_norm > 0.0 && clip < 1.0 { clip } else { 1.0 };
        for (i, g) in gradients.iter().map(|g| g * scale).enumerate() {
            let (m, v) = (&mut self.first[i], &mut self.second[i]);
            self.values[i] -= s.learning_rate
                * match s.kind {
                    OptimizerKind::RmsProp => {
                        *v = s.decay * *v + (1.0 - s.decay) * g * g;
                        *m = s.momentum * *m + g / (v.sqrt() + s.epsilon);
                        *m
                    }
                    OptimizerKind::Adam => {
                        *m = s.beta1 * *m + (1.0 - s.beta1) * g;
                        *v = s.beta2 * *v + (1.0 - s.beta2) * g * g;
                        let corrected = *m / (1.0 - s.beta1.powi(self.step));
                        corrected / ((*v / (1.0 - s.beta2.powi(self.step))).sqrt() + s.epsilon)
                    }
                };
        }
        norm
    }
}

#[test]
fn steps_follow_the_formulas() {
    for section in [
        section(OptimizerKind::RmsProp, 0.0, 0.0),
        section(OptimizerKind::RmsProp, 0.9, 1.0),
        section(OptimizerKind::Adam, 0.0, 0.0),
        section(OptimizerKind::Adam, 0.0, 2.0),
    ] {
        let mut random = random::stream(1, Purpose::Learner, [0; 3]);
        let parameters = parameters(&mut random);
        let mut optimizer = Optimizer::new(&section, &parameters);
        let start: Vec<f64> = values(&parameters).into_iter().map(f64::from).collect();
        let zeros = vec![0.0; start.len()];
        let mut slow =
            Slow { section: section.clone(), values: start, first: zeros.clone(), second: zeros, step: 0 };
        for step in 0..30 {
            // Norms on both sides of the bound.
            let scale = if step % 3 == 0 { 0.05 } else { 2.0 };
            let gradients = gradients(&parameters, scale, &mut random);
            let norm = slow.step(&all_gradients(&parameters, &gradients));
            let Step::Applied { grad_norm } = optimizer.step(&gradients, section.learning_rate).unwrap()
            else {
                panic!("refused")
            };
            assert!((grad_norm - norm).abs() < 1e-9 * norm);
        }
        for (fast, slow) in values(&parameters).iter().zip(&slow.values) {
            assert!((f64::from(*fast) - slow).abs() < 2e-5, "{section:?}: {fast} is not {slow}");
        }
    }
}

#[test]
fn a_restored_optimiser_goes_on_bit_for_bit() {
    for kind in [OptimizerKind::RmsProp, OptimizerKind::Adam] {
        let section = section(kind, 0.7, 1.0);
        let mut random = random::stream(2, Purpose::Learner, [0; 3]);
        let first = parameters(&mut random);
        let mut of_first = Optimizer::new(&section, &first);
        for _ in 0..5 {
            of_first.step(&gradients(&first, 1.0, &mut random), 0.01).unwrap();
        }
        let second = Parameters::new(&first.copied().unwrap()).unwrap();
        let mut of_second = Optimizer::new(&section, &second);
        of_second.load_state(&of_first.state().unwrap()).unwrap();
        assert_eq!(of_second.steps(), 5);
        let mut twin = random.clone();
        for _ in 0..5 {
            of_first.step(&gradients(&first, 1.0, &mut random), 0.01).unwrap();
            of_second.step(&gradients(&second, 1.0, &mut twin), 0.01).unwrap();
        }
        assert_eq!(values(&first), values(&second));
    }
}

#[test]
fn gradients_that_cannot_be_used_change_nothing() {
    for kind in [OptimizerKind::RmsProp, OptimizerKind::Adam] {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
            let mut random = random::stream(3, Purpose::Learner, [0; 3]);
            let parameters = parameters(&mut random);
            let mut optimizer = Optimizer::new(&section(kind, 0.7, 0.0), &parameters);
            optimizer.step(&gradients(&parameters, 1.0, &mut random), 0.01).unwrap();
            let before = (values(&parameters), optimizer.state().unwrap());

            let mut gradients = gradients(&parameters, 1.0, &mut random);
            let (_, last) = parameters.iter().last().unwrap();
            let mut poisoned = flat(gradients.get(last).unwrap());
            poisoned[11] = bad;
            gradients.insert(last, Tensor::from_vec(poisoned, last.dims(), &Device::Cpu).unwrap());
            let step = optimizer.step(&gradients, 0.01).unwrap();
            assert!(matches!(step, Step::Refused { .. }), "{bad}: {step:?}");

            let after = (values(&parameters), optimizer.state().unwrap());
            assert_eq!(before.0, after.0);
            assert_eq!(before.1.steps, after.1.steps);
            for ((_, x), (_, y)) in before.1.moments.0.iter().zip(&after.1.moments.0) {
                assert_eq!(flat(x), flat(y));
            }
        }
    }
}

#[test]
fn huge_gradients_are_clipped_where_clipping_is_on() {
    let mut random = random::stream(4, Purpose::Learner, [0; 3]);
    let parameters = parameters(&mut random);
    let mut optimizer = Optimizer::new(&section(OptimizerKind::RmsProp, 0.0, 1.0), &parameters);
    let step = optimizer.step(&gradients(&parameters, 1e30, &mut random), 0.01).unwrap();
    assert!(matches!(step, Step::Applied { grad_norm } if grad_norm > 1e30));
    assert!(values(&parameters).iter().all(|v| v.is_finite()));
}

#[test]
fn a_parameter_without_a_gradient_stays() {
    let mut random = random::stream(5, Purpose::Learner, [0; 3]);
    let parameters = parameters(&mut random);
    let before: Vec<_> = parameters.iter().map(|(_, var): (_, &Var)| flat(var)).collect();
    let mut optimizer = Optimizer::new(&section(OptimizerKind::Adam, 0.0, 1.0), &parameters);
    let mut gradients = gradients(&parameters, 1.0, &mut random);
    let (_, second) = parameters.iter().nth(1).unwrap();
    gradients.remove(second);
    optimizer.step(&gradients, 0.01).unwrap();
    let after: Vec<_> = parameters.iter().map(|(_, var)| flat(var)).collect();
    assert_ne!(before[0], after[0]);
    assert_eq!(before[1], after[1]);
    assert_ne!(before[2], after[2]);
}

#[test]
fn a_state_of_another_rule_is_refused_whole() {
    let mut random = random::stream(6, Purpose::Learner, [0; 3]);
    let parameters = parameters(&mut random);
    let rmsprop = Optimizer::new(&section(OptimizerKind::RmsProp, 0.0, 0.0), &parameters);
    let mut adam = Optimizer::new(&section(OptimizerKind::Adam, 0.0, 0.0), &parameters);
    adam.step(&gradients(&parameters, 1.0, &mut random), 0.01).unwrap();
    let error = adam.load_state(&rmsprop.state().unwrap()).unwrap_err().to_string();
    assert!(error.contains("a.weight/first_moment"), "{error}");
    assert_eq!(adam.steps(), 1);
}
