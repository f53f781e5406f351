//! Many at once: simulated actors, each with gRPC connections of its own, that come and go as they like, and subscribers
//! that never read.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/hand.rs"]
mod hand;
mod support;

use hand::{Hand, cartpole, connect, join_request, within};
use impresario_common::wire::v1;
use impresario_common::wire::v1::actor_message::Kind;
use serde_json::Value;
use support::{assert_balanced, start_actor, start_learner, summary, trained};

/// Actors at the same time.
const ACTORS: u64 = 256;
/// Environment steps of an unroll.
const STEPS: u64 = 80;

/// What a simulated actor has done in all its lives.
#[derive(Debug, Default, Clone, Copy)]
struct Lives {
    begun: u64,
    /// Steps of unrolls that were acknowledged.
    acknowledged: u64,
}

/// How a life ends.
#[derive(Debug, Clone, Copy)]
enum Departure {
    Goodbye,
    /// The connection is gone, without a word.
    Silent,
    /// The learner said that the run is over.
    RunOver,
}

/// Numbers that look random and repeat themselves.
fn scramble(number: u64) -> u64 {
    let mixed = (number ^ (number >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ (mixed >> 29)
}

/// Lives again and again until the run is over.
async fn live(url: String, actor: u64) -> Lives {
    let mut lives = Lives::default();
    loop {
        let Ok(mut client) = hand::try_connect(&url).await else { return lives };
        let Ok(joined) = client.join(join_request(&cartpole())).await else { return lives };
        lives.begun += 1;
        let fate = scramble(actor << 20 | lives.begun);
        let departure = if fate.is_multiple_of(2) { Departure::Goodbye } else { Departure::Silent };
        let Ok(mut hand) = Hand::try_open(&mut client, joined.into_inner().identity.unwrap()).await else {
            return lives;
        };
        let (acknowledged, departure) = act(&mut hand, 1 + fate / 2 % 5, departure).await;
        lives.acknowledged += STEPS * acknowledged;
        if matches!(departure, Departure::RunOver) {
            return lives;
        }
    }
}

/// Sends up to `unrolls` unrolls, one for each grant; how many were acknowledged, and how it ended.
async fn act(hand: &mut Hand, unrolls: u64, departure: Departure) -> (u64, Departure) {
    let (mut sent, mut acknowledged, mut run_over) = (0, 0, false);
    while acknowledged < unrolls && !run_over {
        let Ok(Some(message)) = hand.down.message().await else { return (acknowledged, Departure::RunOver) };
        acknowledged = message.acknowledged;
        run_over = message.finished;
        for grant in message.grants.iter().flat_map(|grant| grant.from..grant.upto) {
            if sent < unrolls {
                let mut unroll = hand.unroll(sent);
                unroll.grant = grant;
                // Any version that the grant allows will do; the newest one is not known here.
                unroll.policy_version = message.grants[0].min_version;
                sent += 1;
                if hand.try_send(unroll).await.is_err() {
                    return (acknowledged, Departure::RunOver);
                }
            }
        }
    }
    if run_over || matches!(departure, Departure::Goodbye) {
        // Whatever was sent and not taken any more counts as dropped.
        let dropped = STEPS * (sent - acknowledged);
        let dropped_steps =
            if dropped > 0 { [("run_ended".to_owned(), dropped)].into() } else { Default::default() };
        let progress = v1::Progress { produced_steps: STEPS * sent, dropped_steps, worker_time: None };
        let goodbye = v1::Goodbye { progress: Some(progress), ..v1::Goodbye::default() };
        let _ = hand.up.send(v1::ActorMessage { kind: Some(Kind::Goodbye(goodbye)) }).await;
        // The stream ends when the learner has heard it.
        while let Ok(Some(_)) = hand.down.message().await {}
    }
    (acknowledged, if run_over { Departure::RunOver } else { departure })
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_actors_that_come_and_go_leave_balanced_books() {
    let folder = tempfile::tempdir().unwrap();
    let budget = ["--until-return", "never", "--steps", "150000", "--set", "report.interval_seconds=0.2"];
    let (learner, url) = start_learner(folder.path(), &budget);
    let actors: Vec<_> = (0..ACTORS).map(|actor| tokio::spawn(live(url.clone(), actor))).collect();
    let ended = tokio::task::spawn_blocking(|| learner.end()).await.unwrap();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let mut all = Lives::default();
    for actor in actors {
        let lives = within(actor).await.unwrap();
        all.begun += lives.begun;
        all.acknowledged += lives.acknowledged;
    }
    assert!(all.begun >= 2 * ACTORS, "they came and went: {all:?}");
    let outcome = summary(folder.path());
    assert_balanced(&outcome);
    let trained = outcome["accounting"]["trained"].as_u64().unwrap();
    assert!(trained >= 150_000, "{outcome}");
    // What was acknowledged is trained on, or was in the queue when the run ended.
    assert!(outcome["accounting"]["produced"].as_u64().unwrap() >= all.acknowledged, "{all:?} {outcome}");
    let bound = outcome["policy_lag"]["max"].as_u64().unwrap();
    assert!(bound <= 4, "the lag bound holds: {bound}");
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_that_never_read_hold_up_nobody_and_see_the_newest_version_when_they_do() {
    let folder = tempfile::tempdir().unwrap();
    // 1.1 MB a version: more than a connection holds on its way.
    let large = ["--set", "policy.hidden=[512,512]", "--set", "report.interval_seconds=0.1"];
    let (mut learner, url) = start_learner(
        folder.path(),
        &[&["--until-return", "never", "--steps", "1000000000"][..], &large].concat(),
    );
    let mut stuck = vec![];
    for _ in 0..8 {
        let mut client = connect(&url).await;
        let hand = Hand::join(&mut client).await;
        let request = v1::WatchWeightsRequest { identity: Some(hand.identity.clone()) };
        stuck.push((client.watch_weights(request).await.unwrap().into_inner(), hand, client));
    }
    let actor = start_actor(&url, &[]);
    let (learner, updates) = tokio::task::spawn_blocking(move || {
        trained(&mut learner, 30_000);
        let updates = learner.wait_for("updates", |line| {
            let event: Value = serde_json::from_str(line).ok()?;
            (event["steps"].as_u64()? >= 30_000).then_some(event["steps"].as_u64()? / 640)
        });
        (learner, updates)
    })
    .await
    .unwrap();
    for (weights, _, _) in &mut stuck {
        // What was on its way comes first: whole versions, of which there are few; then the newest.
        let mut versions = vec![];
        while versions.last().is_none_or(|&newest| newest < updates) {
            let chunk = within(weights.message()).await.unwrap().unwrap();
            if chunk.offset + chunk.data.len() as u64 == chunk.length {
                versions.push(chunk.version);
            }
        }
        assert!((versions.len() as u64) < updates / 2, "versions were skipped: {versions:?} of {updates}");
    }
    learner.signal("TERM");
    let ended = tokio::task::spawn_blocking(|| learner.end()).await.unwrap();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(actor.end().code(), 0);
    assert_balanced(&summary(folder.path()));
}
