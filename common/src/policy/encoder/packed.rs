//! A trunk's layers with weights that do not change any more, laid out for the processor.

use std::sync::Arc;

use super::image::Image;
use crate::kernels::{ImageLayer, PackedImageLayers, Pixels};
use crate::policy::error::PolicyError;

/// The layers, if they are laid out at all.
#[derive(Debug, Clone, Default)]
pub(super) struct PackedTrunk(Option<(Pixels, Arc<PackedImageLayers>)>);

impl PackedTrunk {
    /// `layers`, if there are such, over images of `pixels`.
    ///
    /// # Errors
    /// If a shape does not fit.
    pub(super) fn new(
        image: &Image,
        pixels: Pixels,
        layers: Option<Vec<ImageLayer<'_>>>,
    ) -> Result<Self, PolicyError> {
        let sizes = [image.height, image.width, image.channels];
        let packed = layers.map(|layers| PackedImageLayers::new(pixels, sizes, &layers)).transpose()?;
        Ok(Self(packed.map(|packed| (pixels, Arc::new(packed)))))
    }

    /// The layers for images of `pixels`, if there are such.
    pub(super) fn of(&self, pixels: Pixels) -> Option<&PackedImageLayers> {
        self.0.as_ref().filter(|(own, _)| *own == pixels).map(|(_, packed)| &**packed)
    }
}
