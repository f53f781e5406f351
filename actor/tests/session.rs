//! An actor's life with a learner that does what the tests tell it, over real sockets.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use candle_core::{Device, Tensor};
use impresario_actor::{ActorError, ActorOptions};
use impresario_common::config::{DoubleBuffering, RunConfig};
use impresario_common::policy::{PolicySpec, Snapshot, Weights};
use impresario_common::unroll::{Array, Unroll, UnrollLayout};
use impresario_common::wire::v1;
use prost::Message;

use support::environment::{self, Mischief};
use support::learner::{ScriptedLearner, Seen, chunks, refusal};
use support::{Actor, COPIES, LENGTH, config};

/// Environment steps of one unroll.
const STEPS: u64 = (LENGTH * COPIES) as u64;

fn policy(config: &RunConfig) -> PolicySpec {
    PolicySpec::new(environment::registry().spec(environment::ID).unwrap(), &config.policy).unwrap()
}

fn snapshot(version: u64) -> Snapshot {
    Snapshot { version, weights: policy(&config()).initialise(1).unwrap() }
}

/// Weights that choose action `version % 2`, whatever they see.
fn decided(version: u64) -> Snapshot {
    let mut snapshot = snapshot(version);
    let logits = if version.is_multiple_of(2) { [50f32, -50.0] } else { [-50.0, 50.0] };
    for (name, tensor) in &mut snapshot.weights.0 {
        if name == "policy.bias" {
            *tensor = Tensor::new(&logits, &Device::Cpu).unwrap();
        }
    }
    snapshot
}

/// A learner with weights, and an actor that has opened its stream.
async fn together(config: &RunConfig) -> (ScriptedLearner, Actor) {
    let learner = ScriptedLearner::start(config).await;
    learner.publish(chunks(&snapshot(0)));
    let actor = Actor::start(ActorOptions::new(&learner.url), environment::registry());
    learner.until("the actor opens its stream", |seen| seen.streams == 1).await;
    (learner, actor)
}

fn decoded(message: &v1::Unroll, copies: usize) -> Unroll {
    let layout = UnrollLayout::new(LENGTH, environment::registry().spec(environment::ID).unwrap());
    Unroll::from_wire(message.clone(), &layout, copies).unwrap()
}

fn dropped(progress: &v1::Progress) -> u64 {
    progress.dropped_steps.values().sum()
}

#[tokio::test]
async fn unrolls_come_in_order_without_gaps_and_the_books_balance_at_the_end() {
    let (learner, actor) = together(&config()).await;
    learner.grant(0, 10, 0).await;
    learner.until("ten unrolls come", |seen| seen.unrolls.len() == 10).await;
    learner.seen(|seen| {
        for (index, (_, message)) in seen.unrolls.iter().enumerate() {
            let unroll = decoded(message, COPIES);
            assert_eq!((message.sequence, unroll.grant), (index as u64, index as u64));
            let produced = message.progress.as_ref().unwrap().produced_steps;
            assert!(produced >= (index as u64 + 1) * STEPS);
        }
        let join = &seen.joins[0];
        assert_eq!((join.workers, join.copies_per_worker, &join.identity), (1, COPIES as u32, &None));
        assert_eq!(join.environment.as_ref().unwrap().id, environment::ID);
    });
    learner.finish().await;
    let summary = actor.ended().await.unwrap();
    assert_eq!((summary.produced_steps, summary.acknowledged_steps), (10 * STEPS, 10 * STEPS));
    learner.seen(|seen| {
        assert_eq!(seen.goodbyes.len(), 1);
        assert_eq!((seen.goodbyes[0].produced_steps, dropped(&seen.goodbyes[0])), (10 * STEPS, 0));
    });
}

