//! Hand-written CPU kernels: the few operations that decide how fast a small network learns and acts.
//!
//! candle's own element-wise functions are scalar (`tanh` costs 10 ns an element), its operations allocate,
//! and it computes gradients for inputs that need none. The kernels here replace what matters: the fused
//! dense layer ([`linear`]), `tanh` and `exp` on slices, and in-place optimiser steps. They work on `f32` in C
//! order; a tensor on another device takes candle's own operations instead.
//!
//! # Layout
//!
//! - `simd` chooses the instruction set at run time, so that one binary runs everywhere and is fast
//!   where AVX2 or AVX-512 is present;
//! - `elementwise`: [`tanh`], [`exp`], [`ln`], [`sum_squares`], [`all_finite`];
//! - `arrays`: [`elements`] out of bytes, [`all_below`], [`count_cut`];
//! - `matmul`: matrix products for shapes where a general library pays too much for packing;
//! - `device`: which tensors the kernels serve themselves;
//! - `activation`: [`activate`], where no layer does it; `layer_norm`: normalisation with the activation behind it;
//! - `linear`: the fused dense layer, its gradient, and the slice-level entry that actors use;
//! - `convolution`: convolution and max pooling of images, and their gradients;
//! - `recurrent`: LSTM and GRU over sequences, their gradient through time, and the single step that actors take;
//! - `optimizer`: RMSProp and Adam steps in place;
//! - `threads`: work shared out, and memory that calls leave for the next ones;
//! - `storage`: slices of a tensor's memory, for reading and for updates in place.
//!
//! *Invariant*: `unsafe` code lives here (and in shared memory) only, and every block says why it is sound.
//!
//! *Invariant*: a result depends on the instruction set, but not on the number of threads.

mod activation;
mod arrays;
mod convolution;
mod device;
mod elementwise;
mod layer_norm;
mod linear;
mod matmul;
mod optimizer;
mod recurrent;
pub(crate) mod simd;
mod storage;
mod threads;

use std::sync::atomic::{AtomicUsize, Ordering};

pub use activation::activate;
pub use arrays::{all_below, count_cut, elements};
pub use convolution::{
    Geometry, ImageLayer, PackedImageLayers, PixelOrder, Pixels, convolution, convolution_of_bytes,
    image_features, image_layers, max_pool, residual_block,
};
pub use device::{composed, is_fused};
pub use elementwise::{all_finite, exp, ln, sum_squares, tanh};
pub use layer_norm::layer_norm;
pub use linear::{Activation, PackedLinear, linear, linear_backward, linear_into};
pub use optimizer::{Adam, EpsilonPlacement, RmsProp, adam_step, rmsprop_step};
pub use recurrent::{Cell, Sequence, recurrent, recurrent_step};
pub use storage::{update_in_place, with_slice};

pub(crate) use elementwise::{exp_of, ln_of, tanh_of};
pub(crate) use simd::{Isa, dispatch};

static THREADS: AtomicUsize = AtomicUsize::new(1);

/// Sets how many threads a large product may use, for the whole process; 0 counts as 1, the default.
///
/// Small products always run on the calling thread.
pub fn set_threads(threads: usize) {
    THREADS.store(threads.max(1), Ordering::Relaxed);
}

/// How many threads a large product may use; see [`set_threads`].
pub fn threads() -> usize {
    THREADS.load(Ordering::Relaxed)
}
