//! How fast the kernels are, at the sizes of the default run: a policy 4-64-64-(2+1) with tanh, updated on
//! 672 rows (21 steps of 32 copies) and asked for actions in batches of up to 64.
//!
//! `cargo bench -p impresario-common --bench kernels`; `-- linear` runs those whose name has `linear` in it.

use candle_core::{Device, Tensor, Var};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use impresario_common::kernels::{
    Activation, Adam, Cell, EpsilonPlacement, PackedLinear, RmsProp, Sequence, adam_step, all_finite, exp,
    linear, linear_backward, linear_into, ln, recurrent, recurrent_step, rmsprop_step, sum_squares, tanh,
    update_in_place, with_slice,
};
use impresario_common::policy::distribution::{ActionDistribution, ActionMut, Actions};
use impresario_common::random::{Purpose, Stream, stream};
use impresario_common::space::Space;

/// The binaries' allocator: without it, fresh pages for large tensors would be part of the figures.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

fn numbers(count: usize, scale: f32) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919 % 1009) as f32 / 504.5 - 1.0) * scale).collect()
}

mod elementwise {
    use super::*;

    /// Elements of one hidden layer's output.
    const ELEMENTS: usize = 672 * 64;

    fn bench(bencher: Bencher, function: fn(&mut [f32]), low: f32) {
        let xs: Vec<f32> = numbers(ELEMENTS, 2.0).into_iter().map(|x| x + low).collect();
        let mut out = xs.clone();
        bencher.counter(ItemsCount::new(ELEMENTS)).bench_local(|| {
            out.copy_from_slice(&xs);
            function(black_box(&mut out));
        });
    }

    #[divan::bench]
    fn copy_alone(bencher: Bencher) {
        bench(bencher, |_| (), 0.0);
    }

    #[divan::bench]
    fn vectorised_tanh(bencher: Bencher) {
        bench(bencher, tanh, 0.0);
    }

    #[divan::bench]
    fn libm_tanh(bencher: Bencher) {
        bench(bencher, |xs| xs.iter_mut().for_each(|x| *x = x.tanh()), 0.0);
    }

    #[divan::bench]
    fn vectorised_exp(bencher: Bencher) {
        bench(bencher, exp, 0.0);
    }

    #[divan::bench]
    fn vectorised_ln(bencher: Bencher) {
        bench(bencher, ln, 3.0);
    }
}

/// Recurrent layers over T 20 x B 32 steps of H inputs, H 64 and 256, with an episode's end here and there.
mod recurrent_layer {
    use super::*;

    const LENGTH: usize = 20;
    const COLUMNS: usize = 32;

    struct Layer {
        cell: Cell,
        size: usize,
        x: Var,
        weight_ih: Var,
        weight_hh: Var,
        bias: Var,
        of_outputs: Tensor,
    }

    impl Layer {
        fn new(cell: Cell, size: usize) -> candle_core::Result<Self> {
            let (rows, width) = (LENGTH * COLUMNS, cell.gates() * size);
            let var = |shape: &[usize], scale: f32| {
                Var::from_vec(numbers(shape.iter().product(), scale), shape, &Device::Cpu)
            };
            let scale = 1.0 / (size as f32).sqrt();
            Ok(Self {
                cell,
                size,
                x: var(&[rows, size], 1.0)?,
                weight_ih: var(&[width, size], scale)?,
                weight_hh: var(&[width, size], scale)?,
                bias: var(&[width], scale)?,
                of_outputs: var(&[rows, size], 1.0)?.as_detached_tensor(),
            })
        }

        fn forward(&self) -> candle_core::Result<Tensor> {
            let sequence = Sequence {
                columns: COLUMNS,
                resets: (0..LENGTH * COLUMNS).map(|step| u8::from(step % 37 == 0)).collect(),
                initial: vec![0.1; COLUMNS * self.cell.state_len(self.size)],
                branches: vec![],
            };
            let projected = linear(&self.x, &self.weight_ih, &self.bias, Activation::Identity)?;
            recurrent(self.cell, &projected, &self.weight_hh, &self.bias, sequence)
        }
    }

