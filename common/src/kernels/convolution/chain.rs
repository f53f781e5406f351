//! Layers over images as one operation.
//!
//! A *part* of the images goes through all layers at once: as many images as fit the second-level cache. What the gradient
//! needs of it is kept, all of a part together. The backward pass goes the same way back; parameters' gradients are summed for
//! blocks of images, and the blocks' sums in their order.

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Storage, Tensor};

use super::backward::{Backward, Part, go_back};
use super::forward::PARALLEL_WORK;
use super::gradient::total;
use super::images::{Form, Images};
use super::layers::{ImageLayer, Pixels, Stage};
use super::run::{Ready, run};
use crate::kernels::storage::contiguous;
use crate::kernels::threads::{Scratch, share_out};
use crate::kernels::{threads, with_slice};

/// Numbers between two layers that a part of the images may have: half of a second-level cache.
const PART_NUMBERS: usize = 1 << 18;

/// Images whose parameters' gradients are summed one after another. It does not depend on the number of threads, so that
/// results don't.
const BLOCK: usize = 24;

/// Layers over images of a known size.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    pixels: Pixels,
    /// Numbers of an image.
    input: usize,
    stages: Vec<Stage>,
    /// Images that go through all layers at once: a divisor of [`BLOCK`].
    part: usize,
}

impl Chain {
    /// # Errors
    /// If a layer does not fit the images, `[H, W, C]`, or what the layers before it make of them.
    pub(super) fn new(pixels: Pixels, sizes: [usize; 3], layers: &[ImageLayer<'_>]) -> Result<Self> {
        let mut stages: Vec<Stage> = vec![];
        for layer in layers {
            let input = stages.last().map_or(sizes, |stage| stage.output);
            stages.push(Stage::new(*layer, input)?);
        }
        let first_reads_bytes = matches!(layers.first(), Some(ImageLayer::Convolution { .. }));
        if stages.is_empty() || (pixels != Pixels::Numbers && !first_reads_bytes) {
            candle_core::bail!(
                "layers over images: there must be one, and over bytes the first must be a convolution"
            )
        }
        let largest = stages.iter().map(|stage| stage.numbers[1]).max().unwrap_or(1).max(1);
        let part =
            (1..=BLOCK).rev().find(|part| BLOCK.is_multiple_of(*part) && part * largest <= PART_NUMBERS);
        Ok(Self { pixels, input: sizes.iter().product(), stages, part: part.unwrap_or(1) })
    }

    /// Height, width and channels of what comes out.
    pub(super) fn output(&self) -> [usize; 3] {
        self.stages[self.stages.len() - 1].output
    }

    /// Numbers that an image gives.
    fn outputs(&self) -> usize {
        self.stages[self.stages.len() - 1].numbers[1]
    }

    /// Whether so many images are worth the start of threads.
    fn is_worth_threads(&self, images: usize) -> bool {
        2 * images * self.stages.iter().map(Stage::products).sum::<usize>() >= PARALLEL_WORK
    }

    /// Numbers that each image leaves for the gradient.
    fn kept(&self) -> usize {
        (0..self.stages.len()).map(|at| self.stages[at].aside() + self.kept_output(at)).sum()
    }

    /// Numbers of the output of stage `at` that are kept, for an image: all or none. The last one is in the graph anyway.
    fn kept_output(&self, at: usize) -> usize {
        let Some(next) = self.stages.get(at + 1) else { return 0 };
        let stage = &self.stages[at];
        if stage.needs_output() || next.needs_input() { stage.numbers[1] } else { 0 }
    }

    /// Applies the layers, whose shapes are those it was made of, to images in the graph.
    ///
    /// # Errors
    /// If the tensors are on different devices.
    pub(super) fn apply(self, images: &Tensor, layers: &[ImageLayer<'_>]) -> Result<Tensor> {
        let parameters: Vec<&Tensor> = layers.iter().flat_map(|layer| layer.parameters()).collect();
        if !images.track_op() && !parameters.iter().any(|parameter| parameter.track_op()) {
            return self.packed(&parameters)?.apply(images);
        }
        let flat = parameters.iter().map(|parameter| parameter.flatten_all()).collect::<Result<Vec<_>>>()?;
        let flat = match flat.is_empty() {
            true => Tensor::zeros(0, DType::F32, images.device())?,
            false => Tensor::cat(&flat, 0)?,
        };
        images.contiguous()?.apply_op2(&flat, Operation { chain: self, kept: Mutex::default() })
    }

    /// The layers with these parameters, laid out for the processor.
    fn packed(self, parameters: &[&Tensor]) -> Result<PackedImageLayers> {
        let flat = parameters.iter().map(|parameter| parameter.contiguous()).collect::<Result<Vec<_>>>()?;
        let guards: Vec<_> = flat.iter().map(Tensor::storage_and_layout).collect();
        let mut slices = vec![];
        for (storage, layout) in &guards {
            let Storage::Cpu(storage) = &**storage else {
                candle_core::bail!("layers over images: their parameters must be on the CPU")
            };
            slices.push(contiguous(storage, layout)?);
        }
        Ok(PackedImageLayers { stages: self.ready(&slices), chain: self })
    }

    /// Each stage with the form of what comes in, and its own of all `parameters`.
    fn each<'a, 'p>(
        &'a self,
        mut parameters: &'p [&'p [f32]],
    ) -> impl Iterator<Item = (usize, &'a Stage, Form, &'p [&'p [f32]])> {
        self.stages.iter().enumerate().map(move |(at, stage)| {
            let (own, rest) = parameters.split_at(stage.parameters().len());
            parameters = rest;
            (at, stage, if at == 0 { self.pixels.form() } else { Form::Floats }, own)
        })
    }

    /// The stages, to go forward.
    fn ready(&self, parameters: &[&[f32]]) -> Vec<Ready> {
        let ready = |(at, stage, form, own): (usize, &Stage, Form, &[&[f32]])| {
            Ready::new(*stage, form, own, self.kept_output(at) > 0)
        };
        self.each(parameters).map(ready).collect()
    }

    /// All `parameters` one by one.
    fn split<'a>(&self, mut parameters: &'a [f32]) -> Vec<&'a [f32]> {
        let mut slices = vec![];
        for len in self.stages.iter().flat_map(Stage::parameters) {
            let (own, rest) = parameters.split_at(len);
            slices.push(own);
            parameters = rest;
        }
        slices
    }

