//! What the kernels are checked against: the definition computed directly, candle's own operations, and slopes.

use candle_core::{DType, Device, Var, WithDType};
use proptest::prelude::*;
use rand::Rng;

use super::geometry::Windows;
use super::*;
use crate::kernels::simd::tests::at_every_level;
use crate::random::{Purpose, Stream, stream};

const ACTIVATIONS: [Activation; 3] = [Activation::Identity, Activation::Tanh, Activation::Relu];

/// A convolution's sizes.
#[derive(Debug, Clone, Copy)]
struct Case {
    /// `[N, H, W, C]`.
    images: [usize; 4],
    outputs: usize,
    kernel: [usize; 2],
    geometry: Geometry,
}

impl Case {
    fn weight(&self) -> [usize; 4] {
        [self.outputs, self.kernel[0], self.kernel[1], self.images[3]]
    }

    fn output(&self) -> [usize; 4] {
        let [n, height, width, _] = self.images;
        let [height, width] = self.geometry.output([height, width], self.kernel).unwrap();
        [n, height, width, self.outputs]
    }
}

fn random_case() -> impl Strategy<Value = Case> {
    let sizes = (0..4usize, 1..12usize, 1..14usize, 1..9usize, 1..40usize);
    (sizes, [1..5usize, 1..5usize], [1..4usize, 1..4usize], [0..3usize, 0..3usize]).prop_map(
        |((n, height, width, channels, outputs), kernel, stride, padding)| Case {
            images: [n, height.max(kernel[0]), width.max(kernel[1]), channels],
            outputs,
            kernel,
            geometry: Geometry { stride, padding },
        },
    )
}

/// Layers as the networks have them: Nature's three and a residual one, smaller in number and size.
fn real_cases() -> Vec<Case> {
    let case = |images, outputs, kernel, stride, padding| Case {
        images,
        outputs,
        kernel: [kernel; 2],
        geometry: Geometry::square(stride, padding),
    };
    vec![
        case([2, 36, 36, 4], 32, 8, 4, 0),
        case([2, 20, 20, 32], 64, 4, 2, 0),
        case([3, 9, 9, 64], 64, 3, 1, 0),
        case([2, 12, 11, 16], 16, 3, 1, 1),
        case([2, 11, 11, 16], 32, 3, 1, 1),
        case([1, 10, 10, 7], 16, 3, 1, 0),
    ]
}

fn numbers(shape: &[usize], random: &mut Stream) -> Vec<f32> {
    let count = shape.iter().product();
    (0..count).map(|_| random.next_u32() as f32 / u32::MAX as f32 * 2.0 - 1.0).collect()
}

fn var(shape: &[usize], random: &mut Stream) -> Var {
    Var::from_vec(numbers(shape, random), shape, &Device::Cpu).unwrap()
}

fn flat<T: WithDType>(tensor: &Tensor) -> Vec<T> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// The sums of a convolution by their definition, and what a change of each output would change: loops over everything.
struct Exact {
    sums: Vec<f64>,
    d_images: Vec<f64>,
    d_weight: Vec<f64>,
    d_bias: Vec<f64>,
}

fn exact(case: &Case, images: &[f32], weight: &[f32], bias: &[f32], d_sums: &[f64]) -> Exact {
    let [n, height, width, channels] = case.images;
    let [_, out_height, out_width, _] = case.output();
    let [kernel_height, kernel_width] = case.kernel;
    let Geometry { stride, padding } = case.geometry;
    let mut exact = Exact {
        sums: vec![],
        d_images: vec![0.0; images.len()],
        d_weight: vec![0.0; weight.len()],
        d_bias: vec![0.0; bias.len()],
    };
    for image in 0..n {
        for i in 0..out_height {
            for j in 0..out_width {
                for (output, bias) in bias.iter().enumerate() {
                    let d = d_sums.get(exact.sums.len()).copied().unwrap_or(0.0);
                    let mut sum = f64::from(*bias);
                    exact.d_bias[output] += d;
                    for a in 0..kernel_height {
                        for b in 0..kernel_width {
                            let y = (i * stride[0] + a) as isize - padding[0] as isize;
                            let x = (j * stride[1] + b) as isize - padding[1] as isize;
                            if y < 0 || x < 0 || y >= height as isize || x >= width as isize {
                                continue;
                            }
                            for channel in 0..channels {
                                let of_image =
                                    ((image * height + y as usize) * width + x as usize) * channels + channel;
                                let of_weight =
                                    ((output * kernel_height + a) * kernel_width + b) * channels + channel;
                                sum += f64::from(images[of_image]) * f64::from(weight[of_weight]);
                                exact.d_images[of_image] += d * f64::from(weight[of_weight]);
                                exact.d_weight[of_weight] += d * f64::from(images[of_image]);
                            }
                        }
                    }
                    exact.sums.push(sum);
                }
            }
        }
    }
    exact
}

