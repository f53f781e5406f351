//! The intake's promises: exact books, no double counting, bounded memory, a lag bound that holds.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use impresario_common::config::{PolicyLagBound, RunConfig};
use impresario_common::space::Space;
use impresario_common::unroll::{Unroll, UnrollLayout};
use impresario_common::wire::v1::{Progress, WorkerTime};
use impresario_learner::accounting::Accounting;
use impresario_learner::intake::{ActorKey, AdmissionError, Intake, Standing, StreamKey};
use proptest::prelude::*;

const T: usize = 4;

fn layout() -> UnrollLayout {
    UnrollLayout::of_spaces(T, Space::boxed(&[-1.0], &[1.0]), Space::Discrete { n: 2 })
}

fn config(max_policy_lag: Option<u64>, batch_size: usize) -> RunConfig {
    let mut config = RunConfig::default();
    config.learner.max_policy_lag = PolicyLagBound(max_policy_lag);
    config.learner.batch_size = batch_size;
    config
}

fn unroll(columns: usize, version: u64, grant: u64) -> Unroll {
    let mut unroll = Unroll::zeros(&layout(), columns);
    unroll.policy_version = version;
    unroll.grant = grant;
    unroll
}

fn progress(produced: u64, dropped: u64) -> Progress {
    let dropped_steps =
        if dropped > 0 { [("unsent".to_owned(), dropped)].into() } else { Default::default() };
    Progress { produced_steps: produced, dropped_steps, worker_time: None }
}

fn key(actor: u32) -> ActorKey {
    ActorKey { actor, incarnation: 1 }
}

/// The stream of an actor that has opened none: enough to speak for it.
fn stream(actor: u32) -> StreamKey {
    StreamKey { actor: key(actor), number: 0 }
}

fn balanced(books: &Accounting) -> bool {
    books.produced == books.trained + books.dropped.values().sum::<u64>() + books.in_flight
}

#[tokio::test]
async fn an_unroll_sent_again_is_acknowledged_and_counted_once() {
    let intake = Intake::new(&config(None, 8), 0, Accounting::default());
    intake.join(key(0), 1, 2, &layout());
    for _ in 0..3 {
        intake.admit(stream(0), 0, progress(8, 0), unroll(2, 0, 0)).await.unwrap();
    }
    assert_eq!(intake.mail(stream(0)).unwrap().acknowledged, 1);
    let view = intake.view();
    assert_eq!((view.queue_unrolls, view.accounting.in_flight, view.accounting.produced), (1, 8, 8));
    let gap = intake.admit(stream(0), 2, progress(24, 0), unroll(2, 0, 0)).await;
    assert_eq!(gap, Err(AdmissionError::Malformed("sequence: 2, expected 1".into())));
}

#[tokio::test]
async fn a_full_queue_holds_admission_back_until_there_is_room() {
    let mut config = config(None, 2);
    config.learner.queue_bytes = 2 * unroll(2, 0, 0).bytes() as u64;
    let intake = Arc::new(Intake::new(&config, 0, Accounting::default()));
    intake.join(key(0), 1, 2, &layout());
    for sequence in 0..2 {
        intake.admit(stream(0), sequence, progress(8 * (sequence + 1), 0), unroll(2, 0, 0)).await.unwrap();
    }
    let third = tokio::spawn({
        let intake = intake.clone();
        async move { intake.admit(stream(0), 2, progress(24, 0), unroll(2, 0, 0)).await }
    });
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert!(!third.is_finished(), "the queue is full");
    assert!(intake.view().queue_bytes <= config.learner.queue_bytes);
    let work = intake.next_batch().unwrap();
    assert_eq!(work.batch.steps(), 8);
    tokio::time::timeout(Duration::from_secs(30), third).await.unwrap().unwrap().unwrap();
    assert_eq!(intake.view().queue_unrolls, 2);
}