    #[divan::bench(args = [(Cell::Lstm, 64), (Cell::Lstm, 256), (Cell::Gru, 64), (Cell::Gru, 256)])]
    fn forward(bencher: Bencher, (cell, size): (Cell, usize)) {
        let layer = Layer::new(cell, size).expect("the shapes fit");
        bencher.bench_local(|| layer.forward());
    }

    #[divan::bench(args = [(Cell::Lstm, 64), (Cell::Lstm, 256), (Cell::Gru, 64), (Cell::Gru, 256)])]
    fn forward_backward(bencher: Bencher, (cell, size): (Cell, usize)) {
        let layer = Layer::new(cell, size).expect("the shapes fit");
        bencher.bench_local(|| (layer.forward()? * &layer.of_outputs)?.sum_all()?.backward());
    }

    /// What an actor adds to a step of its copies, without the projection of the inputs.
    #[divan::bench(args = [(Cell::Lstm, 64), (Cell::Gru, 64)])]
    fn step(bencher: Bencher, (cell, size): (Cell, usize)) {
        let width = cell.gates() * size;
        let (projected, weight) = (numbers(COLUMNS * width, 1.0), numbers(width * size, 0.1));
        let (bias, mut out) = (numbers(width, 0.1), vec![0.0; COLUMNS * size]);
        let mut states = numbers(COLUMNS * cell.state_len(size), 1.0);
        bencher.bench_local(|| recurrent_step(cell, &projected, &weight, &bias, &mut states, &mut out));
    }
}

/// `(N, I, O)` of the layers an update goes through, and a larger one.
const LAYERS: [(usize, usize, usize); 5] =
    [(672, 4, 64), (672, 64, 64), (672, 64, 3), (672, 64, 2), (672, 3136, 512)];

mod layer {
    use super::*;

    fn flops((n, i, o): (usize, usize, usize)) -> ItemsCount {
        ItemsCount::new(2 * n * i * o)
    }

    /// Items are floating-point operations.
    #[divan::bench(args = LAYERS)]
    fn forward_identity(bencher: Bencher, (n, i, o): (usize, usize, usize)) {
        forward(bencher, (n, i, o), Activation::Identity);
    }

    #[divan::bench(args = LAYERS)]
    fn forward_tanh(bencher: Bencher, (n, i, o): (usize, usize, usize)) {
        forward(bencher, (n, i, o), Activation::Tanh);
    }

    fn forward(bencher: Bencher, (n, i, o): (usize, usize, usize), activation: Activation) {
        let (x, w, b) = (numbers(n * i, 1.0), numbers(o * i, 0.1), numbers(o, 0.1));
        let mut out = vec![0.0; n * o];
        bencher.counter(flops((n, i, o))).bench_local(|| {
            linear_into(black_box(&x), n, black_box(&w), &b, activation, black_box(&mut out))
        });
    }

    /// Both gradients (items: twice the forward pass's operations).
    #[divan::bench(args = LAYERS)]
    fn backward_tanh(bencher: Bencher, (n, i, o): (usize, usize, usize)) {
        let (x, w, y, grad) =
            (numbers(n * i, 1.0), numbers(o * i, 0.1), numbers(n * o, 0.9), numbers(n * o, 0.1));
        let (mut dx, mut dw, mut db) = (vec![0.0; n * i], vec![0.0; o * i], vec![0.0; o]);
        bencher.counter(flops((2 * n, i, o))).bench_local(|| {
            linear_backward(
                black_box(&x),
                n,
                &w,
                &y,
                &grad,
                Activation::Tanh,
                Some(&mut dx),
                &mut dw,
                &mut db,
            );
        });
    }