#[tokio::test]
async fn two_groups_of_copies_are_two_workers_with_unrolls_of_their_own_and_step_at_once() {
    let mut config = config();
    config.environment.id = "Meeting-v0".into();
    config.rollout.double_buffering = DoubleBuffering::On;
    let learner = ScriptedLearner::start(&config).await;
    learner.publish(chunks(&snapshot(0)));
    let actor = Actor::start(ActorOptions::new(&learner.url), environment::meeting(COPIES));
    learner.until("the actor opens its stream", |seen| seen.streams == 1).await;
    learner.grant(0, 10, 0).await;
    // In one group the first copy would wait for the second one for ever.
    learner.until("ten unrolls come", |seen| seen.unrolls.len() == 10).await;
    let steps = LENGTH as u64;
    learner.seen(|seen| {
        let join = &seen.joins[0];
        assert_eq!((join.workers, join.copies_per_worker), (COPIES as u32, 1));
        let mut grants: Vec<_> = seen.unrolls.iter().map(|(_, unroll)| unroll.grant).collect();
        grants.sort_unstable();
        assert_eq!(grants, (0..10).collect::<Vec<_>>());
        seen.unrolls.iter().for_each(|(_, unroll)| assert_eq!(decoded(unroll, 1).steps() as u64, steps));
    });
    learner.finish().await;
    let summary = actor.ended().await.unwrap();
    assert_eq!((summary.produced_steps, summary.acknowledged_steps), (10 * steps, 10 * steps));
}

#[tokio::test]
async fn at_the_end_of_the_run_what_was_not_acknowledged_is_dropped_by_name() {
    let (learner, actor) = together(&config()).await;
    learner.withhold_acknowledgements();
    learner.grant(0, u64::MAX, 0).await;
    learner.until("five unrolls come", |seen| seen.unrolls.len() >= 5).await;
    learner.acknowledge(3).await;
    learner.finish().await;
    let summary = actor.ended().await.unwrap();
    assert_eq!(summary.acknowledged_steps, 3 * STEPS);
    learner.seen(|seen| {
        let last = &seen.goodbyes[0];
        assert_eq!(last.produced_steps, 3 * STEPS + dropped(last));
        assert!(last.dropped_steps["unsent"] >= 2 * STEPS, "{last:?}");
        assert!(last.dropped_steps.keys().all(|reason| reason == "unsent" || reason == "partial_unroll"));
        assert_eq!(summary.produced_steps, last.produced_steps);
    });
}

#[tokio::test]
async fn an_actor_that_is_told_to_stop_delivers_what_is_finished() {
    let (learner, actor) = together(&config()).await;
    learner.grant(0, u64::MAX, 0).await;
    learner.until("five unrolls come", |seen| seen.unrolls.len() >= 5).await;
    let summary = actor.stop().await.unwrap();
    learner.seen(|seen| {
        let last = &seen.goodbyes[0];
        assert_eq!(last.produced_steps, seen.unrolls.len() as u64 * STEPS + dropped(last));
        assert!(last.dropped_steps.keys().all(|reason| reason == "partial_unroll"), "{last:?}");
        assert_eq!(summary.acknowledged_steps, seen.unrolls.len() as u64 * STEPS);
    });
}

#[tokio::test]
async fn without_acknowledgements_environments_stand_still_at_the_byte_bound() {
    let mut config = config();
    config.rollout.uplink_bytes = 2000;
    let (learner, actor) = together(&config).await;
    learner.withhold_acknowledgements();
    learner.grant(0, u64::MAX, 0).await;
    // Two signs of life that both tell of waiting: nothing moves, and time passes.
    let waiting = |progress: &v1::Progress| progress.worker_time.as_ref().unwrap().waiting_uplink;
    learner
        .until("the worker waits for the uplink", |seen| {
            let mut stuck = seen.progress.iter().filter(|p| waiting(p) > 0);
            stuck.next().is_some_and(|first| stuck.any(|later| waiting(later) > waiting(first)))
        })
        .await;
    let stuck_at = learner.seen(|seen| {
        let stuck: Vec<_> = seen.progress.iter().filter(|p| waiting(p) > 0).collect();
        assert!(stuck.iter().all(|p| p.produced_steps == stuck[0].produced_steps));
        let held: usize = seen
            .unrolls
            .iter()
            .map(|(_, unroll)| v1::Unroll { progress: None, ..unroll.clone() }.encoded_len())
            .sum();
        assert!(held <= 2000, "{held} bytes were held");
        // One more is finished, and waits in its worker's hands.
        assert_eq!(stuck[0].produced_steps, (seen.unrolls.len() as u64 + 1) * STEPS);
        stuck[0].produced_steps
    });
    let count = learner.seen(|seen| seen.unrolls.len());
    learner.acknowledge(1).await;
    learner.until("room makes it go on", |seen| seen.unrolls.len() > count).await;
    learner
        .until("more is produced", |seen| {
            seen.progress.last().is_some_and(|p| p.produced_steps > stuck_at)
                || seen
                    .unrolls
                    .last()
                    .is_some_and(|(_, u)| u.progress.as_ref().is_some_and(|p| p.produced_steps >= stuck_at))
        })
        .await;
    learner.finish().await;
    actor.ended().await.unwrap();
}

