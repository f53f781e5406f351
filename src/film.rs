//! [`Film`]: pictures of an environment, written to an animated GIF one by one.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use gif::{Encoder, Frame, Repeat};
use impresario_actor::env::picture::Picture;

/// Seconds for which the last picture is seen before the film begins again.
const PAUSE: f64 = 1.0;

/// A GIF in the making. Memory holds one picture, however long the film.
pub(crate) struct Film {
    path: PathBuf,
    encoder: Option<Encoder<BufWriter<File>>>,
    size: [u16; 2],
    /// It is written when the next one comes, or the end.
    last: Option<Picture>,
    /// Seconds of the film so far, and hundredths of a second that its pictures have been given.
    seconds: f64,
    hundredths: u64,
    /// Pictures added.
    pictures: u64,
}

impl Film {
    /// A film that is to be written to `path`.
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.into(),
            encoder: None,
            size: [0; 2],
            last: None,
            seconds: 0.0,
            hundredths: 0,
            pictures: 0,
        }
    }

    /// Pictures added so far.
    pub(crate) fn pictures(&self) -> u64 {
        self.pictures
    }

    /// Adds a picture.
    pub(crate) fn add(&mut self, picture: Picture) -> anyhow::Result<()> {
        self.pictures += 1;
        if let Some(last) = self.last.replace(picture) {
            self.write(&last, last.seconds())?;
        }
        Ok(())
    }

    /// Ends the film.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        if let Some(last) = self.last.take() {
            self.write(&last, PAUSE)?;
        }
        let encoder = self.encoder.take().context("there was no picture to film")?;
        // The encoder's own end would swallow a full disk.
        let file = encoder.into_inner().with_context(|| self.trouble())?;
        file.into_inner().map_err(|e| e.into_error()).with_context(|| self.trouble())?;
        Ok(())
    }

    fn trouble(&self) -> String {
        format!("cannot write {}", self.path.display())
    }

    fn write(&mut self, picture: &Picture, seconds: f64) -> anyhow::Result<()> {
        let [width, height] = [picture.width(), picture.height()].map(u16::try_from);
        let size = [
            width.context("a picture is too wide for a GIF")?,
            height.context("a picture is too high for a GIF")?,
        ];
        if self.encoder.is_none() {
            let file = File::create(&self.path).with_context(|| self.trouble())?;
            let mut encoder =
                Encoder::new(BufWriter::new(file), size[0], size[1], &[]).with_context(|| self.trouble())?;
            encoder.set_repeat(Repeat::Infinite).with_context(|| self.trouble())?;
            (self.encoder, self.size) = (Some(encoder), size);
        }
        ensure!(size == self.size, "pictures of an episode differ in size: {:?} and {size:?}", self.size);
        // A GIF counts in hundredths of a second: what is rounded away now is given to later pictures.
        self.seconds += seconds;
        let until = (100.0 * self.seconds).round() as u64;
        // Programs that show a GIF take 0 and 1 for a mistake.
        let delay = (until.saturating_sub(self.hundredths)).max(2);
        self.hundredths += delay;
        let mut frame = Frame::from_rgb_speed(size[0], size[1], picture.pixels(), 10);
        frame.delay = delay.min(u64::from(u16::MAX)) as u16;
        let trouble = self.trouble();
        let encoder = self.encoder.as_mut().expect("it was made above");
        encoder.write_frame(&frame).context(trouble)
    }
}
