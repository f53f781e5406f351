//! Several layers as one operation against the same layers one by one.

use candle_core::{Device, Tensor, Var};
use rand::Rng;

use super::*;
use crate::kernels::simd::tests::at_every_level;
use crate::random::{Purpose, Stream, stream};

fn numbers(shape: &[usize], random: &mut Stream) -> Vec<f32> {
    let count = shape.iter().product();
    (0..count).map(|_| random.next_u32() as f32 / u32::MAX as f32 - 0.5).collect()
}

fn var(shape: &[usize], random: &mut Stream) -> Var {
    Var::from_vec(numbers(shape, random), shape, &Device::Cpu).unwrap()
}

/// Weights and biases of a convolution, a residual block, and another convolution.
fn parameters(random: &mut Stream) -> Vec<Var> {
    let shapes: [&[usize]; 8] =
        [&[5, 3, 3, 2], &[5], &[5, 3, 3, 5], &[5], &[5, 3, 3, 5], &[5], &[7, 2, 2, 5], &[7]];
    shapes.iter().map(|shape| var(shape, random)).collect()
}

/// Convolution, pooling, residual block, rectifier, convolution.
fn layers(vars: &[Var]) -> [ImageLayer<'_>; 5] {
    let convolution = |at: usize, geometry, activation| ImageLayer::Convolution {
        weight: &vars[at],
        bias: &vars[at + 1],
        geometry,
        activation,
    };
    [
        convolution(0, Geometry::square(1, 1), Activation::Identity),
        ImageLayer::MaxPool { size: [3, 3], geometry: Geometry::square(2, 1) },
        ImageLayer::Residual { first: [&vars[2], &vars[3]], second: [&vars[4], &vars[5]] },
        ImageLayer::Rectify,
        convolution(6, Geometry::square(2, 0), Activation::Tanh),
    ]
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn gradients(y: &Tensor, of: &[&Var]) -> Vec<Vec<f32>> {
    let weights = Tensor::arange(0f32, y.elem_count() as f32, &Device::Cpu).unwrap();
    let weights = weights.sin().unwrap().reshape(y.shape()).unwrap();
    let grads = (y * weights).unwrap().sum_all().unwrap().backward().unwrap();
    of.iter().map(|var| flat(grads.get(var).unwrap())).collect()
}

#[track_caller]
fn assert_close(ours: &[f32], reference: &[f32], what: &str) {
    let scale = reference.iter().fold(1f32, |scale, x| scale.max(x.abs()));
    assert_eq!(ours.len(), reference.len(), "{what}");
    for (ours, reference) in ours.iter().zip(reference) {
        assert!((ours - reference).abs() < 1e-5 * scale, "{what}: {ours}, expected {reference}");
    }
}

#[test]
fn layers_at_once_give_what_they_give_one_by_one() {
    let mut random = stream(11, Purpose::Parameters, [0; 3]);
    let vars = parameters(&mut random);
    // More than a block of images, and not a whole number of them.
    let images = var(&[29, 9, 8, 2], &mut random);
    let of: Vec<&Var> = [&images].into_iter().chain(&vars).collect();
    at_every_level(|level| {
        let at_once = image_layers(&images, Pixels::Numbers, &layers(&vars)).unwrap();
        let one_by_one = layers(&vars).iter().fold(images.as_tensor().clone(), |x, layer| {
            image_layers(&x, Pixels::Numbers, std::slice::from_ref(layer)).unwrap()
        });
        assert_eq!(at_once.dims(), one_by_one.dims());
        assert_close(&flat(&at_once), &flat(&one_by_one), "outputs");
        for (at, (ours, reference)) in
            gradients(&at_once, &of).iter().zip(gradients(&one_by_one, &of)).enumerate()
        {
            assert_close(ours, &reference, &format!("{level:?}, gradient {at}"));
        }
    });
}

#[test]
fn packed_layers_give_what_the_others_give_and_refuse_other_images() {
    let mut random = stream(12, Purpose::Parameters, [0; 3]);
    let vars = parameters(&mut random);
    let pixels = Pixels::Bytes { order: PixelOrder::Planar, scale: 1.0 / 255.0 };
    let packed = PackedImageLayers::new(pixels, [9, 8, 2], &layers(&vars)).unwrap();
    for count in [0, 1, 30] {
        let bytes = (0..count * 2 * 9 * 8).map(|i| (i * 31 % 251) as u8).collect();
        let images = Tensor::from_vec::<_, u8>(bytes, (count, 2, 9, 8), &Device::Cpu).unwrap();
        let learning = image_features(&images, pixels, &layers(&vars)).unwrap();
        let acting = packed.apply(&images).unwrap();
        assert_eq!((acting.dims(), flat(&acting)), (learning.dims(), flat(&learning)));
    }
    let others = Tensor::zeros((1, 2, 9, 9), candle_core::DType::U8, &Device::Cpu).unwrap();
    let error = packed.apply(&others).unwrap_err().to_string();
    assert!(error.contains("for other sizes"), "{error}");
    let pooling = ImageLayer::MaxPool { size: [2; 2], geometry: Geometry::square(2, 0) };
    let error = PackedImageLayers::new(pixels, [9, 8, 2], &[pooling]).unwrap_err().to_string();
    assert!(error.contains("the first must be a convolution"), "{error}");
}