fn activated(sum: f64, activation: Activation) -> (f64, f64) {
    match activation {
        Activation::Identity => (sum, 1.0),
        Activation::Tanh => (sum.tanh(), 1.0 - sum.tanh().powi(2)),
        Activation::Relu => (sum.max(0.0), if sum > 0.0 { 1.0 } else { 0.0 }),
    }
}

#[track_caller]
fn assert_close(ours: &[f32], exact: &[f64], what: &str) {
    assert_eq!(ours.len(), exact.len(), "{what}");
    let scale = exact.iter().fold(1f64, |scale, x| scale.max(x.abs()));
    for (at, (ours, exact)) in ours.iter().zip(exact).enumerate() {
        let error = (f64::from(*ours) - exact).abs() / scale;
        assert!(error < 2e-5, "{what}[{at}]: {ours}, expected {exact}");
    }
}

/// Compares outputs and every gradient with the definition.
fn check(case: &Case, activation: Activation, random: &mut Stream) {
    let images = var(&case.images, random);
    let (weight, bias) = (var(&case.weight(), random), var(&[case.outputs], random));
    let weights = var(&case.output(), random).as_detached_tensor();
    let y = convolution(&images, &weight, &bias, case.geometry, activation).unwrap();
    assert_eq!(y.dims(), case.output());

    let [x, w, b] = [&images, &weight, &bias].map(|var| flat::<f32>(var));
    let g = flat::<f32>(&weights);
    let sums = exact(case, &x, &w, &b, &[]).sums;
    let slopes = sums.iter().zip(&g).map(|(sum, g)| activated(*sum, activation).1 * f64::from(*g));
    let expected = exact(case, &x, &w, &b, &slopes.collect::<Vec<_>>());
    let outputs: Vec<f64> = sums.iter().map(|sum| activated(*sum, activation).0).collect();
    let what = format!("{case:?} {activation:?}");
    assert_close(&flat(&y), &outputs, &what);

    let grads = (y * weights).unwrap().sum_all().unwrap().backward().unwrap();
    for (name, var, exact) in [
        ("images", &images, expected.d_images),
        ("weight", &weight, expected.d_weight),
        ("bias", &bias, expected.d_bias),
    ] {
        assert_close(&flat(grads.get(var).unwrap()), &exact, &format!("{what}, gradient of {name}"));
    }
}

