//! How fast networks that see pixels learn and act: whole updates of T 20 x B 32 steps (forward over 21 rows, backward, clipping,
//! RMSProp), and inference, for the Nature CNN (Mnih et al. 2015) and IMPALA's residual network (Espeholt et al. 2018)
//! over four frames of 84 x 84 bytes.
//!
//! `cargo bench -p impresario-common --bench convolution`; `-- nature` runs those of one network. Arguments
//! are threads, or rows and threads. The layers are composed here of kernels, so that other implementations can be timed on the same thing.

use candle_core::{Device, Result, Tensor, Var};
use divan::Bencher;
use impresario_common::kernels::{
    Activation, EpsilonPlacement, Geometry, PixelOrder, RmsProp, convolution, convolution_of_bytes, linear,
    max_pool, residual_block, rmsprop_step, set_threads, sum_squares, update_in_place, with_slice,
};

/// The binaries' allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROWS: usize = 21 * 32;
const ACTIONS: usize = 6;

fn main() {
    impresario_common::process::limit_threads(2);
    divan::main();
}

fn numbers(count: usize, scale: f32) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919 % 1009) as f32 / 504.5 - 1.0) * scale).collect()
}

/// Weights and biases, layer by layer.
struct Layers(Vec<[Tensor; 2]>);

impl Layers {
    fn new(shapes: &[&[usize]], vars: &mut Vec<Var>) -> Result<Self> {
        let layer = |shape: &&[usize]| {
            let inputs: usize = shape[1..].iter().product();
            let weight = numbers(shape[0] * inputs, 1.0 / (inputs as f32).sqrt());
            let weight = Var::from_vec(weight, *shape, &Device::Cpu)?;
            let bias = Var::from_vec(numbers(shape[0], 0.1), shape[0], &Device::Cpu)?;
            let tensors = [weight.as_tensor().clone(), bias.as_tensor().clone()];
            vars.extend([weight, bias]);
            Ok(tensors)
        };
        Ok(Self(shapes.iter().map(layer).collect::<Result<_>>()?))
    }

    /// The same without a graph, as actors have them.
    fn detached(&self) -> Self {
        Self(self.0.iter().map(|pair| pair.each_ref().map(Tensor::detach)).collect())
    }

    fn bytes(
        &self,
        layer: usize,
        images: &Tensor,
        geometry: Geometry,
        activation: Activation,
    ) -> Result<Tensor> {
        let [weight, bias] = &self.0[layer];
        convolution_of_bytes(images, PixelOrder::Planar, 1.0 / 255.0, weight, bias, geometry, activation)
    }

    fn convolution(
        &self,
        layer: usize,
        x: &Tensor,
        geometry: Geometry,
        activation: Activation,
    ) -> Result<Tensor> {
        let [weight, bias] = &self.0[layer];
        convolution(x, weight, bias, geometry, activation)
    }

    fn block(&self, layer: usize, x: &Tensor) -> Result<Tensor> {
        let [first, second] = [layer, layer + 1].map(|layer| self.0[layer].each_ref());
        residual_block(x, first, second)
    }

    fn linear(&self, layer: usize, x: &Tensor, activation: Activation) -> Result<Tensor> {
        let [weight, bias] = &self.0[layer];
        linear(x, weight, bias, activation)
    }
}

type Forward = fn(&Layers, &Tensor) -> Result<Tensor>;

const NATURE: [&[usize]; 5] =
    [&[32, 8, 8, 4], &[64, 4, 4, 32], &[64, 3, 3, 64], &[512, 3136], &[ACTIONS + 1, 512]];

fn nature(layers: &Layers, images: &Tensor) -> Result<Tensor> {
    let relu = Activation::Relu;
    let x = layers.bytes(0, images, Geometry::square(4, 0), relu)?;
    let x = layers.convolution(1, &x, Geometry::square(2, 0), relu)?;
    let x = layers.convolution(2, &x, Geometry::square(1, 0), relu)?;
    let x = layers.linear(3, &x.flatten_from(1)?, relu)?;
    layers.linear(4, &x, Activation::Identity)
}