#[tokio::test]
async fn after_a_break_the_stream_goes_on_where_the_learner_wants_it_and_grants_are_used_once() {
    let (learner, actor) = together(&config()).await;
    learner.withhold_acknowledgements();
    learner.grant(0, 5, 0).await;
    learner.until("five unrolls come", |seen| seen.unrolls.len() == 5).await;
    learner.acknowledge(3).await;
    learner.cut().await;
    learner.until("the actor comes back", |seen| seen.streams == 2).await;
    // As a learner does that does not know which grants arrived.
    learner.grant(3, 6, 0).await;
    learner.until("the rest comes", |seen| seen.unrolls.len() == 8).await;
    learner.seen(|seen| {
        let second: Vec<_> = seen.unrolls.iter().filter(|(stream, _)| *stream == 2).collect();
        assert_eq!(second.iter().map(|(_, u)| u.sequence).collect::<Vec<_>>(), [3, 4, 5]);
        assert_eq!(second.iter().map(|(_, u)| u.grant).collect::<Vec<_>>(), [3, 4, 5]);
        // What is sent again is what was sent before.
        for (before, again) in seen.unrolls[3..5].iter().zip(&second) {
            assert_eq!(decoded(&before.1, COPIES), decoded(&again.1, COPIES));
        }
        assert_eq!(seen.joins.len(), 2);
        let identity = seen.joins[1].identity.as_ref().expect("it joins with the identity it holds");
        assert_eq!(identity.incarnation, 1);
    });
    learner.acknowledge(6).await;
    learner.finish().await;
    let summary = actor.ended().await.unwrap();
    assert_eq!((summary.produced_steps, summary.acknowledged_steps), (6 * STEPS, 6 * STEPS));
    assert_eq!(summary.incarnations, 1);
}

#[tokio::test]
async fn an_actor_whose_identity_is_lost_starts_anew() {
    let (learner, actor) = together(&config()).await;
    learner.grant(0, 3, 0).await;
    learner.until("three unrolls come", |seen| seen.unrolls.len() == 3).await;
    learner.forget_actors();
    learner.cut().await;
    learner.until("the actor joins afresh", |seen| seen.streams == 2).await;
    learner.grant(0, 1, 0).await;
    learner.until("an unroll comes", |seen| seen.unrolls.len() == 4).await;
    learner.seen(|seen| {
        assert_eq!(seen.joins.last().unwrap().identity, None);
        let (_, first) = &seen.unrolls[3];
        assert_eq!((first.sequence, first.progress.as_ref().unwrap().produced_steps), (0, STEPS));
    });
    learner.finish().await;
    let summary = actor.ended().await.unwrap();
    assert_eq!((summary.incarnations, summary.acknowledged_steps), (2, 4 * STEPS));
}

#[tokio::test]
async fn damaged_weights_are_asked_for_again() {
    let learner = ScriptedLearner::start(&config()).await;
    let mut damaged = chunks(&snapshot(3));
    damaged[1].data = vec![7; damaged[1].data.len()].into();
    learner.publish(damaged);
    let actor = Actor::start(ActorOptions::new(&learner.url), environment::registry());
    learner.until("the actor asks again", |seen| seen.weight_streams >= 2).await;
    let mut incomplete = chunks(&snapshot(4));
    incomplete.remove(1);
    let tries = learner.seen(|seen| seen.weight_streams);
    learner.publish(incomplete);
    learner.until("the actor asks again", |seen| seen.weight_streams > tries).await;
    learner.publish(chunks(&snapshot(5)));
    learner.grant(0, 1, 0).await;
    learner.until("an unroll comes", |seen| seen.unrolls.len() == 1).await;
    assert_eq!(learner.seen(|seen| seen.unrolls[0].1.policy_version), 5);
    learner.finish().await;
    actor.ended().await.unwrap();
}

#[tokio::test]
async fn weights_of_another_policy_end_the_actor() {
    let learner = ScriptedLearner::start(&config()).await;
    let tensor = Tensor::zeros(3, candle_core::DType::F32, &Device::Cpu).unwrap();
    let foreign = Snapshot { version: 1, weights: Weights(vec![("w".into(), tensor)]) };
    learner.publish(chunks(&foreign));
    let actor = Actor::start(ActorOptions::new(&learner.url), environment::registry());
    let error = actor.ended().await.unwrap_err();
    assert!(matches!(error, ActorError::Policy(_)), "{error}");
}

