//! The learner's door, tried with a client of our own making: what does not fit is refused by name, and
//! harms nobody else.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/hand.rs"]
mod hand;
mod support;

use std::time::Duration;

use hand::{Hand, cartpole, connect, join_request, refusal, within};
use impresario_common::composite::Composite;
use impresario_common::config::Compression;
use impresario_common::space::{EnvironmentSpec, Space};
use impresario_common::unroll::Unroll;
use impresario_common::wire::v1::actor_message::Kind;
use impresario_common::wire::{PROTOCOL_VERSION, v1};
use support::{assert_balanced, start_actor, start_learner, summary};
use tonic::Code;
use tonic::transport::Channel;

/// What a test does to an unroll that was valid.
type Breach = fn(&mut v1::Unroll);

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_fit_is_refused_at_the_door() {
    let folder = tempfile::tempdir().unwrap();
    let (_learner, url) = start_learner(folder.path(), &[]);
    let mut client = connect(&url).await;
    let run = client.describe(v1::DescribeRequest {}).await.unwrap().into_inner();
    assert!(run.configuration_json.contains("CartPole-v1"));

    let mut old = join_request(&cartpole());
    old.protocol_version = PROTOCOL_VERSION + 1;
    let status = client.join(old).await.unwrap_err();
    assert_eq!(refusal(&status), "REFUSAL_PROTOCOL_VERSION");
    assert!(status.message().contains("same release"), "{status}");

    let other = EnvironmentSpec { id: "Pendulum-v1".into(), ..cartpole() };
    let status = client.join(join_request(&other)).await.unwrap_err();
    assert_eq!(refusal(&status), "REFUSAL_ENVIRONMENT");
    assert!(status.message().contains("trains in CartPole-v1"), "{status}");

    client.join(join_request(&cartpole())).await.unwrap();
    let wider = EnvironmentSpec { action: Space::Discrete { n: 3 }, ..cartpole() };
    let status = client.join(join_request(&wider)).await.unwrap_err();
    assert_eq!(refusal(&status), "REFUSAL_ENVIRONMENT");
    assert!(status.message().contains("Discrete(3)"), "{status}");

    let masked = cartpole().with_masked_actions();
    let status = client.join(join_request(&masked)).await.unwrap_err();
    assert_eq!(refusal(&status), "REFUSAL_ENVIRONMENT");
    assert!(
        status.message().contains("does not mask illegal actions in this run, but masks them"),
        "{status}"
    );

    let stranger = v1::Identity { run_id: "elsewhere".into(), actor: 0, incarnation: 1 };
    let status =
        client.watch_weights(v1::WatchWeightsRequest { identity: Some(stranger) }).await.unwrap_err();
    assert_eq!((status.code(), refusal(&status)), (Code::NotFound, "REFUSAL_IDENTITY"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_memory_is_too_small_for_ends_with_the_first_actor_that_tells_the_environment() {
    let Some(available) = impresario_learner::memory::available() else {
        eprintln!("skipped: this machine does not say how much memory it has");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    // A transition, in replay and checkpoint, takes 82 bytes with observations of four numbers, and 22 with the smallest.
    let capacity = format!("algorithm.replay_capacity={}", available / 40);
    let run = ["--env", "Unheard-v0", "--algorithm", "sac", "--set", &capacity];
    let (learner, url) = start_learner(folder.path(), &run);
    let environment = EnvironmentSpec { id: "Unheard-v0".into(), ..cartpole() };
    connect(&url).await.join(join_request(&environment)).await.unwrap();
    let ended = learner.end();
    assert_eq!(ended.code(), 64, "{}", ended.stderr);
    assert!(ended.stderr.contains("memory, at most about: network"), "{}", ended.stderr);
    assert!(ended.stderr.contains("lower algorithm.replay_capacity"), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn actors_agree_on_the_parts_of_observations_and_the_run_directory_names_them() {
    let folder = tempfile::tempdir().unwrap();
    let (_learner, url) = start_learner(folder.path(), &[]);
    let mut client = connect(&url).await;
    let of_parts = |names: [&str; 2]| {
        let parts = names.map(|name| (name, Space::boxed(&[-1.0, f32::NEG_INFINITY], &[1.0, 9.0]).into()));
        EnvironmentSpec::new("CartPole-v1", Composite::dict(parts), Space::Discrete { n: 2 })
    };
    let environment = of_parts(["cart", "pole"]);
    client.join(join_request(&environment)).await.unwrap();
    client.join(join_request(&environment)).await.unwrap();

    let flat = EnvironmentSpec::new("CartPole-v1", environment.observation.clone(), Space::Discrete { n: 2 });
    for (other, expected) in [
        (of_parts(["cart", "stick"]), "part 1 is \"pole\""),
        (flat, "but of observations without parts on the actor"),
    ] {
        let status = client.join(join_request(&other)).await.unwrap_err();
        assert_eq!(refusal(&status), "REFUSAL_ENVIRONMENT");
        assert!(status.message().contains(expected), "{status}");
        assert!(status.message().contains("same version and options"), "{status}");
    }

    let path = folder.path().join("environment.toml");
    let text = within(async {
        loop {
            if let Ok(text) = std::fs::read_to_string(&path) {
                break text;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(toml::from_str::<EnvironmentSpec>(&text).unwrap(), environment);
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_unrolls_are_refused_without_harm_to_others() {
    let folder = tempfile::tempdir().unwrap();
    let budget =
        ["--until-return", "never", "--steps", "200000", "--set", "learner.max_policy_lag=unlimited"];
    let (learner, url) = start_learner(folder.path(), &budget);
    let mut client = connect(&url).await;
    let breaches: [(Breach, &str); 5] = [
        (
            |u| u.rewards.as_mut().unwrap().data = f32::NAN.to_le_bytes().repeat(80).into(),
            "not a finite number",
        ),
        (|u| u.actions.as_mut().unwrap().data = 2i32.to_le_bytes().repeat(80).into(), "out of range 0..2"),
        (|u| u.actions.as_mut().unwrap().dtype = v1::ElementType::F32.into(), "element type"),
        (|u| u.observations.as_mut().unwrap().shape[0] = 20, "shape is"),
        (|u| u.policy_version = 1 << 40, "never given"),
    ];
    for (breach, expected) in breaches {
        let mut hand = Hand::join(&mut client).await;
        hand.send(hand.unroll(0)).await;
        within(hand.acknowledged(1)).await;
        let mut unroll = hand.unroll(1);
        breach(&mut unroll);
        hand.send(unroll).await;
        let status = within(hand.refused()).await;
        assert_eq!(
            (status.code(), refusal(&status)),
            (Code::InvalidArgument, "REFUSAL_MALFORMED"),
            "{status}"
        );
        assert!(status.message().contains(expected), "{status}");
    }
    let honest = start_actor(&url, &[]);
    assert_eq!(learner.end().code(), 0);
    assert_eq!(honest.end().code(), 0);
    let outcome = summary(folder.path());
    assert_balanced(&outcome);
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_observations_are_taken_in_and_a_bomb_is_refused() {
    for (name, compression) in [("lz4", Compression::Lz4), ("zstd", Compression::Zstd)] {
        let folder = tempfile::tempdir().unwrap();
        let key = format!("rollout.compression={name}");
        let free = ["--set", "learner.max_policy_lag=unlimited", "--set", &key];
        let (_learner, url) = start_learner(folder.path(), &free);
        let mut client = connect(&url).await;
        let mut hand = Hand::join(&mut client).await;
        // As it is, and compressed.
        hand.send(hand.unroll(0)).await;
        within(hand.acknowledged(1)).await;
        hand.layout.compression = compression;
        let unroll = hand.unroll(1);
        assert!(Unroll::is_compressed(&unroll));
        hand.send(unroll).await;
        within(hand.acknowledged(2)).await;
        let mut bomb = hand.unroll(2);
        bomb.observations.as_mut().unwrap().data = compression.compress(&vec![0; 200 << 20]).unwrap().into();
        hand.send(bomb).await;
        let status = within(hand.refused()).await;
        assert_eq!(refusal(&status), "REFUSAL_MALFORMED", "{status}");
        assert!(status.message().contains("unroll 2: observations: "), "{status}");
        // Its place is free for another.
        Hand::join(&mut client).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_resumes_where_the_learner_says() {
    let folder = tempfile::tempdir().unwrap();
    let (_learner, url) = start_learner(folder.path(), &["--set", "learner.max_policy_lag=unlimited"]);
    let mut client = connect(&url).await;
    let mut hand = Hand::join(&mut client).await;
    hand.send(hand.unroll(0)).await;
    within(hand.acknowledged(1)).await;
    let identity = hand.identity.clone();
    drop(hand);
    let again = v1::JoinRequest { identity: Some(identity.clone()), ..join_request(&cartpole()) };
    let response = client.join(again).await.unwrap().into_inner();
    assert_eq!((response.identity.unwrap(), response.resume_sequence), (identity, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_stream_takes_over_with_all_grants_and_the_older_one_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let lockstep = ["--set", "learner.max_policy_lag=0", "--set", "learner.batch_size=8"];
    let (_learner, url) = start_learner(folder.path(), &lockstep);
    let mut client = connect(&url).await;
    let mut older = Hand::join(&mut client).await;
    // The older stream stays open, as one does whose connection went silent; nothing has been read from it.
    for _ in 0..5 {
        let mut newer = Hand::open(&mut client, older.identity.clone()).await;
        let granted = within(newer.down.message()).await.unwrap().unwrap();
        assert_eq!(granted.grants.iter().map(|g| g.upto - g.from).sum::<u64>(), 2, "{granted:?}");
        let status = within(older.refused()).await;
        assert_eq!(refusal(&status), "REFUSAL_IDENTITY");
        assert!(status.message().contains("newer stream"), "{status}");
        older = newer;
    }
    older.send(older.unroll(0)).await;
    within(older.acknowledged(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_that_is_expelled_gets_no_more_weights() {
    let folder = tempfile::tempdir().unwrap();
    let (_learner, url) = start_learner(folder.path(), &[]);
    let mut client = connect(&url).await;
    let mut hand = Hand::join(&mut client).await;
    let request = v1::WatchWeightsRequest { identity: Some(hand.identity.clone()) };
    let mut weights = client.watch_weights(request.clone()).await.unwrap().into_inner();
    within(weights.message()).await.unwrap().unwrap();
    hand.send(v1::Unroll::default()).await;
    assert_eq!(refusal(&within(hand.refused()).await), "REFUSAL_MALFORMED");
    while within(weights.message()).await.unwrap().is_some() {}
    let status = client.watch_weights(request).await.unwrap_err();
    assert_eq!(refusal(&status), "REFUSAL_IDENTITY");
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_nobody_can_mean_are_refused_and_cost_the_learner_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let free = ["--set", "learner.max_policy_lag=unlimited"];
    let (mut learner, url) = start_learner(folder.path(), &free);
    let mut client = connect(&url).await;
    let vast = |action| EnvironmentSpec { action, ..cartpole() };
    let box_of = |elements: usize| Space::boxed(&vec![-1.0; elements], &vec![1.0; elements]);
    for (environment, kind) in [
        (vast(Space::Discrete { n: 2_000_000_000 }), "REFUSAL_ENVIRONMENT"),
        (vast(Space::Discrete { n: u32::MAX }), "REFUSAL_ENVIRONMENT"),
        (vast(Space::MultiDiscrete { nvec: vec![2; 100_000] }), "REFUSAL_MALFORMED"),
        (EnvironmentSpec { observation: box_of(1 << 22), ..cartpole() }, "REFUSAL_ENVIRONMENT"),
        (EnvironmentSpec { solved_return: Some(f64::NAN), ..cartpole() }, "REFUSAL_MALFORMED"),
        (EnvironmentSpec { id: "x".repeat(100_000), ..cartpole() }, "REFUSAL_MALFORMED"),
    ] {
        let status = within(client.join(join_request(&environment))).await.unwrap_err();
        assert_eq!(refusal(&status), kind, "{status}");
    }
    for (workers, copies_per_worker) in [(1, u32::MAX), (u32::MAX, u32::MAX), (0, 1)] {
        let request = v1::JoinRequest { workers, copies_per_worker, ..join_request(&cartpole()) };
        let status = within(client.join(request)).await.unwrap_err();
        assert_eq!(refusal(&status), "REFUSAL_SHAPE", "{status}");
    }
    let talkative = v1::JoinRequest { description: "x".repeat(1 << 20), ..join_request(&cartpole()) };
    client.join(talkative).await.unwrap();

    let breaches: [Breach; 5] = [
        |u| u.sequence = u64::MAX,
        |u| u.policy_version = u64::MAX,
        |u| u.progress.as_mut().unwrap().produced_steps = u64::MAX,
        |u| {
            let dropped = [("a".to_owned(), u64::MAX), ("b".to_owned(), u64::MAX)];
            u.progress.as_mut().unwrap().dropped_steps = dropped.into();
        },
        |u| {
            let dropped = (0..5000).map(|n| (format!("reason_{n}"), 0));
            u.progress.as_mut().unwrap().dropped_steps = dropped.collect();
        },
    ];
    for breach in breaches {
        let mut hand = Hand::join(&mut client).await;
        let mut unroll = hand.unroll(0);
        unroll.grant = u64::MAX;
        breach(&mut unroll);
        hand.send(unroll).await;
        assert_eq!(refusal(&within(hand.refused()).await), "REFUSAL_MALFORMED");
    }
    assert!(!learner.log().contains("panicked"), "{}", learner.log());
    assert!(learner.log().len() < 100_000, "its log stays readable");
    assert!(learner.is_running());
    learner.signal("TERM");
    assert_eq!(learner.end().code(), 0);
    assert_balanced(&summary(folder.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_when_the_run_is_over_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let (learner, url) = start_learner(folder.path(), &["--set", "learner.grace_seconds=200"]);
    let mut client = connect(&url).await;
    let mut hand = Hand::join(&mut client).await;
    learner.signal("TERM");
    // It keeps the learner waiting for its goodbye.
    while !within(hand.down.message()).await.unwrap().unwrap().finished {}
    let status = client.join(join_request(&cartpole())).await.unwrap_err();
    assert_eq!(refusal(&status), "REFUSAL_FINISHED");
    let late = start_actor(&url, &[]).end();
    assert_eq!(late.code(), 0, "{}", late.stderr);
    assert!(late.stderr.contains("the run is over"), "{}", late.stderr);
    // Those who are known may still come back, and leave in good order.
    let mut again = Hand::open(&mut client, hand.identity.clone()).await;
    assert!(within(again.down.message()).await.unwrap().unwrap().finished);
    let progress = Some(v1::Progress { produced_steps: 7, ..v1::Progress::default() });
    again
        .up
        .send(v1::ActorMessage { kind: Some(Kind::Goodbye(v1::Goodbye { progress, ..Default::default() })) })
        .await
        .unwrap();
    assert_eq!(learner.end().code(), 0);
    let outcome = summary(folder.path());
    assert_eq!(outcome["accounting"]["dropped"]["actor_lost"], 7);
    assert_balanced(&outcome);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_beyond_the_limit_is_refused_and_the_learner_lives() {
    let folder = tempfile::tempdir().unwrap();
    let (_learner, url) = start_learner(folder.path(), &["--set", "learner.max_policy_lag=unlimited"]);
    let mut client = connect(&url).await;
    let mut hand = Hand::join(&mut client).await;
    let mut unroll = hand.unroll(0);
    unroll.observations.as_mut().unwrap().data =
        vec![0; impresario_common::wire::MAX_MESSAGE_BYTES + 1].into();
    hand.send(unroll).await;
    within(hand.refused()).await;
    client.describe(v1::DescribeRequest {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_on_messages_holds_for_streams_and_calls_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (_learner, url) = start_learner(folder.path(), &["--set", "limits.message_bytes=65536"]);
    let mut client = connect(&url).await;
    let mut hand = Hand::join(&mut client).await;
    let mut unroll = hand.unroll(0);
    unroll.observations.as_mut().unwrap().data = vec![0; 65536].into();
    hand.send(unroll).await;
    let status = within(hand.refused()).await;
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    assert!(status.message().contains("exceeds the 65536 of limits.message_bytes"), "{status}");
    let long = v1::JoinRequest { description: "x".repeat(65536), ..join_request(&cartpole()) };
    let status = client.join(long).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    assert!(status.message().contains("65536"), "{status}");
    Hand::join(&mut client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_come_in_checked_chunks_and_health_and_reflection_answer() {
    let folder = tempfile::tempdir().unwrap();
    let (_learner, url) = start_learner(folder.path(), &[]);
    let mut client = connect(&url).await;
    let hand = Hand::join(&mut client).await;
    let request = v1::WatchWeightsRequest { identity: Some(hand.identity.clone()) };
    let mut weights = client.watch_weights(request).await.unwrap().into_inner();
    let chunk = within(weights.message()).await.unwrap().unwrap();
    assert_eq!((chunk.version, chunk.offset, chunk.length), (0, 0, chunk.data.len() as u64));
    let snapshot = impresario_common::policy::Snapshot::decode(&chunk.data).unwrap();
    assert_eq!(snapshot.version, 0);

    let channel =
        Channel::from_shared(url).unwrap().timeout(Duration::from_secs(60)).connect().await.unwrap();
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel.clone());
    let service = "impresario.v1.Learner".to_owned();
    let answer = health.check(tonic_health::pb::HealthCheckRequest { service }).await.unwrap();
    assert_eq!(answer.into_inner().status(), tonic_health::pb::health_check_response::ServingStatus::Serving);

    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    let request = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(channel);
    let mut answers =
        reflection.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    let answer = format!("{:?}", within(answers.message()).await.unwrap().unwrap());
    assert!(answer.contains("impresario.v1.Learner") && answer.contains("grpc.health.v1.Health"), "{answer}");
}