#[tokio::test]
async fn a_lockstep_batch_comes_together_however_few_unrolls_of_an_actor_may_wait() {
    let mut config = config(Some(0), 6);
    config.limits.unrolls_in_flight = 1;
    let intake = Intake::new(&config, 0, Accounting::default());
    intake.join(key(0), 1, 2, &layout());
    for sequence in 0..3 {
        let admitted =
            intake.admit(stream(0), sequence, progress(8 * (sequence + 1), 0), unroll(2, 0, sequence));
        tokio::time::timeout(Duration::from_secs(30), admitted).await.expect("it is let in").unwrap();
    }
    assert_eq!(intake.next_batch().unwrap().batch.steps(), 6 * T);
}

#[tokio::test]
async fn what_a_lost_actor_had_reported_is_counted_as_lost() {
    let intake = Intake::new(&config(None, 4), 0, Accounting::default());
    intake.join(key(0), 1, 2, &layout());
    intake.admit(stream(0), 0, progress(8, 0), unroll(2, 0, 0)).await.unwrap();
    intake.progress(stream(0), progress(13, 0)).unwrap();
    // The same place, a new life: the old one cannot come back.
    let reborn = ActorKey { actor: 0, incarnation: 2 };
    intake.join(reborn, 1, 2, &layout());
    assert!(matches!(intake.mail(stream(0)), Err(AdmissionError::Unknown(0, 1))));
    let books = intake.view().accounting;
    assert_eq!((books.produced, books.dropped["actor_lost"], books.in_flight), (13, 5, 8));
    assert!(balanced(&books));
}

#[tokio::test]
async fn lockstep_batches_do_not_depend_on_the_order_of_arrival() {
    let mut actions = vec![];
    for order in [[0u32, 1, 2], [2, 0, 1]] {
        let mut config = config(Some(0), 6);
        config.learner.wait_for_actors = 3;
        let intake = Intake::new(&config, 0, Accounting::default());
        for actor in 0..3 {
            intake.join(key(actor), 1, 2, &layout());
        }
        for actor in order {
            let mut unroll = unroll(2, 0, 0);
            unroll.rewards.fill(actor as f32);
            intake.admit(stream(actor), 0, progress(8, 0), unroll).await.unwrap();
        }
        actions.push(intake.next_batch().unwrap().batch.rewards);
    }
    assert_eq!(actions[0][..6], [0.0, 0.0, 1.0, 1.0, 2.0, 2.0]);
    assert_eq!(actions[0], actions[1]);
}

#[tokio::test]
async fn a_skipped_update_is_in_the_books_and_frees_its_grants() {
    let intake = Intake::new(&config(Some(0), 2), 0, Accounting::default());
    intake.join(key(0), 1, 2, &layout());
    assert_eq!(intake.mail(stream(0)).unwrap().grants.len(), 1);
    intake.admit(stream(0), 0, progress(8, 0), unroll(2, 0, 0)).await.unwrap();
    intake.next_batch().unwrap();
    assert!(intake.mail(stream(0)).unwrap().grants.is_empty());
    intake.trained(true, 0);
    assert_eq!(intake.mail(stream(0)).unwrap().grants[0].min_version, 0);
    let books = intake.view().accounting;
    assert_eq!((books.trained, books.dropped["update_skipped"]), (0, 8));
    assert!(balanced(&books));
}

#[tokio::test]
async fn counters_that_contradict_the_unrolls_are_refused() {
    let intake = Intake::new(&config(None, 8), 0, Accounting::default());
    intake.join(key(0), 1, 2, &layout());
    let short = intake.admit(stream(0), 0, progress(7, 0), unroll(2, 0, 0)).await;
    assert!(matches!(short, Err(AdmissionError::Malformed(m)) if m.contains("steps are not in it")));
    intake.admit(stream(0), 0, progress(20, 0), unroll(2, 0, 0)).await.unwrap();
    assert!(intake.progress(stream(0), progress(19, 0)).is_err(), "counters do not run backwards");
}

