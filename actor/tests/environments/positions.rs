//! Where a worker stands is where another one can go on: the same steps follow, in every native environment.

use std::sync::atomic::AtomicBool;

use impresario_actor::counters::Counters;
use impresario_actor::env::registry::Registry;
use impresario_actor::rollout::{ActionChoice, Filled, Position, Sampler};
use impresario_common::config::PolicySection;
use impresario_common::policy::{Policy, PolicySpec};
use impresario_common::random::{Purpose, stream};
use impresario_common::unroll::{Unroll, UnrollLayout};
use prost::Message;

const COPIES: u32 = 4;
const LENGTH: usize = 7;

/// A worker in environment `id`; its streams are those of `actor`.
fn sampler(id: &str, layout: &UnrollLayout, policy: &PolicySpec, actor: u32) -> Sampler {
    let streams = |purpose| (0..COPIES).map(|copy| stream(1, purpose, [actor, 1, copy])).collect();
    let vector = Registry::native().make_vector(id, streams(Purpose::Environment)).unwrap();
    let distribution = policy.distribution().clone();
    Sampler::new(vector, distribution, layout, streams(Purpose::Actions), ActionChoice::Sampled).unwrap()
}

/// The next `count` unrolls.
fn unrolls(sampler: &mut Sampler, policy: &Policy, unroll: &mut Unroll, count: usize) -> Vec<Unroll> {
    let fill = |_| {
        let filled = sampler.fill(policy, unroll, &Counters::default(), &AtomicBool::new(false)).unwrap();
        assert_eq!(filled, Filled::Complete);
        unroll.clone()
    };
    (0..count).map(fill).collect()
}

#[test]
fn another_worker_goes_on_where_one_stood_in_every_environment_that_keeps_track() {
    let registry = Registry::native();
    let mut without = vec![];
    for id in registry.ids() {
        let spec = registry.spec(id).unwrap();
        let policy_spec = PolicySpec::new(spec, &PolicySection::default()).unwrap();
        let policy = Policy::new(&policy_spec, &policy_spec.initialise(1).unwrap()).unwrap();
        let layout = UnrollLayout::new(LENGTH, spec);
        // In the middle of first episodes, after several, and before any.
        for before in [2, 40, 0] {
            let mut first = sampler(id, &layout, &policy_spec, 0);
            if !first.keep_track() {
                without.push(id.to_owned());
                continue;
            }
            let mut unroll = Unroll::zeros(&layout, COPIES as usize);
            unrolls(&mut first, &policy, &mut unroll, before);
            let position = first.position(unroll.to_wire(&layout)).unwrap().position().encode_to_vec();
            let expected = unrolls(&mut first, &policy, &mut unroll, 3);

            let mut second = sampler(id, &layout, &policy_spec, 5);
            second.keep_track();
            let mut unroll = Unroll::zeros(&layout, COPIES as usize);
            let position = Position::decode(position.as_slice()).unwrap();
            second.resume(position, &mut unroll).unwrap();
            assert!(unrolls(&mut second, &policy, &mut unroll, 3) == expected, "{id} after {before} unrolls");
        }
    }
    without.dedup();
    // The one's opponent learns for life, the other's copies are not copies of their own.
    assert_eq!(without, ["RockPaperScissors-v0", "RockPaperScissorsSelfPlay-v0"]);
}

#[test]
fn a_position_that_the_same_actions_do_not_lead_to_is_refused() {
    let id = "CartPole-v1";
    let spec = Registry::native().spec(id).unwrap().clone();
    let policy_spec = PolicySpec::new(&spec, &PolicySection::default()).unwrap();
    let policy = Policy::new(&policy_spec, &policy_spec.initialise(1).unwrap()).unwrap();
    let layout = UnrollLayout::new(LENGTH, &spec);
    let mut first = sampler(id, &layout, &policy_spec, 0);
    first.keep_track();
    let mut unroll = Unroll::zeros(&layout, COPIES as usize);
    unrolls(&mut first, &policy, &mut unroll, 1);
    let whole = first.position(unroll.to_wire(&layout)).unwrap().position();
    let refused = |change: &dyn Fn(&mut Position), expected: &str| {
        let mut position = whole.clone();
        change(&mut position);
        let mut unroll = Unroll::zeros(&layout, COPIES as usize);
        let mut second = sampler(id, &layout, &policy_spec, 5);
        let error = second.resume(position, &mut unroll).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} does not say {expected:?}");
    };
    refused(&|p| p.copies[1].choices[2] ^= 1, "does not repeat itself");
    refused(&|p| p.copies[0].begun = p.copies[1].begun.clone(), "does not repeat itself");
    refused(&|p| drop(p.copies.pop()), "3 copies stood somewhere");
    refused(&|p| drop(p.episodes.pop()), "another number of copies");
    refused(&|p| p.episodes[0].actions = None, "a stream of actions is missing");
}
