//! Which encoder observations get: what the configuration says, and where it says `"auto"`, what their space suggests.
//!
//! | observation | encoder |
//! | --- | --- |
//! | an image of at least 36 x 36 pixels | `"nature"` |
//! | a smaller image | `"minatar"` |
//! | anything else | `"mlp"` |
//!
//! See [`image`](super::image) for what counts as an image.

use super::convolutional::{ConvolutionalSpec, LayerSize};
use super::residual::{self, ResidualSpec};
use super::{EncoderSpec, Image, MlpSpec, Picture, TrunkSpec};
use crate::config::{self, EncoderKind, PolicySection, Sizes};
use crate::kernels::Activation;
use crate::policy::error::PolicyError;
use crate::policy::input::byte_scale;
use crate::space::Space;

/// Pixels either way that the layers of `"nature"` need.
const LEAST_OF_NATURE: usize = 36;

impl EncoderSpec {
    /// The encoder of observations from `space` that `section` asks for.
    ///
    /// # Errors
    /// If such observations cannot have it.
    pub fn new(space: &Space, section: &PolicySection) -> Result<Self, PolicyError> {
        let image = Image::of(space, section.image_layout);
        let kind = chosen(space, section.encoder, image.as_ref());
        let activation = activation(section, kind);
        let picture = || match image {
            Some(image) => Ok(Picture { image, byte_scale: byte_scale(space) as f32 }),
            None => Err(PolicyError::Space(format!(
                "observations {space}: policy.encoder = \"{kind}\" looks at images, which have two or three dimensions; \
                 set it to \"mlp\" or \"auto\""
            ))),
        };
        let trunk = match usual_layers(kind) {
            Some(usual) => {
                let (picture, sizes) = (picture()?, layer_sizes(section, usual)?);
                let spec = ConvolutionalSpec::new(&picture.image, &sizes, activation, section.layer_norm)?;
                TrunkSpec::Convolutional(spec, picture)
            }
            None if kind == EncoderKind::Residual => {
                refuse_sizes(kind, &[("kernels", &section.kernels), ("strides", &section.strides)])?;
                let (picture, channels) = (picture()?, section.channels.or(&residual::CHANNELS));
                let spec = ResidualSpec::new(&picture.image, &channels, activation, section.layer_norm);
                TrunkSpec::Residual(spec, picture)
            }
            None => {
                let sizes = [
                    ("channels", &section.channels),
                    ("kernels", &section.kernels),
                    ("strides", &section.strides),
                ];
                refuse_sizes(kind, &sizes)?;
                TrunkSpec::None(space.flat_len())
            }
        };
        let usual: &[usize] = match kind {
            EncoderKind::Nature => &[512],
            EncoderKind::Minatar => &[128],
            EncoderKind::Residual => &[256],
            EncoderKind::Mlp | EncoderKind::Auto => &[64, 64],
        };
        let hidden = MlpSpec {
            inputs: trunk.outputs(),
            widths: section.hidden.or(usual),
            activation,
            layer_norm: section.layer_norm,
        };
        Ok(Self { kind, trunk, hidden })
    }
}

/// The encoder that is meant: never `"auto"`.
fn chosen(space: &Space, kind: EncoderKind, image: Option<&Image>) -> EncoderKind {
    match (kind, image) {
        (EncoderKind::Auto, Some(image)) if image.is_likely(space) => {
            match image.height.min(image.width) >= LEAST_OF_NATURE {
                true => EncoderKind::Nature,
                false => EncoderKind::Minatar,
            }
        }
        (EncoderKind::Auto, _) => EncoderKind::Mlp,
        (kind, _) => kind,
    }
}

/// What hidden layers apply: without a choice, what the encoder's authors took.
fn activation(section: &PolicySection, kind: EncoderKind) -> Activation {
    match (section.activation, kind) {
        (config::Activation::Tanh, _) | (config::Activation::Auto, EncoderKind::Mlp) => Activation::Tanh,
        (config::Activation::Relu | config::Activation::Auto, _) => Activation::Relu,
    }
}

/// The layers of a convolutional encoder, as its authors sized them.
fn usual_layers(kind: EncoderKind) -> Option<&'static [LayerSize]> {
    match kind {
        EncoderKind::Nature => Some(&LayerSize::NATURE),
        EncoderKind::Minatar => Some(&LayerSize::MINATAR),
        EncoderKind::Auto | EncoderKind::Mlp | EncoderKind::Residual => None,
    }
}

/// The layers' sizes, `usual` where the configuration leaves them open.
fn layer_sizes(section: &PolicySection, usual: &[LayerSize]) -> Result<Vec<LayerSize>, PolicyError> {
    let usual = |of: fn(&LayerSize) -> usize| usual.iter().map(of).collect::<Vec<_>>();
    let channels = section.channels.or(&usual(|layer| layer.channels));
    let kernels = section.kernels.or(&usual(|layer| layer.kernel));
    let strides = section.strides.or(&usual(|layer| layer.stride));
    if channels.len() != kernels.len() || channels.len() != strides.len() {
        return Err(PolicyError::Space(format!(
            "{} layers of convolutions: policy.channels = {channels:?}, policy.kernels = {kernels:?} and \
             policy.strides = {strides:?} must have a number for each layer",
            channels.len()
        )));
    }
    let layers = channels.into_iter().zip(kernels).zip(strides);
    Ok(layers.map(|((channels, kernel), stride)| LayerSize { channels, kernel, stride }).collect())
}

/// Refuses sizes that the encoder has no use for.
fn refuse_sizes(kind: EncoderKind, sizes: &[(&str, &Sizes)]) -> Result<(), PolicyError> {
    match sizes.iter().find(|(_, sizes)| **sizes != Sizes::Auto) {
        None => Ok(()),
        Some((key, _)) => Err(PolicyError::Space(format!(
            "policy.{key} with policy.encoder = \"{kind}\", which has no such sizes; set policy.encoder to \"nature\" or \
             \"minatar\", or leave policy.{key} at \"auto\""
        ))),
    }
}

#[cfg(test)]
mod tests;