#[tokio::test]
async fn only_an_actors_newest_stream_gets_grants_and_delivers() {
    let intake = Intake::new(&config(Some(0), 4), 0, Accounting::default());
    intake.join(key(0), 1, 2, &layout());
    let older = intake.connect(key(0)).unwrap();
    let newer = intake.connect(key(0)).unwrap();
    assert!(older.replaced.is_cancelled() && !newer.replaced.is_cancelled());
    // What the older one took would be lost with it, and the run would stand still.
    assert_eq!(intake.mail(older.key), Err(AdmissionError::Replaced));
    assert_eq!(intake.mail(newer.key).unwrap().grants[0].upto, 2);
    let late = intake.admit(older.key, 0, progress(8, 0), unroll(2, 0, 0)).await;
    assert_eq!(late, Err(AdmissionError::Replaced));
    intake.disconnected(older.key);
    assert_eq!(intake.view().actors_connected, 1, "the end of an older stream is none of the actor");
    assert!(!Arc::ptr_eq(&older.bell, &newer.bell), "a bell wakes one listener only");
    intake.admit(newer.key, 0, progress(8, 0), unroll(2, 0, 0)).await.unwrap();
    assert_eq!(intake.mail(newer.key).unwrap().acknowledged, 1);
}

#[tokio::test]
async fn a_stream_that_breaks_while_it_waits_for_room_does_not_count_against_its_actor() {
    let mut config = config(None, 2);
    config.learner.queue_bytes = 2 * unroll(2, 0, 0).bytes() as u64;
    let intake = Arc::new(Intake::new(&config, 0, Accounting::default()));
    intake.join(key(0), 1, 2, &layout());
    let older = intake.connect(key(0)).unwrap().key;
    for sequence in 0..2 {
        intake.admit(older, sequence, progress(8 * (sequence + 1), 0), unroll(2, 0, 0)).await.unwrap();
    }
    let waiting = tokio::spawn({
        let intake = intake.clone();
        async move { intake.admit(older, 2, progress(24, 0), unroll(2, 0, 0)).await }
    });
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished());
    // The actor comes back: it is told where to go on, and from then on nothing old comes in between.
    assert_eq!(intake.resume(key(0), Standing::default()), Ok(2));
    let newer = intake.connect(key(0)).unwrap().key;
    intake.progress(newer, progress(32, 0)).unwrap();
    intake.next_batch().unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap().unwrap();
    assert_eq!(ended, Err(AdmissionError::Replaced), "and not that its counters run backwards");
    intake.admit(newer, 2, progress(32, 0), unroll(2, 0, 0)).await.unwrap();
    let books = intake.view().accounting;
    assert_eq!((books.produced, books.in_flight), (32, 32));
    assert!(balanced(&books));
}

#[tokio::test]
async fn a_queue_full_of_less_than_a_batch_lets_the_rest_of_it_in() {
    let mut config = config(None, 7);
    config.learner.queue_bytes = 11 * layout().column_bytes() as u64;
    let intake = Intake::new(&config, 0, Accounting::default());
    intake.check_shape(&layout(), 4).unwrap();
    intake.join(key(0), 1, 4, &layout());
    // After each batch some unroll is half taken, and holds the room of its taken half.
    for sequence in 0..14 {
        let admission = intake.admit(stream(0), sequence, progress(16 * (sequence + 1), 0), unroll(4, 0, 0));
        tokio::time::timeout(Duration::from_secs(30), admission)
            .await
            .expect("there is no batch yet")
            .unwrap();
        if (sequence + 1) * 4 / 7 > sequence * 4 / 7 {
            intake.next_batch().unwrap();
            intake.trained(false, sequence);
        }
    }
    assert_eq!(intake.view().accounting.trained, 14 * 16);
}

#[tokio::test]
async fn no_more_is_granted_than_the_queue_has_room_for() {
    let mut config = config(Some(100), 4);
    config.learner.queue_bytes = 10 * layout().column_bytes() as u64;
    let intake = Intake::new(&config, 0, Accounting::default());
    intake.join(key(0), 1, 2, &layout());
    let grants = intake.mail(stream(0)).unwrap().grants;
    assert_eq!((grants.len(), grants[0].upto), (1, 5));
    // However late the first of them comes, nobody waits for room that only it could make.
    for (sequence, grant) in [1, 2, 3, 4, 0].into_iter().enumerate() {
        let sequence = sequence as u64;
        let admission = intake.admit(stream(0), sequence, progress(40, 0), unroll(2, 0, grant));
        tokio::time::timeout(Duration::from_secs(30), admission).await.unwrap().unwrap();
        assert!(intake.view().queue_bytes <= config.learner.queue_bytes);
    }
}

