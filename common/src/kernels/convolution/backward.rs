//! The backward pass of layers over images, for a part of the images on one thread.

use super::gradient::{Gradient, rectified_gradient};
use super::images::{Form, Images};
use super::layers::{Kind, Stage};
use super::pooling::unpool;
use super::run::add;
use crate::kernels::Activation;
use crate::kernels::threads::Scratch;

/// A layer's gradients, with its weights laid out for the processor.
pub(super) struct Backward {
    stage: Stage,
    /// Whether its output was kept.
    kept: bool,
    convolutions: Vec<Gradient>,
}

impl Backward {
    /// As [`Ready::new`](super::run::Ready::new); the gradient of the images that come in is made if `of_input`.
    pub(super) fn new(stage: Stage, form: Form, parameters: &[&[f32]], kept: bool, of_input: bool) -> Self {
        let [channels, outputs] = stage.channels;
        let gradient = |form, windows, weight, activation, of_input| {
            Gradient::new(form, channels, &windows, weight, outputs, activation, of_input)
        };
        let convolutions = match (stage.kind, parameters) {
            (Kind::Convolution { windows, activation }, [weight, _]) => {
                vec![gradient(form, windows, weight, activation, of_input)]
            }
            (Kind::Residual { windows }, [first, _, second, _]) => vec![
                gradient(Form::Prepared, windows, first, Activation::Relu, of_input),
                gradient(Form::Floats, windows, second, Activation::Identity, true),
            ],
            _ => vec![],
        };
        Self { stage, kept, convolutions }
    }

    /// Numbers of the sums of its parameters' gradients.
    pub(super) fn parameters(&self) -> usize {
        self.convolutions.iter().map(Gradient::parameters).sum()
    }

    /// Adds the gradients of the parameters to `sums`, and overwrites `d_input`, where wanted, with those of what came in. `y` is
    /// what went out, where it was kept.
    fn add(
        &self,
        input: Images<'_>,
        aside: &[f32],
        y: &[f32],
        grad: &[f32],
        d_input: Option<&mut [f32]>,
        sums: &mut [f32],
    ) {
        match (self.stage.kind, self.convolutions.as_slice()) {
            (Kind::Convolution { .. }, [convolution]) => {
                // Where it was not kept it plays no part.
                let y = if y.is_empty() { grad } else { y };
                convolution.add(input, y, grad, d_input, sums);
            }
            (Kind::Residual { .. }, [first, second]) => {
                let (of_first, of_second) = sums.split_at_mut(first.parameters());
                let mut d_inner = Scratch::new(aside.len());
                second.add(Images::Floats(aside), grad, grad, Some(&mut d_inner), of_second);
                let rectified = Images::Rectified(input.floats());
                match d_input {
                    Some(d_input) => {
                        first.add(rectified, aside, &d_inner, Some(&mut *d_input), of_first);
                        add(grad, d_input);
                    }
                    None => first.add(rectified, aside, &d_inner, None, of_first),
                }
            }
            (Kind::MaxPool { windows }, _) => {
                let Some(d_input) = d_input else { return };
                let ([from, to], [channels, _]) = (self.stage.numbers, self.stage.channels);
                let images = d_input.chunks_exact_mut(from).zip(grad.chunks_exact(to));
                for ((d_image, grad), chosen) in images.zip(aside.chunks_exact(self.stage.aside())) {
                    unpool(grad, &bytemuck::cast_slice(chosen)[..to], channels, &windows, d_image);
                }
            }
            (Kind::Rectify, _) => {
                let Some(d_input) = d_input else { return };
                d_input.copy_from_slice(grad);
                rectified_gradient(y, d_input);
            }
            (Kind::Convolution { .. } | Kind::Residual { .. }, _) => {
                unreachable!("a convolution is made with its weights")
            }
        }
    }

    /// What was summed up, in the order of the parameters.
    pub(super) fn finish(&self, mut sums: &[f32], mut d_parameters: &mut [f32]) {
        for convolution in &self.convolutions {
            let (own, rest) = sums.split_at(convolution.parameters());
            let (d_own, d_rest) = std::mem::take(&mut d_parameters).split_at_mut(own.len());
            let (d_weight, d_bias) = d_own.split_at_mut(own.len() - self.stage.channels[1]);
            convolution.finish(own, d_weight, d_bias);
            (sums, d_parameters) = (rest, d_rest);
        }
    }
}

/// A part of the images on its way back.
pub(super) struct Part<'a> {
    pub(super) count: usize,
    /// What [`run`](super::run::run) kept of it.
    pub(super) kept: &'a [f32],
    /// What the last stage gave, and its gradient.
    pub(super) y: &'a [f32],
    pub(super) grad: &'a [f32],
}

/// Goes back through `stages`: adds the gradients of all parameters to `sums`, stage by stage, and overwrites `d_input` with that
/// of `input`, where wanted.
pub(super) fn go_back(
    stages: &[Backward],
    input: Images<'_>,
    part: Part<'_>,
    d_input: Option<&mut [f32]>,
    sums: &mut [f32],
) {
    let Some((backward, rest)) = stages.split_first() else { return };
    let (aside, kept) = part.kept.split_at(part.count * backward.stage.aside());
    let (own_sums, sums) = sums.split_at_mut(backward.parameters());
    if rest.is_empty() {
        return backward.add(input, aside, part.y, part.grad, d_input, own_sums);
    }
    let len = part.count * backward.stage.numbers[1];
    let (own, kept) = kept.split_at(if backward.kept { len } else { 0 });
    let mut grad = Scratch::new(len);
    go_back(rest, Images::Floats(own), Part { kept, ..part }, Some(&mut grad), sums);
    backward.add(input, aside, own, &grad, d_input, own_sums);
}
