//! What the network's first layer sees of an observation.
//!
//! | observation | what the first layer sees |
//! | --- | --- |
//! | real numbers | the numbers, normalised if the configuration asks for it |
//! | bytes | each divided by the largest byte of its space: pixels by 255, flags by 1 |
//! | images | the same, pixels where they are; bytes stay bytes until the first convolution |
//! | choices | one-hot codes, side by side |

use candle_core::{DType, Device, Tensor};

use super::encoder::Image;
use super::error::PolicyError;
use super::normalizer::Normalizer;
use crate::kernels::PixelOrder;
use crate::space::Space;

/// The way from observations of a space to the first layer's input.
#[derive(Debug, Clone)]
pub(super) struct Input {
    observation: Space,
    /// The image that the encoder looks at, if it does look at one.
    image: Option<Image>,
    normalizer: Option<Normalizer>,
    scale: f64,
    /// Where the network is.
    device: Device,
}

/// What bytes from `space` are multiplied by: 1 through the largest one.
pub(super) fn byte_scale(space: &Space) -> f64 {
    1.0 / f64::from(space.unit())
}

impl Input {
    /// The way from observations of `observation` to a network on `device`, through `normalizer` if there is one.
    pub(super) fn new(
        observation: &Space,
        image: Option<&Image>,
        normalizer: Option<Normalizer>,
        device: &Device,
    ) -> Self {
        let (observation, scale) = (observation.clone(), byte_scale(observation));
        Self { observation, image: image.copied(), normalizer, scale, device: device.clone() }
    }

    /// Where the network is.
    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    /// What the first layer sees of `observations`, `[N, ...]`: `[N, I]` numbers, or images: bytes as they lie, real numbers
    /// `[N, H, W, C]`.
    ///
    /// # Errors
    /// If the observations do not fit the space.
    pub(super) fn of(&self, observations: &Tensor) -> Result<Tensor, PolicyError> {
        if !matches!(self.observation, Space::Box { .. }) {
            return Ok(one_hot(observations, self.observation.choices())?.to_device(&self.device)?);
        }
        let images = observations.dim(0)?;
        let input = observations.flatten_from(1)?;
        let input = match &self.normalizer {
            Some(normalizer) => normalizer.apply(&input)?,
            None => input,
        };
        // Bytes take a quarter of the way that numbers would.
        let input = input.to_device(&self.device)?;
        let bytes = input.dtype() == DType::U8;
        let Some(image) = &self.image else {
            return if bytes { Ok((input.to_dtype(DType::F32)? * self.scale)?) } else { Ok(input) };
        };
        let input = input.reshape(image.shape(images).as_slice())?;
        match image.order {
            PixelOrder::Planar if !bytes => Ok(input.permute((0, 2, 3, 1))?.contiguous()?),
            _ => Ok(input),
        }
    }
}

/// Observations of choices, `[N]` or `[N, k]`, as rows of one-hot codes: choice `i` of an observation is a single 1 among
/// `nvec[i]` numbers, and the codes of its `k` choices stand one after another.
fn one_hot(choices: &Tensor, nvec: &[u32]) -> Result<Tensor, PolicyError> {
    let choices = choices.flatten_all()?.to_dtype(DType::I64)?.to_vec1::<i64>()?;
    let width: usize = nvec.iter().map(|&n| n as usize).sum();
    let rows = choices.len() / nvec.len().max(1);
    let mut codes = vec![0f32; rows * width];
    let mut rest = codes.as_mut_slice();
    for (choice, &n) in choices.iter().zip(nvec.iter().cycle()) {
        let (code, after) = rest.split_at_mut(n as usize);
        let cell = usize::try_from(*choice).ok().and_then(|choice| code.get_mut(choice));
        *cell
            .ok_or_else(|| PolicyError::Space(format!("observation {choice}, one of {n} alternatives")))? =
            1.0;
        rest = after;
    }
    Ok(Tensor::from_vec(codes, (rows, width), &Device::Cpu)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ImageLayout;
    use crate::space::ElementType;

    #[test]
    fn observations_of_choices_enter_as_one_hot_codes_side_by_side() {
        let choices = Tensor::from_vec(vec![1i32, 2, 0, 0], (2, 2), &Device::Cpu).unwrap();
        let codes = one_hot(&choices, &[2, 3]).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(codes, [[0.0, 1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0, 0.0]]);
        let single = Tensor::from_vec(vec![2i32, 0], 2, &Device::Cpu).unwrap();
        assert_eq!(
            one_hot(&single, &[3]).unwrap().to_vec2::<f32>().unwrap(),
            [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
        );
        for outside in [3i32, -1] {
            let choices = Tensor::from_vec(vec![1, outside], (1, 2), &Device::Cpu).unwrap();
            let error = one_hot(&choices, &[2, 3]).unwrap_err().to_string();
            assert!(error.contains(&format!("observation {outside}, one of 3 alternatives")), "{error}");
        }
    }

    #[test]
    fn bytes_are_seen_by_the_largest_of_their_space() {
        let bytes = Tensor::from_vec(vec![0u8, 1, 51, 255], (1, 4), &Device::Cpu).unwrap();
        let seen = |largest: f32| {
            let space = Space::Box {
                low: vec![0.0; 4],
                high: vec![largest; 4],
                shape: vec![4],
                dtype: ElementType::U8,
            };
            Input::new(&space, None, None, &Device::Cpu)
                .of(&bytes)
                .unwrap()
                .to_vec2::<f32>()
                .unwrap()
                .remove(0)
        };
        for (seen, expected) in seen(255.0).iter().zip([0.0, 1.0 / 255.0, 0.2, 1.0]) {
            assert!((seen - expected).abs() < 1e-6, "{seen} {expected}");
        }
        assert_eq!(seen(1.0), [0.0, 1.0, 51.0, 255.0], "flags stay what they are");
        assert_eq!(seen(f32::INFINITY), seen(255.0));
        assert_eq!(seen(0.0)[3], 255.0);
    }

    #[test]
    fn images_keep_their_bytes_and_numbers_get_their_channels_last() {
        let bytes = Tensor::from_vec((0..24u8).collect(), (2, 2, 2, 3), &Device::Cpu).unwrap();
        let space =
            |dtype| Space::Box { low: vec![0.0; 12], high: vec![255.0; 12], shape: vec![2, 2, 3], dtype };
        for layout in [ImageLayout::ChannelsFirst, ImageLayout::ChannelsLast] {
            let image = Image::of(&space(ElementType::U8), layout).unwrap();
            let seen =
                Input::new(&space(ElementType::U8), Some(&image), None, &Device::Cpu).of(&bytes).unwrap();
            assert_eq!((seen.dtype(), seen.dims()), (DType::U8, &[2, 2, 2, 3][..]));
            let numbers = bytes.to_dtype(DType::F32).unwrap();
            let seen =
                Input::new(&space(ElementType::F32), Some(&image), None, &Device::Cpu).of(&numbers).unwrap();
            let seen = seen.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            match layout {
                ImageLayout::ChannelsFirst => assert_eq!(seen[..4], [0.0, 6.0, 1.0, 7.0]),
                _ => assert_eq!(seen[..4], [0.0, 1.0, 2.0, 3.0]),
            }
        }
    }
}