#[tokio::test]
async fn counters_that_nobody_could_have_counted_are_refused() {
    let intake = Intake::new(&config(None, 8), 0, Accounting::default());
    intake.join(key(0), 1, 2, &layout());
    let counters = |produced, dropped: &[(&str, u64)]| Progress {
        produced_steps: produced,
        dropped_steps: dropped.iter().map(|&(reason, steps)| (reason.to_owned(), steps)).collect(),
        worker_time: Some(WorkerTime { inference: u64::MAX, ..WorkerTime::default() }),
    };
    let long = "x".repeat(65);
    for (hostile, complaint) in [
        (counters(u64::MAX, &[]), "more than can be"),
        // Their sum is 8 in 64 bits.
        (counters(8, &[("a", u64::MAX), ("b", 9)]), "more steps dropped"),
        (counters(8, &[("a", 9)]), "more steps dropped"),
        (counters(8, &[(&long, 1)]), "not a name"),
        (counters(8, &[("", 1)]), "not a name"),
        (counters(8, &[("a\nb", 1)]), "not a name"),
    ] {
        let refused = intake.progress(stream(0), hostile).unwrap_err().to_string();
        assert!(refused.contains(complaint), "{refused}");
    }
    let mut many = counters(8, &[]);
    many.dropped_steps = (0..17).map(|n| (format!("reason_{n}"), 0)).collect();
    assert!(intake.progress(stream(0), many).unwrap_err().to_string().contains("17 reasons"));
    // Times are only reported; they stay in range.
    for actor in 0..2 {
        intake.join(key(actor), 1, 2, &layout());
        intake.progress(stream(actor), counters(8, &[])).unwrap();
    }
    assert_eq!(intake.view().worker_time.inference, u64::MAX);
}

#[tokio::test]
async fn the_books_stay_small_whatever_reasons_actors_name() {
    let intake = Intake::new(&config(None, 8), 0, Accounting::default());
    for actor in 0..100 {
        intake.join(key(actor), 1, 2, &layout());
        let mut counters = progress(16, 0);
        counters.dropped_steps = (0..16).map(|n| (format!("reason_{actor}_{n}"), 1)).collect();
        intake.progress(stream(actor), counters.clone()).unwrap();
        if actor % 2 == 0 {
            intake.goodbye(stream(actor), counters).unwrap();
        }
    }
    for books in [intake.view().accounting, intake.close_books()] {
        assert!(balanced(&books) && books.produced == 1600, "{books:?}");
        assert!(books.dropped.len() <= 65, "{} reasons", books.dropped.len());
    }
}

#[tokio::test]
async fn nobody_is_silent_while_the_learner_itself_stood_still() {
    let mut config = config(Some(0), 4);
    config.learner.wait_for_actors = 2;
    config.learner.grant_timeout_seconds = 0.05;
    let intake = Intake::new(&config, 0, Accounting::default());
    let streams = [0, 1].map(|actor| {
        intake.join(key(actor), 1, 2, &layout());
        intake.connect(key(actor)).unwrap().key
    });
    for stream in streams {
        assert_eq!(intake.mail(stream).unwrap().grants.len(), 1);
    }
    // Nobody looked for longer than a learner does that is well: its streams were not read either.
    std::thread::sleep(Duration::from_millis(1200));
    intake.view();
    for stream in streams {
        intake.progress(stream, progress(0, 0)).unwrap();
        assert!(intake.mail(stream).unwrap().grants.is_empty(), "no grant has changed hands");
    }
    // From then on silence counts again.
    let deadline = Instant::now() + Duration::from_secs(30);
    while intake.mail(streams[1]).unwrap().grants.is_empty() {
        assert!(Instant::now() < deadline, "the silent actor keeps its grant");
        std::thread::sleep(Duration::from_millis(60));
        intake.progress(streams[1], progress(0, 0)).unwrap();
        intake.view();
    }
}