#[test]
fn layers_of_real_networks_match_the_definition() {
    let mut random = stream(1, Purpose::Parameters, [0; 3]);
    at_every_level(|_| {
        for case in real_cases() {
            for activation in ACTIVATIONS {
                check(&case, activation, &mut random);
            }
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_convolution_matches_the_definition(
        case in random_case(),
        activation in prop::sample::select(&ACTIVATIONS[..]),
        seed in any::<u64>(),
    ) {
        at_every_level(|_| check(&case, activation, &mut stream(seed, Purpose::Parameters, [0; 3])));
    }

    #[test]
    fn bytes_count_as_the_numbers_they_stand_for(
        case in random_case(),
        planar in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let mut random = stream(seed, Purpose::Parameters, [0; 3]);
        let order = if planar { PixelOrder::Planar } else { PixelOrder::Interleaved };
        let [n, height, width, channels] = case.images;
        let shape = if planar { [n, channels, height, width] } else { case.images };
        let bytes: Vec<u8> = (0..shape.iter().product()).map(|_| random.next_u32() as u8).collect();
        let bytes = Tensor::from_vec(bytes, &shape, &Device::Cpu).unwrap();
        let (weight, bias) = (var(&case.weight(), &mut random), var(&[case.outputs], &mut random));
        let weights = var(&case.output(), &mut random).as_detached_tensor();
        let numbers = composed::widened(&bytes, order, 1.0 / 255.0).unwrap();
        at_every_level(|_| {
            let relu = Activation::Relu;
            let ours = convolution_of_bytes(&bytes, order, 1.0 / 255.0, &weight, &bias, case.geometry, relu).unwrap();
            let same = convolution(&numbers, &weight, &bias, case.geometry, relu).unwrap();
            let grads = |y: &Tensor| (y * &weights).unwrap().sum_all().unwrap().backward().unwrap();
            let (of_bytes, of_numbers) = (grads(&ours), grads(&same));
            let wide = |t: &Tensor| flat::<f32>(t).into_iter().map(f64::from).collect::<Vec<_>>();
            assert_close(&flat(&ours), &wide(&same), &format!("{case:?}"));
            for var in [&weight, &bias] {
                assert_close(&flat(of_bytes.get(var).unwrap()), &wide(of_numbers.get(var).unwrap()), &format!("{case:?}"));
            }
            assert!(of_bytes.get(&bytes).is_none() && of_numbers.get(&numbers).is_none());
        });
    }

    #[test]
    fn candles_own_operations_give_the_same(case in random_case(), seed in any::<u64>()) {
        prop_assume!(case.images[0] > 0);
        let mut random = stream(seed, Purpose::Parameters, [0; 3]);
        let (images, weight) = (var(&case.images, &mut random), var(&case.weight(), &mut random));
        let bias = var(&[case.outputs], &mut random);
        for activation in ACTIVATIONS {
            let composed = composed::convolution(&images, &weight, &bias, case.geometry, activation).unwrap();
            let ours = convolution(&images, &weight, &bias, case.geometry, activation).unwrap();
            let composed: Vec<f64> = flat::<f32>(&composed).into_iter().map(f64::from).collect();
            assert_close(&flat(&ours), &composed, &format!("{case:?}"));
        }
    }

    #[test]
    fn the_greatest_of_every_window_is_found_and_gets_the_gradient(
        case in random_case(),
        seed in any::<u64>(),
    ) {
        let case = Case { outputs: case.images[3], ..case };
        prop_assume!((0..2).all(|axis| case.geometry.padding[axis] < case.kernel[axis]));
        let mut random = stream(seed, Purpose::Parameters, [0; 3]);
        // Few different numbers, so that some are equal.
        let values = numbers(&case.images, &mut random).into_iter().map(|x| (x * 3.0).round()).collect();
        let images = Var::from_vec(values, &case.images, &Device::Cpu).unwrap();
        let weights = var(&case.output(), &mut random).as_detached_tensor();
        let (x, g) = (flat::<f32>(&images), flat::<f32>(&weights));
        let (mut greatest, mut gradient) = (vec![], vec![0f64; x.len()]);
        let [n, height, width, channels] = case.images;
        let [_, out_height, out_width, _] = case.output();
        for image in 0..n {
            for i in 0..out_height {
                for j in 0..out_width {
                    for channel in 0..channels {
                        let mut best: Option<usize> = None;
                        for a in 0..case.kernel[0] {
                            for b in 0..case.kernel[1] {
                                let y = (i * case.geometry.stride[0] + a).wrapping_sub(case.geometry.padding[0]);
                                let z = (j * case.geometry.stride[1] + b).wrapping_sub(case.geometry.padding[1]);
                                if y < height && z < width {
                                    let at = ((image * height + y) * width + z) * channels + channel;
                                    best = best.filter(|best| x[*best] >= x[at]).or(Some(at));
                                }
                            }
                        }
                        gradient[best.unwrap()] += f64::from(g[greatest.len()]);
                        greatest.push(x[best.unwrap()]);
                    }
                }
            }
        }
        at_every_level(|_| {
            let pooled = max_pool(&images, case.kernel, case.geometry).unwrap();
            assert_eq!(pooled.dims(), case.output());
            assert_eq!(flat::<f32>(&pooled), greatest);
            let grads = (pooled * &weights).unwrap().sum_all().unwrap().backward().unwrap();
            assert_close(&flat(grads.get(&images).unwrap()), &gradient, &format!("{case:?}"));
        });
        if n > 0 {
            let windows = Windows::new([height, width], case.kernel, case.geometry).unwrap();
            let composed = composed::max_pool(&images, &windows).unwrap();
            assert_eq!(flat::<f32>(&composed), greatest);
            let grads = (composed * &weights).unwrap().sum_all().unwrap().backward().unwrap();
            assert_close(&flat(grads.get(&images).unwrap()), &gradient, &format!("{case:?}, composed"));
        }
    }
}

#[test]
fn gradients_match_finite_differences() {
    let mut random = stream(3, Purpose::Parameters, [0; 3]);
    let case = Case {
        images: [2, 6, 5, 3],
        outputs: 4,
        kernel: [3, 2],
        geometry: Geometry { stride: [2, 1], padding: [1, 1] },
    };
    for activation in [Activation::Identity, Activation::Tanh] {
        let vars = [var(&case.images, &mut random), var(&case.weight(), &mut random), var(&[4], &mut random)];
        let weights = var(&case.output(), &mut random).as_detached_tensor();
        let loss = |vars: &[Tensor; 3]| {
            let y = convolution(&vars[0], &vars[1], &vars[2], case.geometry, activation).unwrap();
            (y * &weights).unwrap().sum_all().unwrap()
        };
        let tensors = vars.clone().map(|v| v.as_tensor().clone());
        let grads = loss(&tensors).backward().unwrap();
        for (which, var) in vars.iter().enumerate() {
            let (values, grads) = (flat::<f32>(var), flat::<f32>(grads.get(var).unwrap()));
            for at in 0..values.len() {
                let moved = |by: f32| {
                    let mut values = values.clone();
                    values[at] += by;
                    let mut tensors = tensors.clone();
                    tensors[which] = Tensor::from_vec(values, var.shape(), &Device::Cpu).unwrap();
                    f64::from(loss(&tensors).to_scalar::<f32>().unwrap())
                };
                let slope = (moved(1.0 / 64.0) - moved(-1.0 / 64.0)) * 32.0;
                assert!((slope - f64::from(grads[at])).abs() < 4e-3, "{activation:?} {which} {at}");
            }
        }
    }
}

#[test]
fn threads_change_nothing_but_the_time() {
    let mut random = stream(4, Purpose::Parameters, [0; 3]);
    let case = Case { images: [75, 9, 9, 16], ..real_cases()[2] };
    let (images, weight) = (var(&case.images, &mut random), var(&case.weight(), &mut random));
    let bias = var(&[case.outputs], &mut random);
    let run = || {
        let y = convolution(&images, &weight, &bias, case.geometry, Activation::Relu).unwrap();
        let pooled = max_pool(&y, [3, 3], Geometry::square(2, 1)).unwrap();
        let grads = pooled.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let grads = [&images, &weight, &bias].map(|v| flat::<f32>(grads.get(v).unwrap()));
        (flat::<f32>(&pooled), grads)
    };
    let alone = run();
    crate::kernels::set_threads(3);
    let shared = run();
    crate::kernels::set_threads(1);
    assert!(alone == shared);
}

#[test]
fn a_residual_block_is_what_its_parts_make() {
    let mut random = stream(6, Purpose::Parameters, [0; 3]);
    for (shape, kernel) in [([3, 7, 6, 16], 3), ([20, 5, 5, 5], 3), ([2, 4, 4, 32], 1)] {
        let [_, _, _, channels] = shape;
        let images = var(&shape, &mut random);
        let weights = var(&shape, &mut random).as_detached_tensor();
        let of_layer = [channels, kernel, kernel, channels];
        let vars = [var(&of_layer, &mut random), var(&[channels], &mut random)];
        let more = [var(&of_layer, &mut random), var(&[channels], &mut random)];
        let geometry = Geometry::square(1, kernel / 2);
        at_every_level(|level| {
            let block = residual_block(&images, [&vars[0], &vars[1]], [&more[0], &more[1]]).unwrap();
            let inner = images.relu().unwrap();
            let inner = convolution(&inner, &vars[0], &vars[1], geometry, Activation::Relu).unwrap();
            let outer = convolution(&inner, &more[0], &more[1], geometry, Activation::Identity).unwrap();
            let parts = (images.as_tensor() + outer).unwrap();
            let what = format!("{level:?} {shape:?} {kernel}");
            let wide = |t: &Tensor| flat::<f32>(t).into_iter().map(f64::from).collect::<Vec<_>>();
            assert_close(&flat(&block), &wide(&parts), &what);
            let grads = |y: &Tensor| (y * &weights).unwrap().sum_all().unwrap().backward().unwrap();
            let (of_block, of_parts) = (grads(&block), grads(&parts));
            for var in [&images].into_iter().chain(&vars).chain(&more) {
                assert_close(&flat(of_block.get(var).unwrap()), &wide(of_parts.get(var).unwrap()), &what);
            }
        });
    }
    let images = var(&[1, 4, 4, 3], &mut random);
    let (even, bias) = (var(&[3, 2, 2, 3], &mut random), var(&[3], &mut random));
    let error = residual_block(&images, [&even, &bias], [&even, &bias]).unwrap_err().to_string();
    assert!(error.contains("an odd K"), "{error}");
}

#[test]
fn strided_images_are_accepted_and_need_no_gradient() {
    let mut random = stream(5, Purpose::Parameters, [0; 3]);
    let images = Tensor::from_vec(numbers(&[2, 3, 5, 4], &mut random), (2, 3, 5, 4), &Device::Cpu).unwrap();
    let (weight, bias) = (var(&[2, 2, 2, 3], &mut random), var(&[2], &mut random));
    let turned = images.permute((0, 2, 3, 1)).unwrap();
    let y = convolution(&turned, &weight, &bias, Geometry::square(1, 0), Activation::Tanh).unwrap();
    let same = turned.contiguous().unwrap();
    let same = convolution(&same, &weight, &bias, Geometry::square(1, 0), Activation::Tanh).unwrap();
    assert_eq!(flat::<f32>(&y), flat::<f32>(&same));
    let grads = y.sum_all().unwrap().backward().unwrap();
    assert!(grads.get(&images).is_none() && grads.get(&weight).is_some() && grads.get(&bias).is_some());
}

#[test]
fn nan_is_never_hidden() {
    let images = Tensor::full(f32::NAN, (1, 4, 4, 2), &Device::Cpu).unwrap();
    let weight = Tensor::ones((3, 2, 2, 2), DType::F32, &Device::Cpu).unwrap();
    let bias = Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
    at_every_level(|_| {
        for activation in ACTIVATIONS {
            let y = convolution(&images, &weight, &bias, Geometry::square(1, 0), activation).unwrap();
            assert!(flat::<f32>(&y).iter().all(|y| y.is_nan()));
        }
        let mut values = vec![1.0; 9];
        values[4] = f32::NAN;
        let one = Tensor::from_vec(values, (1, 3, 3, 1), &Device::Cpu).unwrap();
        let pooled = max_pool(&one, [2, 2], Geometry::square(1, 0)).unwrap();
        assert!(flat::<f32>(&pooled).iter().all(|y| y.is_nan()));
    });
}

#[test]
fn wrong_shapes_and_types_are_named() {
    let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
    let (x, w, b) =
        (zeros(&[1, 4, 4, 2], DType::F32), zeros(&[3, 2, 2, 2], DType::F32), zeros(&[3], DType::F32));
    let plain = Geometry::square(1, 0);
    let message = |x: &Tensor, w: &Tensor, b: &Tensor, geometry| {
        convolution(x, w, b, geometry, Activation::Relu).unwrap_err().to_string()
    };
    let bytes = zeros(&[1, 4, 4, 2], DType::U8);
    assert!(message(&bytes, &w, &b, plain).contains("the images must be f32"));
    assert!(message(&x, &bytes, &b, plain).contains("the weight must be f32"));
    assert!(message(&x, &zeros(&[3, 2, 2, 1], DType::F32), &b, plain).contains("do not fit together"));
    assert!(message(&x, &w, &zeros(&[2], DType::F32), plain).contains("do not fit together"));
    assert!(message(&x, &b, &b, plain).contains("expected images of four dimensions"));
    assert!(message(&x, &zeros(&[3, 5, 2, 2], DType::F32), &b, plain).contains("do not fit images"));
    assert!(message(&x, &w, &b, Geometry::square(0, 0)).contains("do not fit images"));
    let planar = convolution_of_bytes(&bytes, PixelOrder::Planar, 1.0, &w, &b, plain, Activation::Relu);
    assert!(planar.unwrap_err().to_string().contains("do not fit together"), "its channels are first");
    let floats = convolution_of_bytes(&x, PixelOrder::Planar, 1.0, &w, &b, plain, Activation::Relu);
    assert!(floats.unwrap_err().to_string().contains("must be u8"));
    let padded = max_pool(&x, [2, 2], Geometry::square(1, 2)).unwrap_err().to_string();
    assert!(padded.contains("more pixels than the padding"), "{padded}");
}
