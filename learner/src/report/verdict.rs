//! [`verdict`]: where the time goes, and what to turn. A pure function of the evidence of one interval;
//! docs/concepts/bottleneck.md explains how to read it.

use serde::{Deserialize, Serialize};

/// A side that waits at least this share of its time is no bottleneck.
const SLACK: f64 = 0.30;
/// Two busy sides whose waiting differs by no more than this are balanced.
const ALIKE: f64 = 0.15;
/// Above this share of busy cores, more processes on the machine only take turns.
const SATURATED: f64 = 0.90;

/// What the verdict is given on.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// Actors connected now.
    pub actors_connected: u64,
    /// Actors that joined at any time.
    pub actors_joined: u64,
    /// Actors that must join before the run starts.
    pub actors_needed: u64,
    /// Updates of the whole run, skipped ones included.
    pub updates_total: u64,
    /// Share of its time that the trainer had no batch; absent where no update ended in the interval.
    pub learner_idle: Option<f64>,
    /// Shares of the rollout workers' time; absent where their counters did not move.
    pub workers: Option<WorkerShares>,
    /// Unrolls that wait for the trainer.
    pub queue_unrolls: u64,
    /// Bytes that wait for the trainer over the bytes that may.
    pub queue_fill: f64,
    /// The bound on policy lag in updates; `None` is no bound.
    pub max_policy_lag: Option<u64>,
    /// Share of the learner's machine's cores that was busy, whatever with; absent where it cannot be read.
    pub cores_busy: Option<f64>,
}

/// Where the rollout workers' time went; the four add up to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WorkerShares {
    /// Choosing actions.
    pub inference: f64,
    /// Stepping environments.
    pub environment: f64,
    /// Waiting for a permission to start an unroll, or for the weights that it asks for.
    pub waiting_grant: f64,
    /// Waiting for room in the uplink.
    pub waiting_uplink: f64,
}

/// What holds the run back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bottleneck {
    /// Nothing yet: no update has been made.
    Starting,
    /// There is nobody to act.
    NoActors,
    /// The learner's arithmetic.
    Learner,
    /// Acting.
    Actors,
    /// Both sides wait: actors may not run further ahead of the learner.
    PolicyLag,
    /// Both sides take turns, as lockstep has it.
    Lockstep,
    /// Both sides wait: experience does not get across fast enough.
    Uplink,
    /// Neither side waits much for the other.
    Balanced,
}

/// What holds the run back, and why that is believed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// For programs.
    pub bottleneck: Bottleneck,
    /// For people: name, evidence and what to do, in a few words.
    pub text: String,
}

/// Judges an interval.
pub fn verdict(evidence: &Evidence) -> Verdict {
    let (bottleneck, text) = before_training(evidence).unwrap_or_else(|| {
        let idle = learner_idle(evidence);
        match evidence.workers {
            Some(workers) => both_sides(evidence, idle, workers),
            None => learner_alone(evidence, idle),
        }
    });
    Verdict { bottleneck, text }
}

fn before_training(evidence: &Evidence) -> Option<(Bottleneck, String)> {
    let Evidence { actors_connected, actors_joined, actors_needed, .. } = *evidence;
    if actors_connected == 0 {
        let why = match actors_joined {
            0 => format!("waiting for {actors_needed} to join"),
            n => format!("all {n} that joined are gone"),
        };
        return Some((Bottleneck::NoActors, format!("no actors connected: {why}")));
    }
    (evidence.updates_total == 0).then(|| {
        let why = match actors_joined < actors_needed {
            true => format!("{actors_joined} of {actors_needed} actors have joined"),
            false => "no update yet".into(),
        };
        (Bottleneck::Starting, format!("starting: {why}"))
    })
}

/// An interval without an update is one long wait if nothing is queued, and one long update otherwise.
fn learner_idle(evidence: &Evidence) -> f64 {
    evidence.learner_idle.unwrap_or(if evidence.queue_unrolls == 0 { 1.0 } else { 0.0 })
}

fn both_sides(evidence: &Evidence, idle: f64, workers: WorkerShares) -> (Bottleneck, String) {
    let blocked = workers.waiting_grant + workers.waiting_uplink;
    if idle.min(blocked) >= SLACK {
        return pacing_bound(evidence, idle, workers);
    }
    if (idle - blocked).abs() <= ALIKE {
        let cores = match busy_cores(evidence) {
            Some(busy) => format!(", cores {} busy", percent(busy)),
            None => String::new(),
        };
        let text =
            format!("balanced: learner idle {}, actors blocked {}{cores}", percent(idle), percent(blocked));
        return (Bottleneck::Balanced, text);
    }
    if idle < blocked {
        let advice = match busy_cores(evidence) {
            Some(busy) => format!(", cores {} busy: fewer actors or more cores", percent(busy)),
            None => ": raise learner.threads".into(),
        };
        (Bottleneck::Learner, format!("learner-bound: actors blocked {}{advice}", percent(blocked)))
    } else {
        (Bottleneck::Actors, actor_bound(evidence, idle, workers.inference > workers.environment))
    }
}