    /// The gemm crate, for comparison: the product alone.
    #[divan::bench(args = LAYERS)]
    fn gemm_crate(bencher: Bencher, (n, i, o): (usize, usize, usize)) {
        let (x, w) = (numbers(n * i, 1.0), numbers(o * i, 0.1));
        let mut out = vec![0.0f32; n * o];
        bencher.counter(flops((n, i, o))).bench_local(|| {
            // SAFETY: the three slices have the lengths of their shapes, and the output is not aliased.
            unsafe {
                gemm::gemm(
                    n,
                    o,
                    i,
                    out.as_mut_ptr(),
                    1,
                    o as isize,
                    false,
                    black_box(&x).as_ptr(),
                    1,
                    i as isize,
                    black_box(&w).as_ptr(),
                    i as isize,
                    1,
                    0.0,
                    1.0,
                    false,
                    false,
                    false,
                    gemm::Parallelism::None,
                );
            }
        });
    }
}

mod policy {
    use super::*;

    const SIZES: [(usize, usize); 3] = [(4, 64), (64, 64), (64, 3)];

    fn activation(layer: usize) -> Activation {
        if layer == 2 { Activation::Identity } else { Activation::Tanh }
    }

    /// A whole network for `batch` copies, as an actor runs it.
    #[divan::bench(args = [1, 16, 32, 64])]
    fn inference(bencher: Bencher, batch: usize) {
        let layers: Vec<PackedLinear> = SIZES
            .iter()
            .enumerate()
            .map(|(at, (i, o))| PackedLinear::new(&numbers(i * o, 0.1), &numbers(*o, 0.1), activation(at)))
            .collect();
        let x = numbers(batch * 4, 1.0);
        let (mut first, mut second, mut out) =
            (vec![0.0; batch * 64], vec![0.0; batch * 64], vec![0.0; batch * 3]);
        bencher.bench_local(|| {
            layers[0].apply(black_box(&x), batch, &mut first);
            layers[1].apply(&first, batch, &mut second);
            layers[2].apply(&second, batch, black_box(&mut out));
        });
    }

    /// The same without packing ahead.
    #[divan::bench(args = [1, 16, 32, 64])]
    fn inference_unpacked(bencher: Bencher, batch: usize) {
        let layers: Vec<_> = SIZES.iter().map(|(i, o)| (numbers(i * o, 0.1), numbers(*o, 0.1))).collect();
        let x = numbers(batch * 4, 1.0);
        let (mut first, mut second, mut out) =
            (vec![0.0; batch * 64], vec![0.0; batch * 64], vec![0.0; batch * 3]);
        bencher.bench_local(|| {
            linear_into(black_box(&x), batch, &layers[0].0, &layers[0].1, activation(0), &mut first);
            linear_into(&first, batch, &layers[1].0, &layers[1].1, activation(1), &mut second);
            linear_into(&second, batch, &layers[2].0, &layers[2].1, activation(2), black_box(&mut out));
        });
    }

    struct Network {
        layers: Vec<(Var, Var)>,
        x: Tensor,
    }

    impl Network {
        fn new() -> Self {
            let var =
                |shape: &[usize]| Var::from_vec(numbers(shape.iter().product(), 0.1), shape, &Device::Cpu);
            let layers = SIZES.iter().map(|(i, o)| Ok((var(&[*o, *i])?, var(&[*o])?)));
            let layers = layers.collect::<candle_core::Result<_>>().expect("variables on the CPU");
            let x = Tensor::from_vec(numbers(672 * 4, 1.0), (672, 4), &Device::Cpu).expect("672 x 4 numbers");
            Self { layers, x }
        }

        fn forward(&self, fused: bool) -> candle_core::Result<Tensor> {
            let mut x = self.x.clone();
            for (at, (w, b)) in self.layers.iter().enumerate() {
                x = if fused {
                    linear(&x, w, b, activation(at))?
                } else {
                    let sums = x.matmul(&w.t()?)?.broadcast_add(b)?;
                    if at == 2 { sums } else { sums.tanh()? }
                };
            }
            Ok(x)
        }