#[tokio::test]
async fn an_unroll_is_acted_by_one_version_and_no_older_one_than_its_grant_asks_for() {
    let (learner, actor) = together(&config()).await;
    learner.publish(chunks(&decided(1)));
    // No grant may be used before version 2 has come.
    learner.grant(0, 1, 2).await;
    learner
        .until("a sign of waiting", |seen| {
            seen.progress.iter().any(|p| p.worker_time.as_ref().unwrap().waiting_grant > 0)
        })
        .await;
    assert_eq!(learner.seen(|seen| seen.unrolls.len()), 0);
    learner.publish(chunks(&decided(2)));
    learner.grant(1, u64::MAX, 2).await;
    let acted_by = |seen: &Seen, version| seen.unrolls.iter().any(|(_, u)| u.policy_version == version);
    for version in 2..12 {
        learner.publish(chunks(&decided(version)));
        learner.until("the version acts", |seen| acted_by(seen, version)).await;
    }
    learner.finish().await;
    actor.ended().await.unwrap();
    learner.seen(|seen| {
        for (_, message) in &seen.unrolls {
            let unroll = decoded(message, COPIES);
            assert!(unroll.policy_version >= 2);
            let expected = vec![(unroll.policy_version % 2) as i32; LENGTH * COPIES];
            assert_eq!(unroll.actions, Array::I32(expected), "version {}", unroll.policy_version);
        }
    });
}

/// The columns of copy 0..4 in the first unrolls of each of them, from an actor with so many workers.
async fn columns(workers: usize) -> Vec<Vec<Vec<f32>>> {
    let mut config = config();
    (config.rollout.envs_per_actor, config.rollout.workers_per_actor) = (4, workers);
    let (learner, actor) = together(&config).await;
    let unrolls = 5 * workers;
    learner.grant(0, unrolls as u64, 0).await;
    learner.until("all unrolls come", |seen| seen.unrolls.len() == unrolls).await;
    learner.finish().await;
    actor.ended().await.unwrap();
    learner.seen(|seen| {
        let mut unrolls: Vec<Unroll> =
            seen.unrolls.iter().map(|(_, message)| decoded(message, 4 / workers)).collect();
        unrolls.sort_by_key(|unroll| unroll.grant);
        let column = |unroll: &Unroll, copy: usize| {
            let Array::I32(actions) = &unroll.actions else { panic!("discrete actions are integers") };
            let at = |t: usize| t * unroll.copies + copy;
            (0..LENGTH).flat_map(|t| [actions[at(t)] as f32, unroll.rewards[at(t)]]).collect::<Vec<f32>>()
        };
        let rounds = unrolls.chunks(workers);
        rounds.map(|round| round.iter().flat_map(|u| (0..u.copies).map(|c| column(u, c))).collect()).collect()
    })
}

#[tokio::test]
async fn what_a_copy_does_depends_on_the_seed_and_not_on_the_number_of_workers() {
    let one = columns(1).await;
    assert_eq!(one, columns(1).await);
    assert_eq!(one, columns(2).await);
    assert_eq!(one, columns(4).await);
    assert!(one[0].iter().any(|column| *column != one[0][0]), "copies differ from one another");
}

