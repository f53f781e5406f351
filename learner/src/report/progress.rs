//! [`Progress`]: a live bar on the terminal, and a way for log lines to appear above it.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::line::Line;

/// A progress bar on standard error, whose position is the environment steps trained on. Made before the log
/// is set up, shown from [`Self::begin`] on; copies share one bar. Where standard error is no terminal it
/// stays invisible, and logs pass as they are.
#[derive(Debug, Clone)]
pub struct Progress {
    bar: ProgressBar,
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// A bar that is not shown yet.
    pub fn new() -> Self {
        Self { bar: ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()) }
    }

    /// [`Self::new`], if standard error is a terminal. A log meant for programs wants none.
    pub fn on_terminal() -> Option<Self> {
        io::stderr().is_terminal().then(Self::new)
    }

    /// Shows the bar, if standard error is a terminal. The run trains on `steps` environment steps at most.
    pub fn begin(&self, steps: u64) {
        let template = "{bar:24} {human_pos}/{human_len} steps [{elapsed}] {wide_msg}";
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        self.bar.set_style(style);
        self.bar.set_length(steps);
        if io::stderr().is_terminal() {
            self.bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(5));
        }
    }

    /// Whether the bar can be seen.
    pub fn is_visible(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// Moves the bar to `line`.
    pub fn show(&self, line: &Line) {
        self.bar.set_position(line.env_steps);
        self.bar.set_message(message(line));
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// What `tracing_subscriber`'s `with_writer` takes: log lines go to standard error, above the bar.
    pub fn writer(&self) -> impl Fn() -> ProgressWriter + Clone + Send + Sync + use<> {
        let bar = self.bar.clone();
        move || ProgressWriter { bar: bar.clone() }
    }
}

fn message(line: &Line) -> Cow<'static, str> {
    let mean_return = match (line.mean_return, line.mean_return_100) {
        (None, _) => "no episode yet".into(),
        (Some(mean), Some(_)) => format!("return {mean:.1}"),
        (Some(mean), None) => format!("return {mean:.1} ({} episodes)", line.mean_return_episodes),
    };
    format!("{mean_return}, {:.0} steps/s, {}", line.steps_per_second, line.verdict.text).into()
}

/// Writes to standard error without tearing the bar.
#[derive(Debug)]
pub struct ProgressWriter {
    bar: ProgressBar,
}

impl Write for ProgressWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bar.suspend(|| io::stderr().write(bytes))
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bar.suspend(|| io::stderr().write_all(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::tests::example;
    use super::*;

    #[test]
    fn the_bar_stands_at_the_steps_trained_on() {
        let progress = Progress::new();
        assert!(!progress.is_visible());
        progress.begin(500_000);
        progress.clone().show(&example());
        assert_eq!((progress.bar.position(), progress.bar.length()), (120_320, Some(500_000)));
        progress.finish();
    }

    #[test]
    fn the_message_says_over_how_many_episodes_the_return_is_taken() {
        let line = example();
        let tail = format!(", 12320 steps/s, {}", line.verdict.text);
        assert_eq!(message(&line), format!("return 187.2{tail}"));
        let few = Line { mean_return_100: None, mean_return_episodes: 12, ..line };
        assert_eq!(message(&few), format!("return 187.2 (12 episodes){tail}"));
        let none = Line { mean_return: None, ..few };
        assert_eq!(message(&none), format!("no episode yet{tail}"));
    }

    #[test]
    fn writers_are_made_for_any_thread() {
        let make = Progress::new().writer();
        std::thread::spawn(move || make().write_all(b"").unwrap()).join().unwrap();
    }
}
