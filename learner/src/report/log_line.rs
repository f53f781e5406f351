//! The line that a run writes to its log once an interval: the verdict as message, numbers as fields.

use super::line::Line;

/// Logs `line`. Numbers are rounded for reading; `metrics.jsonl` holds them in full.
pub(super) fn log(line: &Line) {
    let metric = |name: &str| line.metrics.get(name).copied().flatten().map(rounded);
    let partial = line.mean_return_100.is_none().then_some(line.mean_return_episodes);
    tracing::info!(
        target: "impresario_learner::report",
        steps = line.env_steps,
        steps_s = line.steps_per_second.round() as u64,
        updates_s = rounded(line.updates_per_second),
        "return" = line.mean_return.map(|mean| (10.0 * mean).round() / 10.0),
        of = partial,
        episodes = line.episodes,
        actors = line.actors.connected,
        lag = line.policy_lag.mean.map(rounded),
        lag_p99 = line.policy_lag.p99,
        queue = line.queue.unrolls,
        queue_kb = line.queue.bytes / 1000,
        loss = metric("loss"),
        policy_loss = metric("policy_loss"),
        value_loss = metric("value_loss"),
        entropy = metric("entropy"),
        grad_norm = metric("grad_norm"),
        skipped = (line.skipped_updates > 0).then_some(line.skipped_updates),
        "{}",
        line.verdict.text
    );
}

/// `value` to three significant digits.
fn rounded(value: f64) -> f64 {
    format!("{value:.2e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use std::fmt::{Debug, Write};
    use std::sync::{Arc, Mutex};

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    use super::super::line::tests::example;
    use super::*;

    /// Writes events as `message key=value ...`.
    #[derive(Clone, Default)]
    struct Terminal(Arc<Mutex<String>>);

    impl Terminal {
        fn text(&self) -> String {
            self.0.lock().unwrap().clone()
        }
    }

    impl Subscriber for Terminal {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, event: &Event<'_>) {
            event.record(&mut Fields(&mut self.0.lock().unwrap()));
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    struct Fields<'a>(&'a mut String);

    impl Visit for Fields<'_> {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            match field.name() {
                "message" => write!(self.0, "{value:?}").unwrap(),
                name => write!(self.0, " {name}={value:?}").unwrap(),
            }
        }
    }

    fn logged(line: &Line) -> String {
        let terminal = Terminal::default();
        tracing::subscriber::with_default(terminal.clone(), || log(line));
        terminal.text()
    }

    #[test]
    fn the_line_says_everything_in_little_room() {
        let text = logged(&example());
        let expected = "learner-bound: actors blocked 62%: raise learner.threads steps=120320 \
            steps_s=12320 updates_s=19.0 return=187.3 episodes=1204 actors=2 lag=1.25 lag_p99=3 queue=12 \
            queue_kb=1234 policy_loss=-0.0123 value_loss=12.3 entropy=0.612 grad_norm=0.512 skipped=1";
        assert_eq!(text, expected);
        assert!(text.len() <= 255, "{} characters", text.len());
    }

    #[test]
    fn a_mean_over_fewer_than_a_hundred_episodes_says_how_many() {
        let few = Line { mean_return_100: None, mean_return_episodes: 12, ..example() };
        assert!(logged(&few).contains(" return=187.3 of=12 "));
    }

    #[test]
    fn numbers_are_rounded_to_three_digits() {
        assert_eq!([rounded(187.26), rounded(-0.012_345_6), rounded(0.0)], [187.0, -0.0123, 0.0]);
        assert!(rounded(f64::NAN).is_nan());
    }
}
