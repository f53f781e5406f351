//! Steps a second of one thread with copies that play at random.

use std::time::{Duration, Instant};

use super::stage::{Drawn, Reach, Stage};

/// Steps between two looks at the clock, with actions that were drawn before it was started.
const STRIDE: usize = 16;

/// Environment steps a second of all copies together, over at least `seconds`.
pub(super) fn measure(stage: &mut Stage, seconds: f64) -> Result<f64, String> {
    let copies = stage.copies();
    stage.reset()?;
    // Where actions may be illegal they are drawn when they are taken.
    let drawn: Vec<Drawn> = match stage.masks.is_empty() {
        true => (0..STRIDE).map(|_| stage.draw(Reach::Within)).collect(),
        false => vec![],
    };
    let mut stride = || match drawn.as_slice() {
        [] => (0..STRIDE).try_for_each(|_| stage.step(Reach::Within)),
        drawn => drawn.iter().try_for_each(|drawn| stage.take(drawn)),
    };
    stride()?;
    let (start, wanted) = (Instant::now(), Duration::from_secs_f64(seconds));
    let mut strides = 0;
    loop {
        stride()?;
        strides += 1;
        let taken = start.elapsed();
        if taken >= wanted {
            return Ok((strides * STRIDE * copies) as f64 / taken.as_secs_f64());
        }
    }
}