/// Neither side is busy: what is between them holds both back.
fn pacing_bound(evidence: &Evidence, idle: f64, workers: WorkerShares) -> (Bottleneck, String) {
    let (idle, grant, uplink) =
        (percent(idle), percent(workers.waiting_grant), percent(workers.waiting_uplink));
    if workers.waiting_uplink > workers.waiting_grant {
        let text =
            format!("uplink-bound: actors wait {uplink} to send, learner idle {idle}: check the network");
        return (Bottleneck::Uplink, text);
    }
    match evidence.max_policy_lag {
        Some(0) => {
            (Bottleneck::Lockstep, format!("lockstep: actors wait {grant} for weights, learner idle {idle}"))
        }
        Some(_) => {
            let advice = "raise learner.max_policy_lag";
            let text = format!("lag-bound: actors wait {grant} for grants, learner idle {idle}: {advice}");
            (Bottleneck::PolicyLag, text)
        }
        // Without a bound on lag, grants are limited by the room for what they will bring.
        None => {
            let advice = "raise learner.queue_bytes";
            let text = format!("grant-bound: actors wait {grant} for grants, learner idle {idle}: {advice}");
            (Bottleneck::PolicyLag, text)
        }
    }
}

/// Actors are connected, and their counters stand still: the queue has to speak for them.
fn learner_alone(evidence: &Evidence, idle: f64) -> (Bottleneck, String) {
    let (busy, fill) = (percent(1.0 - idle), percent(evidence.queue_fill));
    if idle >= SLACK {
        (Bottleneck::Actors, actor_bound(evidence, idle, false))
    } else if evidence.queue_fill >= 0.5 {
        (Bottleneck::Learner, format!("learner-bound: learner busy {busy}, queue {fill} full"))
    } else {
        (Bottleneck::Balanced, format!("balanced: learner busy {busy}, queue {fill} full"))
    }
}

fn actor_bound(evidence: &Evidence, idle: f64, inference_dominates: bool) -> String {
    let idle = percent(idle);
    match (busy_cores(evidence), inference_dominates) {
        (Some(busy), _) => {
            let busy = percent(busy);
            format!("actor-bound: learner idle {idle}, cores {busy} busy: add actors on another machine")
        }
        (None, true) => format!("actor-bound: learner idle {idle}: add actors, or more copies to each"),
        (None, false) => format!("actor-bound: learner idle {idle}: add actors"),
    }
}

/// The share of busy cores, where so few are free that it matters.
fn busy_cores(evidence: &Evidence) -> Option<f64> {
    evidence.cores_busy.filter(|&busy| busy >= SATURATED)
}