const RESIDUAL: [&[usize]; 17] = [
    &[16, 3, 3, 4],
    &[16, 3, 3, 16],
    &[16, 3, 3, 16],
    &[16, 3, 3, 16],
    &[16, 3, 3, 16],
    &[32, 3, 3, 16],
    &[32, 3, 3, 32],
    &[32, 3, 3, 32],
    &[32, 3, 3, 32],
    &[32, 3, 3, 32],
    &[32, 3, 3, 32],
    &[32, 3, 3, 32],
    &[32, 3, 3, 32],
    &[32, 3, 3, 32],
    &[32, 3, 3, 32],
    &[256, 3872],
    &[ACTIONS + 1, 256],
];

fn residual(layers: &Layers, images: &Tensor) -> Result<Tensor> {
    let same = Geometry::square(1, 1);
    let mut x = images.clone();
    for stack in 0..3 {
        let first = stack * 5;
        x = match first {
            0 => layers.bytes(first, &x, same, Activation::Identity)?,
            _ => layers.convolution(first, &x, same, Activation::Identity)?,
        };
        x = max_pool(&x, [3, 3], Geometry::square(2, 1))?;
        for block in 0..2 {
            x = layers.block(first + 2 * block + 1, &x)?;
        }
    }
    let x = layers.linear(15, &x.relu()?.flatten_from(1)?, Activation::Relu)?;
    layers.linear(16, &x, Activation::Identity)
}

fn frames(rows: usize) -> Tensor {
    let bytes = (0..rows * 4 * 84 * 84).map(|i| (i * 7919 % 251) as u8).collect();
    Tensor::from_vec(bytes, (rows, 4, 84, 84), &Device::Cpu).expect("the shape fits")
}

fn update(bencher: Bencher, forward: Forward, shapes: &[&[usize]], threads: usize) {
    let mut vars = vec![];
    let layers = Layers::new(shapes, &mut vars).expect("the shapes fit");
    let images = frames(ROWS);
    let of_outputs = Tensor::from_vec(numbers(ROWS * (ACTIONS + 1), 1.0), (ROWS, ACTIONS + 1), &Device::Cpu)
        .expect("it fits");
    let mut state: Vec<Vec<f32>> = vars.iter().map(|var| vec![0.0; var.elem_count()]).collect();
    let rms_prop = RmsProp {
        learning_rate: 1e-6,
        decay: 0.99,
        epsilon: 0.01,
        epsilon_placement: EpsilonPlacement::OutsideSqrt,
        momentum: 0.0,
    };
    set_threads(threads);
    bencher.bench_local(|| -> Result<()> {
        let grads = (forward(&layers, &images)? * &of_outputs)?.sum_all()?.backward()?;
        let of = |var: &Var| grads.get(var).expect("every variable has a gradient");
        let mut squares = 0.0;
        for var in &vars {
            squares += with_slice(of(var), sum_squares)?;
        }
        let scale = (40.0 / squares.sqrt()).min(1.0) as f32;
        for (var, state) in vars.iter().zip(&mut state) {
            with_slice(of(var), |grad: &[f32]| {
                update_in_place(var, |params| rmsprop_step(params, grad, state, None, &rms_prop, scale))
            })??;
        }
        Ok(())
    });
}

fn inference(bencher: Bencher, forward: Forward, shapes: &[&[usize]], (rows, threads): (usize, usize)) {
    let layers = Layers::new(shapes, &mut vec![]).expect("the shapes fit").detached();
    let images = frames(rows);
    set_threads(threads);
    bencher.bench_local(|| forward(&layers, &images));
}

#[divan::bench(args = [1, 2], sample_count = 9, sample_size = 1)]
fn nature_update(bencher: Bencher, threads: usize) {
    update(bencher, nature, &NATURE, threads);
}

#[divan::bench(args = [1, 2], sample_count = 5, sample_size = 1)]
fn residual_update(bencher: Bencher, threads: usize) {
    update(bencher, residual, &RESIDUAL, threads);
}

#[divan::bench(args = [(1, 1), (16, 1), (64, 1), (16, 2), (64, 2)], sample_count = 50, sample_size = 1)]
fn nature_inference(bencher: Bencher, args: (usize, usize)) {
    inference(bencher, nature, &NATURE, args);
}

#[divan::bench(args = [(1, 1), (16, 1), (64, 1), (16, 2), (64, 2)], sample_count = 20, sample_size = 1)]
fn residual_inference(bencher: Bencher, args: (usize, usize)) {
    inference(bencher, residual, &RESIDUAL, args);
}