    /// Sends images through `stages`, in parts of `part` images.
    fn forward(
        &self,
        stages: &[Ready],
        images: Images<'_>,
        part: usize,
        kept: Option<&mut [f32]>,
        out: &mut [f32],
    ) {
        let size = self.outputs();
        let worthwhile = self.is_worth_threads(out.len() / size);
        let outs = out.chunks_mut(part * size).enumerate();
        let mut kept: Vec<Option<&mut [f32]>> = match kept {
            // Layers without anything to keep have no chunks either.
            Some(kept) if !kept.is_empty() => kept.chunks_mut(part * self.kept()).map(Some).collect(),
            _ => (0..outs.len()).map(|_| None).collect(),
        };
        share_out(outs.zip(&mut kept), worthwhile, |((at, out), kept)| {
            let count = out.len() / size;
            let images = images.part(at * part * self.input, count * self.input);
            run(stages, count, images, kept.take(), out);
        });
    }
}

/// The operation on images and all parameters one after another.
struct Operation {
    chain: Chain,
    /// What the forward pass keeps for the gradient, part by part.
    kept: Mutex<Option<Scratch>>,
}

impl CustomOp2 for Operation {
    fn name(&self) -> &'static str {
        "image-layers"
    }

    fn cpu_fwd(
        &self,
        images: &CpuStorage,
        images_layout: &Layout,
        parameters: &CpuStorage,
        parameters_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let chain = &self.chain;
        let count = images_layout.shape().elem_count() / chain.input;
        let parameters = chain.split(contiguous(parameters, parameters_layout)?);
        let mut kept = Scratch::new(count * chain.kept());
        let mut out = vec![0f32; count * chain.outputs()];
        let images = of_storage(chain.pixels, images, images_layout)?;
        chain.forward(&chain.ready(&parameters), images, chain.part, Some(&mut kept), &mut out);
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
        Ok((CpuStorage::F32(out), (count, chain.outputs()).into()))
    }

    fn bwd(
        &self,
        images: &Tensor,
        parameters: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(kept) = kept.as_deref() else {
            candle_core::bail!("a gradient is asked for before the result")
        };
        let grad = grad.contiguous()?;
        let mut d_images = images.track_op().then(|| vec![0f32; images.elem_count()]);
        let mut d_parameters = vec![0f32; parameters.elem_count()];
        let (storage, layout) = images.storage_and_layout();
        let Storage::Cpu(storage) = &*storage else {
            candle_core::bail!("layers over images: a gradient on the CPU of images elsewhere")
        };
        let source = of_storage(self.chain.pixels, storage, layout)?;
        with_slice(parameters, |parameters| {
            with_slice(y, |y| {
                with_slice(&grad, |grad| {
                    let d_images = d_images.as_deref_mut();
                    self.chain.backward(parameters, source, kept, y, grad, d_images, &mut d_parameters);
                })
            })
        })???;
        let tensor = |of: &Tensor, values| Tensor::from_vec(values, of.shape(), of.device());
        let d_images = d_images.map(|values| tensor(images, values)).transpose()?;
        let d_parameters = parameters.track_op().then(|| tensor(parameters, d_parameters)).transpose()?;
        Ok((d_images, d_parameters))
    }
}