        /// A loss of the shape every policy-gradient method has: actions, entropy, values.
        fn loss(&self, out: &Tensor, actions: &std::sync::Arc<[i32]>) -> candle_core::Result<Tensor> {
            let distribution = ActionDistribution::new(&Space::Discrete { n: 2 }).expect("two actions");
            let terms = distribution
                .log_prob_entropy(&out.narrow(1, 0, 2)?, Actions::Discrete(actions.clone()))
                .map_err(candle_core::Error::wrap)?;
            terms.sum_all()? + out.narrow(1, 2, 1)?.sqr()?.sum_all()?
        }
    }

    /// Forward and backward over 672 rows, without a loss.
    #[divan::bench(args = [true, false])]
    fn forward_backward(bencher: Bencher, fused: bool) {
        let network = Network::new();
        bencher.bench_local(|| network.forward(fused)?.backward());
    }

    /// The fused forward pass alone.
    #[divan::bench]
    fn forward(bencher: Bencher) {
        let network = Network::new();
        bencher.bench_local(|| network.forward(true));
    }

    /// Forward, loss, backward, clipping by the global norm, RMSProp: everything but V-trace.
    #[divan::bench]
    fn update(bencher: Bencher) {
        let network = Network::new();
        let actions: std::sync::Arc<[i32]> = (0..672).map(|i| i % 2).collect();
        let mut state: Vec<Vec<f32>> = network
            .layers
            .iter()
            .flat_map(|(w, b)| [w.elem_count(), b.elem_count()])
            .map(|n| vec![0.0; n])
            .collect();
        bencher.bench_local(|| -> candle_core::Result<()> {
            let loss = network.loss(&network.forward(true)?, &actions)?;
            let grads = loss.backward()?;
            let vars: Vec<&Var> = network.layers.iter().flat_map(|(w, b)| [w, b]).collect();
            let mut squares = 0.0;
            for var in &vars {
                squares += with_slice(grads.get(var).expect("every variable has a gradient"), sum_squares)?;
            }
            let scale = (40.0 / squares.sqrt()).min(1.0) as f32;
            for (var, state) in vars.iter().zip(&mut state) {
                with_slice(grads.get(var).expect("every variable has a gradient"), |grad: &[f32]| {
                    update_in_place(var, |params| rmsprop_step(params, grad, state, None, &RMS_PROP, scale))
                })??;
            }
            Ok(())
        });
    }

    /// The same update on slices, without candle's graph: what the kernels alone take.
    #[divan::bench]
    fn forward_backward_on_slices(bencher: Bencher) {
        let layers: Vec<_> = SIZES.iter().map(|(i, o)| (numbers(i * o, 0.1), numbers(*o, 0.1))).collect();
        let x = numbers(672 * 4, 1.0);
        let mut outs: Vec<Vec<f32>> = SIZES.iter().map(|(_, o)| vec![0.0; 672 * o]).collect();
        let mut grads: Vec<Vec<f32>> = SIZES.iter().map(|(_, o)| vec![0.01; 672 * o]).collect();
        let mut weights: Vec<_> = SIZES.iter().map(|(i, o)| (vec![0.0; i * o], vec![0.0; *o])).collect();
        bencher.bench_local(|| {
            for (at, (w, b)) in layers.iter().enumerate() {
                let (before, out) = outs.split_at_mut(at);
                linear_into(before.last().unwrap_or(&x), 672, w, b, activation(at), &mut out[0]);
            }
            for at in (0..3).rev() {
                let (before, grad) = grads.split_at_mut(at);
                let (dw, db) = &mut weights[at];
                let input = if at == 0 { &x } else { &outs[at - 1] };
                let dx = before.last_mut().map(|dx| &mut dx[..]);
                linear_backward(input, 672, &layers[at].0, &outs[at], &grad[0], activation(at), dx, dw, db);
            }
        });
    }

    const RMS_PROP: RmsProp = RmsProp {
        learning_rate: 1e-9,
        decay: 0.99,
        epsilon: 0.01,
        epsilon_placement: EpsilonPlacement::InsideSqrt,
        momentum: 0.0,
    };