#[tokio::test]
async fn a_silent_actors_grants_go_to_others_while_the_trainer_is_busy() {
    let mut config = config(Some(0), 4);
    config.learner.wait_for_actors = 2;
    config.learner.grant_timeout_seconds = 0.3;
    let intake = Intake::new(&config, 0, Accounting::default());
    let [silent, lively] = [0, 1].map(|actor| {
        intake.join(key(actor), 1, 2, &layout());
        intake.connect(key(actor)).unwrap().key
    });
    for stream in [silent, lively] {
        assert_eq!(intake.mail(stream).unwrap().grants.len(), 1);
    }
    // Nobody asks for a batch or a report.
    let heard = async {
        while intake.mail(lively).unwrap().grants.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            intake.progress(lively, progress(0, 0)).unwrap();
        }
    };
    tokio::select! {
        () = intake.watch() => {}
        heard = tokio::time::timeout(Duration::from_secs(30), heard) => heard.unwrap(),
    }
}

#[tokio::test]
async fn a_batch_that_the_trainer_broke_off_is_not_left_in_flight() {
    let intake = Intake::new(&config(None, 2), 0, Accounting::default());
    intake.join(key(0), 1, 2, &layout());
    intake.admit(stream(0), 0, progress(8, 0), unroll(2, 0, 0)).await.unwrap();
    intake.next_batch().unwrap();
    intake.finish();
    let books = intake.close_books();
    assert_eq!((books.in_flight, books.dropped["run_ended"]), (0, 8));
    assert!(balanced(&books));
}

#[derive(Debug, Clone)]
enum Event {
    Deliver,
    Produce(u64),
    Drop,
    Lose,
    Leave,
    Train,
}