fn percent(share: f64) -> String {
    format!("{:.0}%", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(idle: f64, grant: f64, uplink: f64) -> Evidence {
        let acting = 1.0 - grant - uplink;
        Evidence {
            actors_connected: 2,
            actors_joined: 2,
            actors_needed: 1,
            updates_total: 100,
            learner_idle: Some(idle),
            workers: Some(WorkerShares {
                inference: 0.4 * acting,
                environment: 0.6 * acting,
                waiting_grant: grant,
                waiting_uplink: uplink,
            }),
            queue_unrolls: 3,
            queue_fill: 0.01,
            max_policy_lag: Some(4),
            cores_busy: Some(0.5),
        }
    }

    #[track_caller]
    fn judged(evidence: Evidence, bottleneck: Bottleneck, text: &str) {
        let verdict = verdict(&evidence);
        assert_eq!((verdict.bottleneck, verdict.text.as_str()), (bottleneck, text));
        assert!(verdict.text.len() <= 90, "{} is long", verdict.text);
    }

    #[test]
    fn nobody_connected_says_whether_anybody_ever_was() {
        let nobody = Evidence { actors_connected: 0, actors_needed: 4, ..running(0.0, 0.0, 0.0) };
        judged(nobody.clone(), Bottleneck::NoActors, "no actors connected: all 2 that joined are gone");
        let never = Evidence { actors_joined: 0, ..nobody };
        judged(never, Bottleneck::NoActors, "no actors connected: waiting for 4 to join");
    }

    #[test]
    fn before_the_first_update_the_run_is_starting() {
        let start = Evidence { updates_total: 0, learner_idle: None, ..running(0.0, 0.9, 0.0) };
        judged(start.clone(), Bottleneck::Starting, "starting: no update yet");
        let short = Evidence { actors_needed: 3, ..start };
        judged(short, Bottleneck::Starting, "starting: 2 of 3 actors have joined");
    }

    #[test]
    fn a_busy_learner_with_blocked_actors_is_the_bottleneck_whatever_they_wait_for() {
        let text = "learner-bound: actors blocked 63%: raise learner.threads";
        judged(running(0.02, 0.10, 0.53), Bottleneck::Learner, text);
        judged(running(0.25, 0.63, 0.00), Bottleneck::Learner, text);
    }

    #[test]
    fn an_idle_learner_with_busy_actors_wants_actors() {
        judged(running(0.41, 0.02, 0.0), Bottleneck::Actors, "actor-bound: learner idle 41%: add actors");
        judged(running(0.20, 0.02, 0.0), Bottleneck::Actors, "actor-bound: learner idle 20%: add actors");
        let mut inference = running(0.41, 0.0, 0.0);
        inference.workers =
            Some(WorkerShares { inference: 0.8, environment: 0.2, waiting_grant: 0.0, waiting_uplink: 0.0 });
        let text = "actor-bound: learner idle 41%: add actors, or more copies to each";
        judged(inference, Bottleneck::Actors, text);
    }

    #[test]
    fn two_sides_that_wait_a_little_are_balanced() {
        let text = "balanced: learner idle 12%, actors blocked 9%";
        judged(running(0.12, 0.05, 0.04), Bottleneck::Balanced, text);
        let shared = Evidence { cores_busy: Some(0.98), ..running(0.12, 0.05, 0.04) };
        judged(shared, Bottleneck::Balanced, "balanced: learner idle 12%, actors blocked 9%, cores 98% busy");
    }

    #[test]
    fn two_idle_sides_are_held_back_by_what_is_between_them() {
        let text = "lag-bound: actors wait 70% for grants, learner idle 50%: raise learner.max_policy_lag";
        judged(running(0.50, 0.70, 0.0), Bottleneck::PolicyLag, text);
        let lockstep = Evidence { max_policy_lag: Some(0), ..running(0.50, 0.70, 0.0) };
        let text = "lockstep: actors wait 70% for weights, learner idle 50%";
        judged(lockstep, Bottleneck::Lockstep, text);
        let free = Evidence { max_policy_lag: None, ..running(0.50, 0.70, 0.0) };
        let text = "grant-bound: actors wait 70% for grants, learner idle 50%: raise learner.queue_bytes";
        judged(free, Bottleneck::PolicyLag, text);
        let text = "uplink-bound: actors wait 60% to send, learner idle 50%: check the network";
        judged(running(0.50, 0.10, 0.60), Bottleneck::Uplink, text);
    }

    #[test]
    fn on_a_machine_whose_cores_are_all_busy_more_processes_are_no_cure() {
        let busy = |evidence| Evidence { cores_busy: Some(0.97), ..evidence };
        let text = "actor-bound: learner idle 41%, cores 97% busy: add actors on another machine";
        judged(busy(running(0.41, 0.0, 0.0)), Bottleneck::Actors, text);
        let text = "learner-bound: actors blocked 63%, cores 97% busy: fewer actors or more cores";
        judged(busy(running(0.02, 0.63, 0.0)), Bottleneck::Learner, text);
    }

    #[test]
    fn an_interval_without_an_update_is_judged_by_the_queue() {
        let long_update = Evidence { learner_idle: None, ..running(0.0, 0.0, 0.9) };
        assert_eq!(verdict(&long_update).bottleneck, Bottleneck::Learner);
        let starved = Evidence { learner_idle: None, queue_unrolls: 0, ..running(0.0, 0.0, 0.0) };
        judged(starved, Bottleneck::Actors, "actor-bound: learner idle 100%: add actors");
    }

    #[test]
    fn silent_actors_are_judged_by_the_queue() {
        let silent = |idle, queue_fill| Evidence { workers: None, queue_fill, ..running(idle, 0.0, 0.0) };
        judged(silent(0.05, 0.8), Bottleneck::Learner, "learner-bound: learner busy 95%, queue 80% full");
        judged(silent(0.05, 0.1), Bottleneck::Balanced, "balanced: learner busy 95%, queue 10% full");
        judged(silent(0.80, 0.0), Bottleneck::Actors, "actor-bound: learner idle 80%: add actors");
    }
}
