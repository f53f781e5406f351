//! The run in Prometheus's text format, made when it is asked for: counts of that moment, and rates of the last [`Line`].
//!
//! Names follow Prometheus's rule: `impresario_<what>_<unit>`, `_total` for what only grows. docs/deploy.md lists them.

use std::fmt::{Display, Write};

use super::line::{Line, SystemView};

/// The media type of the format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The text for a run whose last interval was `line` and that looks like `view` now.
pub fn expose(line: Option<&Line>, view: &SystemView) -> String {
    let mut page = Page::default();
    let books = &view.accounting;
    page.counter("produced_steps_total", "Environment steps that actors have taken", books.produced);
    page.counter("trained_steps_total", "Environment steps that an update was made on", books.trained);
    page.family(
        "dropped_steps_total",
        "counter",
        "Environment steps that never will be trained on, by reason",
    );
    for (reason, steps) in &books.dropped {
        page.sample("dropped_steps_total", &[("reason", reason)], steps);
    }
    page.gauge("in_flight_steps", "Environment steps between environment and update", books.in_flight);
    page.gauge("queue_unrolls", "Unrolls that wait for the trainer", view.queue_unrolls);
    page.gauge("queue_bytes", "Bytes that wait for the trainer", view.queue_bytes);
    page.gauge("queue_capacity_bytes", "Bytes that may wait for the trainer", view.queue_capacity_bytes);
    page.gauge("actors_connected", "Actors connected", view.actors_connected);
    page.counter("actors_joined_total", "Actors that have joined", view.actors_joined);
    page.gauge("workers", "Rollout workers of the connected actors", view.workers);
    page.counter("weights_sent_bytes_total", "Bytes of weights sent to actors", view.weights_bytes_sent);
    page.counter(
        "unrolls_received_bytes_total",
        "Bytes of experience received from actors",
        view.unroll_bytes_received,
    );
    page.family("worker_seconds_total", "counter", "Time of all rollout workers, by what they did");
    let time = &view.worker_time;
    for (what, nanoseconds) in [
        ("inference", time.inference),
        ("environment", time.environment),
        ("waiting_grant", time.waiting_grant),
        ("waiting_uplink", time.waiting_uplink),
    ] {
        page.sample("worker_seconds_total", &[("what", what)], nanoseconds as f64 / 1e9);
    }
    if let Some(line) = line {
        page.line(line);
    }
    page.0
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, line: &Line) {
        self.counter("updates_total", "Updates applied: the policy's version", line.updates);
        self.counter(
            "skipped_updates_total",
            "Updates skipped for numbers that are not finite",
            line.skipped_updates,
        );
        self.counter("episodes_total", "Episodes that ended", line.episodes);
        self.gauge("training_seconds", "Time since the first actor joined", line.seconds);
        self.gauge("steps_per_second", "Environment steps trained on in a second", line.steps_per_second);
        self.gauge("updates_per_second", "Updates applied in a second", line.updates_per_second);
        self.maybe(
            "mean_return",
            "Mean return of the last 100 episodes, or of as many as there are",
            line.mean_return,
        );
        let lag = &line.policy_lag;
        self.family("policy_lag_updates", "gauge", "Policy lag of the steps trained on in the last interval");
        let lags = [
            ("mean", lag.mean),
            ("p50", lag.p50.map(|lag| lag as f64)),
            ("p99", lag.p99.map(|lag| lag as f64)),
            ("max", lag.max.map(|lag| lag as f64)),
        ];
        for (statistic, value) in lags {
            if let Some(value) = value {
                self.sample("policy_lag_updates", &[("statistic", statistic)], value);
            }
        }
        self.maybe(
            "learner_idle_ratio",
            "Share of its time that the trainer had no batch",
            line.learner.idle,
        );
        self.maybe("cores_busy_ratio", "Share of the machine's cores that was busy", line.learner.cores_busy);
        self.family("metric", "gauge", "The algorithm's and optimiser's diagnostics by name");
        for (name, value) in &line.metrics {
            if let Some(value) = value {
                self.sample("metric", &[("name", name)], value);
            }
        }
        self.family("verdict", "gauge", "What holds the run back: 1 for the verdict in force");
        // The name that it has in metrics.jsonl.
        let verdict = serde_json::to_value(line.verdict.bottleneck);
        let verdict = verdict.ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default();
        self.sample("verdict", &[("bottleneck", &verdict)], 1);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    fn maybe(&mut self, name: &str, help: &str, value: Option<f64>) {
        if let Some(value) = value {
            self.gauge(name, help, value);
        }
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP impresario_{name} {help}.\n# TYPE impresario_{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        // Reasons come from actors; their letters were checked, but here they must not break out in any case.
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels: Vec<_> =
            labels.iter().map(|(key, value)| format!("{key}=\"{}\"", quoted(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "impresario_{name}{labels} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::tests::example;
    use super::*;

    #[test]
    fn the_books_the_lag_and_the_verdict_are_told_in_prometheus_words() {
        let line = example();
        let mut view = SystemView { queue_bytes: 77, actors_connected: 2, ..SystemView::default() };
        view.accounting = line.accounting.clone();
        view.worker_time.environment = 1_500_000_000;
        let page = expose(Some(&line), &view);
        for expected in [
            "impresario_produced_steps_total 130000",
            "impresario_trained_steps_total 120320",
            "impresario_dropped_steps_total{reason=\"update_skipped\"} 640",
            "impresario_in_flight_steps 9040",
            "impresario_queue_bytes 77",
            "impresario_actors_connected 2",
            "impresario_worker_seconds_total{what=\"environment\"} 1.5",
            "impresario_updates_total 188",
            "impresario_steps_per_second 12320",
            "impresario_policy_lag_updates{statistic=\"p99\"} 3",
            "impresario_verdict{bottleneck=\"learner\"} 1",
            "impresario_metric{name=\"entropy\"} 0.612345",
        ] {
            assert!(page.lines().any(|line| line == expected), "{expected} is not in\n{page}");
        }
        assert!(!page.contains("explained_variance"), "what is not finite is left out:\n{page}");
        for sample in page.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = sample.rsplit_once(' ').unwrap();
            let family = name.split('{').next().unwrap();
            assert!(page.contains(&format!("# TYPE {family} ")), "{sample}");
            value.parse::<f64>().unwrap();
        }
    }

    #[test]
    fn before_the_first_interval_there_are_counts_and_labels_cannot_break_out() {
        let mut view = SystemView::default();
        view.accounting.dropped.insert("a\"} 1\nb".into(), 3);
        let page = expose(None, &view);
        assert!(page.contains("impresario_dropped_steps_total{reason=\"a\\\"} 1\\nb\"} 3\n"), "{page}");
        assert!(!page.contains("verdict"));
    }
}
