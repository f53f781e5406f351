//! What the outbox promises, at its bounds and after breaks.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use impresario_common::wire::v1;

use super::{Abandon, Outbox};

/// A message of about `kilobytes` kilobytes.
fn unroll(grant: u64, kilobytes: usize) -> v1::Unroll {
    let data = vec![0u8; kilobytes << 10].into();
    let rewards = v1::Tensor { dtype: 1, data, ..v1::Tensor::default() };
    v1::Unroll { grant, rewards: Some(rewards), ..Default::default() }
}

fn filled(count: u64) -> Outbox {
    let outbox = Outbox::new(u64::MAX);
    for grant in 0..count {
        outbox.push(unroll(grant, 1), 10, &AtomicU64::new(0));
    }
    outbox
}

fn sent(outbox: &Outbox) -> Vec<u64> {
    std::iter::from_fn(|| outbox.next_unsent()).map(|unroll| unroll.sequence).collect()
}

#[test]
fn sequences_have_no_gaps_and_each_unroll_is_sent_once_a_stream() {
    let outbox = filled(3);
    assert_eq!(sent(&outbox), [0, 1, 2]);
    outbox.push(unroll(3, 1), 10, &AtomicU64::new(0));
    assert!(outbox.has_unsent());
    assert_eq!(sent(&outbox), [3]);
    assert!(!outbox.has_unsent());
}

#[test]
fn a_new_stream_begins_where_the_learner_wants_it() {
    let outbox = filled(5);
    sent(&outbox);
    outbox.acknowledge(1).unwrap();
    outbox.resume(3).unwrap();
    assert_eq!(sent(&outbox), [3, 4]);
    assert_eq!(outbox.acknowledged_steps(), 30);
    assert!(outbox.resume(2).is_err(), "unroll 2 is forgotten");
    assert!(outbox.resume(6).is_err(), "unroll 5 does not exist");
    assert!(outbox.acknowledge(6).is_err());
}

#[test]
fn an_acknowledgement_that_overtakes_the_second_sending_spares_it() {
    let outbox = filled(3);
    sent(&outbox);
    outbox.resume(0).unwrap();
    outbox.acknowledge(2).unwrap();
    assert_eq!(sent(&outbox), [2]);
}

#[test]
fn a_full_outbox_blocks_until_an_acknowledgement_makes_room() {
    let outbox = Outbox::new(5 << 10);
    let spent = AtomicU64::new(0);
    // Larger than the bound, and let through: nothing else is there.
    outbox.push(unroll(0, 8), 10, &spent);
    assert_eq!(spent.load(Relaxed), 0);
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| outbox.push(unroll(1, 1), 10, &spent));
        let deadline = Instant::now() + Duration::from_secs(20);
        while spent.load(Relaxed) == 0 && Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert!(spent.load(Relaxed) > 0, "waiting is reported while it lasts");
        assert!(!worker.is_finished());
        outbox.acknowledge(1).unwrap();
        worker.join().unwrap();
    });
    assert_eq!(sent(&outbox), [1]);
}

#[test]
fn a_closed_outbox_takes_the_last_unrolls_at_once() {
    let outbox = Outbox::new(1);
    outbox.push(unroll(0, 1), 10, &AtomicU64::new(0));
    outbox.close();
    outbox.push(unroll(1, 1), 10, &AtomicU64::new(0));
    assert_eq!(sent(&outbox), [0, 1]);
}

#[test]
fn what_is_given_up_is_counted_once() {
    let outbox = filled(5);
    outbox.next_unsent();
    outbox.next_unsent();
    outbox.acknowledge(1).unwrap();
    assert_eq!(outbox.abandon(Abandon::Unsent), 30);
    assert_eq!(outbox.abandon(Abandon::Unsent), 0);
    assert_eq!(outbox.abandon(Abandon::Unacknowledged), 10);
    assert!(outbox.is_empty());
    assert_eq!(outbox.acknowledged_steps(), 10);
}