impl Chain {
    /// Writes the gradients of all parameters, and those of the images where wanted.
    #[allow(clippy::too_many_arguments, reason = "an operation's inputs, output and gradients")]
    fn backward(
        &self,
        parameters: &[f32],
        images: Images<'_>,
        kept: &[f32],
        y: &[f32],
        grad: &[f32],
        d_images: Option<&mut [f32]>,
        d_parameters: &mut [f32],
    ) {
        let slices = self.split(parameters);
        let of_images = d_images.is_some();
        let stages: Vec<Backward> = self
            .each(&slices)
            .map(|(at, stage, form, own)| {
                Backward::new(*stage, form, own, self.kept_output(at) > 0, at > 0 || of_images)
            })
            .collect();
        let (size, input, keeps) = (self.outputs(), self.input, self.kept());
        let blocks = grad.chunks(BLOCK * size).enumerate();
        let mut d_images: Vec<Option<&mut [f32]>> = match d_images {
            Some(d_images) => d_images.chunks_mut(BLOCK * input).map(Some).collect(),
            None => blocks.clone().map(|_| None).collect(),
        };
        let mut sums = Scratch::new(blocks.len() * d_parameters.len());
        let mut of_blocks: Vec<&mut [f32]> = match d_parameters.len() {
            0 => blocks.clone().map(|_| &mut [][..]).collect(),
            len => sums.chunks_exact_mut(len).collect(),
        };
        let worthwhile = self.is_worth_threads(grad.len() / size);
        let jobs = blocks.zip(d_images.iter_mut().zip(&mut of_blocks));
        share_out(jobs, worthwhile, |((block, grads), (d_images, sums))| {
            sums.fill(0.0);
            for (at, grad) in grads.chunks(self.part * size).enumerate() {
                let (within, count) = (at * self.part, grad.len() / size);
                let first = block * BLOCK + within;
                let d_images =
                    d_images.as_deref_mut().map(|d_images| &mut d_images[within * input..][..count * input]);
                let part = Part {
                    count,
                    kept: &kept[first * keeps..][..count * keeps],
                    y: &y[first * size..][..count * size],
                    grad,
                };
                go_back(&stages, images.part(first * input, count * input), part, d_images, sums);
            }
        });
        if d_parameters.is_empty() {
            return;
        }
        let mut total_sums = Scratch::new(d_parameters.len());
        total(&sums, &mut total_sums);
        let (mut sums, mut d_parameters) = (&total_sums[..], d_parameters);
        for stage in &stages {
            let (own, rest) = sums.split_at(stage.parameters());
            let (d_own, d_rest) = std::mem::take(&mut d_parameters).split_at_mut(own.len());
            stage.finish(own, d_own);
            (sums, d_parameters) = (rest, d_rest);
        }
    }
}

/// The images of a tensor.
fn of_storage<'a>(pixels: Pixels, storage: &'a CpuStorage, layout: &Layout) -> Result<Images<'a>> {
    Ok(match pixels {
        Pixels::Numbers => Images::Floats(contiguous(storage, layout)?),
        Pixels::Bytes { order, scale } => Images::Bytes { bytes: contiguous(storage, layout)?, order, scale },
    })
}

/// Layers with weights that do not change any more, laid out for the processor once: what an actor uses.
pub struct PackedImageLayers {
    chain: Chain,
    stages: Vec<Ready>,
}

impl std::fmt::Debug for PackedImageLayers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackedImageLayers").field("chain", &self.chain).finish_non_exhaustive()
    }
}

impl PackedImageLayers {
    /// `layers` over images `[height, width, channels]` that lie as `pixels` says. Later changes of their tensors go unnoticed.
    ///
    /// # Errors
    /// If a shape does not fit, or a tensor is not on the CPU.
    pub fn new(pixels: Pixels, sizes: [usize; 3], layers: &[ImageLayer<'_>]) -> Result<Self> {
        let parameters: Vec<&Tensor> = layers.iter().flat_map(|layer| layer.parameters()).collect();
        Chain::new(pixels, sizes, layers)?.packed(&parameters)
    }

    /// What [`image_features`](super::image_features) gives for `images`, outside any graph.
    ///
    /// # Errors
    /// If the images are of another size or type.
    pub fn apply(&self, images: &Tensor) -> Result<Tensor> {
        let chain = &self.chain;
        let [count, sizes @ ..] = chain.pixels.sizes(images)?;
        if sizes.iter().product::<usize>() != chain.input {
            candle_core::bail!("layers over images: they are for other sizes than {sizes:?}")
        }
        let images = images.contiguous()?;
        let (storage, layout) = images.storage_and_layout();
        let Storage::Cpu(storage) = &*storage else {
            candle_core::bail!("layers over images: packed ones are for images on the CPU")
        };
        let mut out = vec![0f32; count * chain.outputs()];
        // Few images are shared out evenly.
        let part = chain.part.min(count.div_ceil(threads())).max(1);
        chain.forward(&self.stages, of_storage(chain.pixels, storage, layout)?, part, None, &mut out);
        Tensor::from_vec(out, (count, chain.outputs()), images.device())
    }
}