    /// Steps over the 4,675 parameters of the default network, and over a million.
    #[divan::bench(args = [4_675, 1_000_000])]
    fn rmsprop(bencher: Bencher, count: usize) {
        let (mut params, grads, mut state) = (numbers(count, 1.0), numbers(count, 0.1), vec![0.0; count]);
        bencher
            .counter(ItemsCount::new(count))
            .bench_local(|| rmsprop_step(&mut params, black_box(&grads), &mut state, None, &RMS_PROP, 0.5));
    }

    #[divan::bench(args = [4_675, 1_000_000])]
    fn adam(bencher: Bencher, count: usize) {
        let adam = Adam { learning_rate: 1e-9, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
        let (mut params, grads) = (numbers(count, 1.0), numbers(count, 0.1));
        let (mut first, mut second) = (vec![0.0; count], vec![0.0; count]);
        bencher.counter(ItemsCount::new(count)).bench_local(|| {
            adam_step(&mut params, black_box(&grads), &mut first, &mut second, &adam, 10, 0.5)
        });
    }

    #[divan::bench(args = [4_675, 1_000_000])]
    fn norm(bencher: Bencher, count: usize) {
        let grads = numbers(count, 0.1);
        bencher.counter(ItemsCount::new(count)).bench_local(|| sum_squares(black_box(&grads)));
    }

    #[divan::bench(args = [4_675, 1_000_000])]
    fn finite(bencher: Bencher, count: usize) {
        let grads = numbers(count, 0.1);
        bencher.counter(ItemsCount::new(count)).bench_local(|| all_finite(black_box(&grads)));
    }
}

mod actions {
    use super::*;

    fn streams(count: u32) -> Vec<Stream> {
        (0..count).map(|copy| stream(1, Purpose::Actions, [copy, 0, 0])).collect()
    }

    /// Sampling for 32 copies (items: copies).
    #[divan::bench(args = [2, 4, 18])]
    fn sample_categorical(bencher: Bencher, alternatives: u32) {
        let distribution =
            ActionDistribution::new(&Space::Discrete { n: alternatives }).expect("a valid space");
        let (params, mut streams) = (numbers(32 * alternatives as usize, 1.0), streams(32));
        let (mut actions, mut log_probs) = ([0; 32], [0.0; 32]);
        bencher.counter(ItemsCount::new(32usize)).bench_local(|| {
            let actions = ActionMut::Discrete(&mut actions);
            distribution.sample_batch(black_box(&params), &mut streams, actions, &mut log_probs);
        });
    }

    #[divan::bench(args = [1, 6])]
    fn sample_normal(bencher: Bencher, dimensions: usize) {
        let space = Space::boxed(&vec![-1.0; dimensions], &vec![1.0; dimensions]);
        let distribution = ActionDistribution::new(&space).expect("a valid space");
        let (params, mut streams) = (numbers(32 * 2 * dimensions, 1.0), streams(32));
        let (mut actions, mut log_probs) = (vec![0.0; 32 * dimensions], [0.0; 32]);
        bencher.counter(ItemsCount::new(32usize)).bench_local(|| {
            let actions = ActionMut::Continuous(&mut actions);
            distribution.sample_batch(black_box(&params), &mut streams, actions, &mut log_probs);
        });
    }

    /// Log-probability and entropy of 672 rows, forward and backward.
    #[divan::bench(args = [2, 18])]
    fn log_prob_entropy(bencher: Bencher, alternatives: usize) {
        let distribution =
            ActionDistribution::new(&Space::Discrete { n: alternatives as u32 }).expect("a valid space");
        let params = Var::from_vec(numbers(672 * alternatives, 1.0), (672, alternatives), &Device::Cpu);
        let params = params.expect("672 rows");
        let actions: std::sync::Arc<[i32]> = (0..672).map(|i| i % alternatives as i32).collect();
        bencher.counter(ItemsCount::new(672usize)).bench_local(|| {
            let out = distribution.log_prob_entropy(&params, Actions::Discrete(actions.clone()));
            out.expect("valid actions").backward()
        });
    }
}
