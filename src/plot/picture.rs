//! The picture's file: SVG or PNG, by its extension.
//!
//! No font or library of the system is needed. The DejaVu font is part of this program: PNG is drawn with it, SVG is
//! laid out with it and shown by the viewer's own sans-serif font.

use std::path::Path;

use anyhow::{Context, anyhow};
use plotters::backend::{BitMapBackend, SVGBackend};
use plotters::style::{FontStyle, register_font};

use super::draw::{self, Axes, FONT, Panel};

/// Pixels of a PNG for each of the SVG's, along each axis.
const PNG_SCALE: u32 = 2;

/// Kinds of picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Scalable Vector Graphics.
    Svg,
    /// Portable Network Graphics.
    Png,
}

impl Format {
    /// The kind that the extension of `path` names.
    pub(super) fn of(path: &Path) -> Result<Self, String> {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        match extension.as_str() {
            "svg" => Ok(Self::Svg),
            "png" => Ok(Self::Png),
            _ => Err(format!(
                "cannot tell from {:?} what kind of picture to write: it must end in .svg or .png",
                path.display()
            )),
        }
    }
}

/// Draws `panels` into a file at `path`.
///
/// # Errors
/// If it cannot be written.
pub(super) fn write(path: &Path, format: Format, panels: &[Panel], axes: &Axes) -> anyhow::Result<()> {
    register_font(FONT, FontStyle::Normal, dejavu::sans::regular())
        .map_err(|_| anyhow!("the built-in font cannot be read"))?;
    let size = draw::size(panels.len());
    let bytes = match format {
        Format::Svg => {
            let mut text = String::new();
            draw::draw(SVGBackend::with_string(&mut text, size), panels, axes, 1)?;
            text.into_bytes()
        }
        Format::Png => png(size, panels, axes)?,
    };
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

fn png((width, height): (u32, u32), panels: &[Panel], axes: &Axes) -> anyhow::Result<Vec<u8>> {
    let (width, height) = (PNG_SCALE * width, PNG_SCALE * height);
    let mut pixels = vec![255; 3 * width as usize * height as usize];
    let surface = BitMapBackend::with_buffer(&mut pixels, (width, height));
    draw::draw(surface, panels, axes, PNG_SCALE).map_err(|error| anyhow!("cannot draw: {error}"))?;
    let mut bytes = vec![];
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(&pixels)?;
    Ok(bytes)
}