#[tokio::test]
async fn refusals_end_the_actor_with_the_learners_words() {
    for (kind, message) in [
        (v1::Refusal::Environment, "this run trains in Pong-v5"),
        (v1::Refusal::Shape, "fewer --envs"),
        (v1::Refusal::ProtocolVersion, "same release"),
        (v1::Refusal::Malformed, "workers: missing"),
    ] {
        let learner = ScriptedLearner::start(&config()).await;
        learner.refuse(Some(refusal(kind, message)));
        let actor = Actor::start(ActorOptions::new(&learner.url), environment::registry());
        let error = actor.ended().await.unwrap_err();
        assert!(matches!(error, ActorError::Refused { .. }), "{error}");
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[tokio::test]
async fn a_run_that_is_over_is_no_failure() {
    let learner = ScriptedLearner::start(&config()).await;
    learner.refuse(Some(refusal(v1::Refusal::Finished, "the run is over")));
    let actor = Actor::start(ActorOptions::new(&learner.url), environment::registry());
    assert_eq!(actor.ended().await.unwrap().produced_steps, 0);

    let (learner, actor) = together(&config()).await;
    learner.refuse(Some(refusal(v1::Refusal::Finished, "the run is over")));
    learner.cut().await;
    actor.ended().await.unwrap();
}

#[tokio::test]
async fn another_protocol_or_environment_is_named() {
    let learner = ScriptedLearner::start(&config()).await;
    learner.speak_version(9);
    let actor = Actor::start(ActorOptions::new(&learner.url), environment::registry());
    let error = actor.ended().await.unwrap_err().to_string();
    assert!(error.contains("version 9") && error.contains("same release"), "{error}");

    let mut config = config();
    config.environment.id = "Scrpt-v0".into();
    let learner = ScriptedLearner::start(&config).await;
    let actor = Actor::start(ActorOptions::new(&learner.url), environment::registry());
    let error = actor.ended().await.unwrap_err().to_string();
    assert!(error.contains("did you mean \"Script-v0\""), "{error}");
}

#[tokio::test]
async fn an_actor_without_a_learner_gives_up_after_a_while() {
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", port.local_addr().unwrap());
    drop(port);
    let mut options = ActorOptions::new(&url);
    options.give_up_after = Duration::from_millis(300);
    let error = Actor::start(options, environment::registry()).ended().await.unwrap_err();
    assert!(matches!(error, ActorError::GaveUp { .. }), "{error}");
    assert!(error.to_string().contains(&url), "{error}");
}

#[tokio::test]
async fn an_actor_whose_learner_goes_away_gives_up_after_a_while_and_stops_at_once_when_told() {
    let gone = |learner: &ScriptedLearner| {
        learner.refuse(Some(tonic::Status::unavailable("shutting down")));
    };
    let learner = ScriptedLearner::start(&config()).await;
    let mut options = ActorOptions::new(&learner.url);
    options.give_up_after = Duration::from_millis(300);
    let actor = Actor::start(options, environment::registry());
    learner.until("the actor opens its stream", |seen| seen.streams == 1).await;
    gone(&learner);
    learner.cut().await;
    let error = actor.ended().await.unwrap_err();
    assert!(error.to_string().contains("shutting down"), "{error}");

    let (learner, actor) = together(&config()).await;
    gone(&learner);
    learner.cut().await;
    actor.stop().await.unwrap();
}

#[tokio::test]
async fn an_actor_that_is_leaving_when_its_identity_is_lost_leaves() {
    let (learner, actor) = together(&config()).await;
    learner.withhold_acknowledgements();
    learner.grant(0, u64::MAX, 0).await;
    learner.until("five unrolls come", |seen| seen.unrolls.len() >= 5).await;
    // It waits for acknowledgements that do not come; meanwhile both streams learn that it is unknown.
    let stopping = tokio::spawn(actor.stop());
    learner
        .until("the environments stand still", |seen| match seen.progress.as_slice() {
            [.., before, now] => before.produced_steps == now.produced_steps,
            _ => false,
        })
        .await;
    learner.forget_actors();
    learner.end_weights();
    let summary = tokio::time::timeout(support::DEADLINE, stopping).await.unwrap().unwrap().unwrap();
    assert_eq!(summary.incarnations, 1);
}

#[tokio::test]
async fn a_failing_environment_ends_the_actor_with_its_reason() {
    for (mischief, reason) in [
        (Mischief::Panic, "the script tore"),
        (Mischief::RewardNan, "reward NaN"),
        // Environments may block as long as they like: no stream waits for them.
        (Mischief::TellThread, "on Some(\"rollout-0\"), a thread of the runtime: false"),
    ] {
        let learner = ScriptedLearner::start(&config()).await;
        learner.publish(chunks(&snapshot(0)));
        let registry = environment::mischievous(10, mischief);
        let actor = Actor::start(ActorOptions::new(&learner.url), registry);
        learner.until("the actor opens its stream", |seen| seen.streams == 1).await;
        learner.grant(0, u64::MAX, 0).await;
        let error = actor.ended().await.unwrap_err();
        assert!(matches!(error, ActorError::Worker { worker: 0, .. }), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
        assert_eq!(learner.seen(|seen| (seen.goodbyes.len(), seen.unrolls.len())), (1, 2));
    }
}