fn event() -> impl Strategy<Value = (u32, Event)> {
    let kind = prop_oneof![
        8 => Just(Event::Deliver),
        3 => (1u64..20).prop_map(Event::Produce),
        1 => Just(Event::Drop),
        1 => Just(Event::Lose),
        1 => Just(Event::Leave),
        6 => Just(Event::Train),
    ];
    (0u32..3, kind)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever actors do, every step produced is trained, dropped by name, or in flight.
    #[test]
    fn the_books_always_balance(events in prop::collection::vec(event(), 1..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let intake = Intake::new(&config(None, 3), 0, Accounting::default());
        // Per place in the roster: incarnation, next sequence, produced, dropped.
        let mut actors = [(1u64, 0u64, 0u64, 0u64); 3];
        let mut version = 0;
        for id in 0..3 {
            intake.join(key(id), 1, 2, &layout());
        }
        for (id, event) in events {
            let (incarnation, sequence, produced, dropped) = &mut actors[id as usize];
            let key = ActorKey { actor: id, incarnation: *incarnation };
            let stream = StreamKey { actor: key, number: 0 };
            match event {
                Event::Deliver => {
                    *produced += 8;
                    let counters = progress(*produced, *dropped);
                    runtime.block_on(intake.admit(stream, *sequence, counters, unroll(2, version, 0))).unwrap();
                    *sequence += 1;
                }
                Event::Produce(steps) => {
                    *produced += steps;
                    intake.progress(stream, progress(*produced, *dropped)).unwrap();
                }
                Event::Drop => {
                    *produced += 3;
                    *dropped += 3;
                    intake.progress(stream, progress(*produced, *dropped)).unwrap();
                }
                Event::Lose | Event::Leave => {
                    if matches!(event, Event::Leave) {
                        intake.goodbye(stream, progress(*produced, *dropped)).unwrap();
                    }
                    *incarnation += 1;
                    (*sequence, *produced, *dropped) = (0, 0, 0);
                    let key = ActorKey { actor: id, incarnation: *incarnation };
                    intake.join(key, 1, 2, &layout());
                }
                Event::Train => {
                    // The queue holds whole unrolls of 2 columns, but for one that may be half taken.
                    if intake.view().queue_unrolls >= 3 {
                        intake.next_batch().unwrap();
                        prop_assert!(balanced(&intake.view().accounting), "while in training");
                        version += 1;
                        intake.trained(false, version);
                    }
                }
            }
            let books = intake.view().accounting;
            prop_assert!(balanced(&books), "{books:?}");
        }
        intake.finish();
        let books = intake.close_books();
        prop_assert!(balanced(&books), "{books:?}");
        prop_assert_eq!(books.in_flight, 0);
    }
}

/// An intake that goes on from what `former` would have saved, from policy version `version`.
fn restarted(config: &RunConfig, former: &Intake, version: u64) -> Intake {
    let (_, saved) = former.saved();
    Intake::resumed(config, vec![0, version], saved, Some(layout()))
}

/// An unroll of two columns that the first life's `version` acted.
fn acted(version: u64) -> Unroll {
    unroll(2, version, 0)
}

#[tokio::test]
async fn what_a_dead_learner_had_acknowledged_is_counted_and_its_actor_goes_on_where_it_stands() {
    let config = config(None, 2);
    let former = Intake::new(&config, 0, Accounting::default());
    former.join(key(0), 1, 2, &layout());
    former.admit(stream(0), 0, progress(8, 0), acted(0)).await.unwrap();
    former.next_batch().unwrap();
    former.trained(false, 1);
    former.admit(stream(0), 1, progress(16, 0), acted(0)).await.unwrap();
    // Here is the checkpoint: 8 steps are trained on, 8 wait. Then two more unrolls are acknowledged, and it dies.
    let intake = restarted(&config, &former, 1);
    assert_eq!(intake.inherited().len(), 1);
    let books = intake.view().accounting;
    assert_eq!((books.trained, books.dropped["learner_restart"], books.in_flight), (8, 8, 0));
    let standing = Standing {
        acknowledged_unrolls: 4,
        acknowledged_steps: 32,
        next_grant: u64::MAX,
        progress: progress(45, 0),
    };
    assert_eq!(intake.resume(key(0), standing.clone()), Ok(4));
    assert_eq!(intake.resume(key(0), standing), Ok(4), "asked again, nothing is counted twice");
    let books = intake.view().accounting;
    assert_eq!((books.produced, books.dropped["learner_restart"], books.in_flight), (45, 24, 13));
    // What it still holds: of a version that died, of one that did not, and of the new life.
    let newest = intake.connect(key(0)).unwrap().key;
    assert_eq!(intake.mail(newest).unwrap().grants.len(), 1);
    intake.admit(newest, 4, progress(48, 0), acted(2)).await.unwrap();
    intake.admit(newest, 5, progress(48, 0), acted(1)).await.unwrap();
    let young = Unroll { life: 1, ..acted(1) };
    intake.admit(newest, 6, progress(56, 0), young.clone()).await.unwrap();
    let unborn = intake.admit(newest, 7, progress(64, 0), Unroll { life: 2, ..young }).await;
    assert_eq!(unborn, Err(AdmissionError::Malformed("life: there has been no life 2".into())));
    let view = intake.view();
    assert_eq!((view.queue_unrolls, view.accounting.dropped["learner_restart"]), (2, 32));
    assert!(balanced(&view.accounting));
}

#[tokio::test]
async fn an_actor_that_was_let_in_after_the_last_checkpoint_brings_its_account_with_it() {
    let config = config(Some(0), 4);
    let intake = Intake::resumed(&config, vec![0, 0], Default::default(), Some(layout()));
    let closed = intake.adopt(key(7), 1, 2, &layout());
    let standing = |steps| Standing {
        acknowledged_unrolls: 2,
        acknowledged_steps: steps,
        next_grant: 3,
        progress: progress(20, 0),
    };
    let refused = intake.resume(key(7), standing(99)).unwrap_err().to_string();
    assert!(refused.contains("20 steps produced, but 99 received"), "{refused}");
    let refused = intake.resume(key(7), standing(1)).unwrap_err().to_string();
    assert!(refused.contains("2 unrolls acknowledged, but only 1 steps"), "{refused}");
    assert_eq!(intake.resume(key(7), standing(16)), Ok(2));
    let newest = intake.connect(key(7)).unwrap().key;
    let grants = intake.mail(newest).unwrap().grants;
    assert_eq!((grants[0].from, grants[0].upto), (3, 5), "no grant is given twice");
    // One that it holds under a grant of the dead learner: what that had granted is void, and the batch is spoken for.
    intake.admit(newest, 2, progress(24, 0), unroll(2, 0, 2)).await.unwrap();
    let books = intake.view().accounting;
    assert_eq!((books.dropped["learner_restart"], books.dropped["grant_revoked"]), (16, 8));
    assert!(balanced(&books) && !closed.is_cancelled());
}
