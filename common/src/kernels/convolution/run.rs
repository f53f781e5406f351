//! The forward pass of layers over images, for a part of the images on one thread.

use super::forward::Forward;
use super::images::{Form, Images};
use super::layers::{Kind, Stage};
use super::pooling::pool;
use crate::kernels::threads::Scratch;
use crate::kernels::{Activation, Isa, dispatch};

/// A layer with its weights laid out for the processor.
pub(super) struct Ready {
    pub(super) stage: Stage,
    /// Whether its output is kept for the gradient.
    pub(super) kept: bool,
    convolutions: Vec<Forward>,
}

impl Ready {
    /// `parameters` are those of the layer, one after another; `form` is that of the images that come in.
    pub(super) fn new(stage: Stage, form: Form, parameters: &[&[f32]], kept: bool) -> Self {
        let [channels, outputs] = stage.channels;
        let convolutions = match (stage.kind, parameters) {
            (Kind::Convolution { windows, activation }, [weight, bias]) => {
                vec![Forward::new(form, channels, &windows, weight, bias, activation)]
            }
            (Kind::Residual { windows }, [first, first_bias, second, second_bias]) => vec![
                Forward::new(Form::Prepared, channels, &windows, first, first_bias, Activation::Relu),
                Forward::new(Form::Floats, outputs, &windows, second, second_bias, Activation::Identity),
            ],
            _ => vec![],
        };
        Self { stage, kept, convolutions }
    }

    /// Applies the layer. What it leaves for the gradient beside its output goes to `aside`.
    fn apply(&self, input: Images<'_>, aside: &mut [f32], out: &mut [f32]) {
        let [channels, _] = self.stage.channels;
        match (self.stage.kind, self.convolutions.as_slice()) {
            (Kind::Convolution { .. }, [convolution]) => convolution.apply(input, out),
            (Kind::Residual { .. }, [first, second]) => {
                first.apply(Images::Rectified(input.floats()), aside);
                second.apply(Images::Floats(aside), out);
                add(input.floats(), out);
            }
            (Kind::MaxPool { windows }, _) => {
                let [from, to] = self.stage.numbers;
                let images = input.floats().chunks_exact(from).zip(out.chunks_exact_mut(to));
                for ((image, out), chosen) in images.zip(aside.chunks_exact_mut(self.stage.aside())) {
                    pool(image, channels, &windows, out, &mut bytemuck::cast_slice_mut(chosen)[..to]);
                }
            }
            (Kind::Rectify, _) => rectify(input.floats(), out),
            (Kind::Convolution { .. } | Kind::Residual { .. }, _) => {
                unreachable!("a convolution is made with its weights")
            }
        }
    }
}

/// Applies `stages` to `count` images. What the gradient needs goes to `kept`, if it is wanted: for each stage what it leaves aside,
/// and its output where that is kept.
pub(super) fn run(
    stages: &[Ready],
    count: usize,
    input: Images<'_>,
    kept: Option<&mut [f32]>,
    out: &mut [f32],
) {
    let Some((ready, rest)) = stages.split_first() else { return };
    let (mut of_aside, mut of_output) = (None, None);
    let (aside, kept) = taken(kept, true, count * ready.stage.aside(), &mut of_aside);
    if rest.is_empty() {
        return ready.apply(input, aside, out);
    }
    let (own, kept) = taken(kept, ready.kept, count * ready.stage.numbers[1], &mut of_output);
    ready.apply(input, aside, own);
    run(rest, count, Images::Floats(own), kept, out);
}

/// The next `len` numbers of `kept`, if they are to be kept there, and the rest; else scratch memory, which `scratch` owns.
fn taken<'a>(
    kept: Option<&'a mut [f32]>,
    keep: bool,
    len: usize,
    scratch: &'a mut Option<Scratch>,
) -> (&'a mut [f32], Option<&'a mut [f32]>) {
    match kept {
        Some(kept) if keep => {
            let (own, rest) = kept.split_at_mut(len);
            (own, Some(rest))
        }
        kept => (scratch.insert(Scratch::new(len)), kept),
    }
}

dispatch! {
    /// Adds `more` to `to`.
    pub(super) fn add(more: &[f32], to: &mut [f32]) = add_body;
    /// `max(x, 0)` of each number.
    pub(super) fn rectify(numbers: &[f32], out: &mut [f32]) = rectify_body;
}

#[inline(always)]
fn add_body<S: Isa>(more: &[f32], to: &mut [f32]) {
    to.iter_mut().zip(more).for_each(|(to, more)| *to += more);
}

#[inline(always)]
fn rectify_body<S: Isa>(numbers: &[f32], out: &mut [f32]) {
    for (out, number) in out.iter_mut().zip(numbers) {
        // A NaN stays.
        *out = if *number < 0.0 { 0.0 } else { *number };
    }
}
