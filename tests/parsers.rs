//! Whatever reads bytes that others wrote, held to its promises on bytes that are almost right. fuzz/ tries the same for longer, from
//! the corpus that is checked here.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/parsers.rs"]
mod parsers;

use std::path::PathBuf;
use std::sync::LazyLock;

use impresario_common::config::RunConfig;
use impresario_common::policy::Snapshot;
use impresario_common::space::{EnvironmentSpec, Space};
use impresario_common::unroll::Unroll;
use impresario_common::wire::v1;
use impresario_common::wire::v1::actor_message::Kind;
use impresario_learner::trainer::Trainer;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use prost::Message;

/// Unrolls of every layout, and a request to join, each behind the byte that chooses the run.
fn wire_seeds() -> Vec<Vec<u8>> {
    let unroll = |(index, layout)| {
        let mut unroll = Unroll::zeros(layout, 1);
        unroll.behaviour_log_probs.fill(-0.7);
        unroll.terminated[1] = 1;
        unroll.episode_returns.push(1.5);
        unroll.episode_lengths.push(9);
        let mut message = unroll.to_wire(layout);
        message.progress = Some(v1::Progress { produced_steps: 2, ..v1::Progress::default() });
        let message = v1::ActorMessage { kind: Some(Kind::Unroll(message)) };
        [vec![index as u8], message.encode_to_vec()].concat()
    };
    let spec = EnvironmentSpec::new("Thing-v0", Space::boxed(&[-1.0], &[1.0]), Space::Discrete { n: 2 });
    let join = v1::JoinRequest { environment: Some((&spec).into()), ..v1::JoinRequest::default() };
    let joins = [vec![0], join.encode_to_vec()].concat();
    parsers::LAYOUTS.iter().enumerate().map(unroll).chain([joins]).collect()
}

fn configuration_seeds() -> Vec<Vec<u8>> {
    let sac = "[algorithm]\nname = \"sac\"\n[policy]\nkernels = \"auto\"\n[run]\nuntil_return = 9.5\n";
    let atari =
        "[environment]\nid = \"ALE/Pong-v5\"\nkwargs = { continuous = true }\nwrappers = [\"a.b:C\"]\n";
    let whole = RunConfig::default().to_toml().unwrap();
    [sac, atari, "[learner]\nmax_policy_lag = \"unlimited\"\n", &whole].map(|text| text.into()).to_vec()
}

fn worker_seeds() -> Vec<Vec<u8>> {
    let boxed = r#"{"type":"box","low":"00000000","high":"0000803f","shape":[1],"dtype":"f32"}"#;
    let tuple = r#"{"type":"tuple","parts":[{"type":"discrete","n":3}]}"#;
    let parts = format!(r#"{{"type":"dict","parts":{{"a":{boxed},"b":{tuple}}}}}"#);
    let described = |observation: &str, action: &str| {
        format!(
            r#"{{"observation":{observation},"action":{action},"max_episode_steps":10,"reward_threshold":null,"stepping":"loop"}}"#
        )
        .into_bytes()
    };
    let plain = described(boxed, r#"{"type":"discrete","n":2}"#);
    let drawn = String::from_utf8(plain.clone()).unwrap();
    let drawn = drawn.replace("\"loop\"", r#""loop","picture":{"height":40,"width":30,"seconds":0.02}"#);
    let listed = r#"[{"id":"A-v1","group":"g","max_episode_steps":5,"reward_threshold":1.5,"newer":"A-v2"}]"#;
    let told = [
        r#"{"kind":"unsupported","message":"no"}"#,
        r#"{"kind":"unknown","message":"no Pong","old":true,"known":["ALE/Pong-v5","Thing-v0","Thing-v1"]}"#,
        r#"{"kind":"unknown","message":"no Think","old":false,"known":["Thing-v0"]}"#,
        r#"{"kind":"missing","message":"no module","package":"ale_py"}"#,
        r#"{"kind":"exception","message":"Traceback\nError"}"#,
    ];
    // The first copy's episode was truncated, and there are two pictures.
    let memory = |choice: u8| {
        let mut memory = vec![1; 640];
        memory[192..].fill(0);
        (memory[320], memory[576]) = (1, 2);
        [vec![b'm', choice], memory].concat()
    };
    let mut seeds = vec![
        described(&parts, r#"{"type":"multi_discrete","nvec":[2,3]}"#),
        plain,
        said(b".", drawn.as_bytes()),
        [b"l".to_vec(), said(b".", listed.as_bytes())].concat(),
        b"r.".to_vec(),
        [b"t.".to_vec(), 0.25f64.to_le_bytes().to_vec()].concat(),
    ];
    seeds.extend((0..3).map(memory));
    // Failures are nothing that is accepted, but known.
    seeds.extend(told.map(|told| said(b"!", told.as_bytes())));
    seeds
}

/// A mark, and a message as it is sent.
fn said(mark: &[u8], json: &[u8]) -> Vec<u8> {
    [mark, &(json.len() as u32).to_le_bytes(), json].concat()
}

#[test]
fn failures_that_a_worker_tells_are_explained() {
    use impresario_actor::env::gymnasium::rehearsal;
    let explained: Vec<String> = worker_seeds()
        .iter()
        .filter(|seed| seed.starts_with(b"!"))
        .map(|seed| rehearsal::made("Thing-v0", seed).unwrap_err().to_string())
        .collect();
    let expected = ["no", "Thing-v1 is its newest", "did you mean", "-m pip install ale-py", "Traceback"];
    assert_eq!(explained.len(), expected.len());
    for (explained, expected) in explained.iter().zip(expected) {
        assert!(explained.contains(expected), "{explained:?} does not say {expected:?}");
    }
    for broken in [&b""[..], b".", b".\xff\xff\xff\xff", b"!\x02\0\0\0{}", b"x", b".\x09\0\0\0{}"] {
        assert!(rehearsal::made("Thing-v0", broken).is_err(), "{broken:?}");
    }
    for seconds in [f64::NAN, f64::INFINITY, -1.0] {
        assert!(rehearsal::timed(&[b".".to_vec(), seconds.to_le_bytes().to_vec()].concat()).is_err());
    }
}

#[test]
fn memory_in_which_no_worker_wrote_is_refused() {
    use impresario_actor::env::gymnasium::rehearsal;
    let (observation, action) = (Space::boxed(&[-1.0], &[1.0]), Space::Discrete { n: 2 });
    let written = |bytes: &[u8]| rehearsal::stepped(&observation, &action, bytes);
    let whole = written(&[]).unwrap();
    assert_eq!((whole.rewards, whole.truncated, whole.pictures), (vec![0.0; 2], vec![0; 2], 0));
    let error = written(&[2; 2000]).unwrap_err().to_string();
    assert!(error.contains("neither 0 nor 1"), "{error}");
}

fn snapshot_seeds() -> Vec<Vec<u8>> {
    let spec = EnvironmentSpec::new("Thing-v0", Space::boxed(&[-1.0], &[1.0]), Space::Discrete { n: 2 });
    let checkpoint = Trainer::new(&small(), &spec).unwrap().checkpoint(640).unwrap();
    vec![Snapshot { version: 3, weights: checkpoint.weights }.encode().unwrap()]
}

fn checkpoint_seeds() -> Vec<Vec<u8>> {
    let spec = EnvironmentSpec::new("Thing-v0", Space::boxed(&[-1.0], &[1.0]), Space::Discrete { n: 2 });
    vec![Trainer::new(&small(), &spec).unwrap().checkpoint(640).unwrap().encode().unwrap()]
}

fn small() -> RunConfig {
    RunConfig::from_toml("[policy]\nhidden = [2]\n[environment]\nid = \"Thing-v0\"\n").unwrap()
}

/// A parser, and bytes that it accepts.
struct Subject {
    name: &'static str,
    parse: fn(&[u8]) -> bool,
    seeds: Vec<Vec<u8>>,
}

static SUBJECTS: LazyLock<[Subject; 5]> = LazyLock::new(|| {
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok_and(parsers::configuration);
    [
        Subject { name: "unroll", parse: parsers::wire, seeds: wire_seeds() },
        Subject { name: "configuration", parse: text, seeds: configuration_seeds() },
        Subject { name: "checkpoint", parse: parsers::checkpoint, seeds: checkpoint_seeds() },
        Subject { name: "snapshot", parse: parsers::snapshot, seeds: snapshot_seeds() },
        Subject { name: "worker", parse: parsers::worker, seeds: worker_seeds() },
    ]
});

fn corpus(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fuzz/corpus", name].iter().collect()
}

/// After a change of a format run it with UPDATE_CORPUS=1, which writes the corpus anew.
#[test]
fn every_parser_accepts_what_was_written_and_bears_its_whole_corpus() {
    for subject in &*SUBJECTS {
        let folder = corpus(subject.name);
        for (index, seed) in subject.seeds.iter().enumerate() {
            let failure = subject.name == "worker" && seed.starts_with(b"!");
            assert!((subject.parse)(seed) != failure, "{} does not accept seed {index}", subject.name);
            if std::env::var_os("UPDATE_CORPUS").is_some() {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(folder.join(format!("seed-{index}")), seed).unwrap();
            }
        }
        let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let mut borne = 0;
        for file in files {
            (subject.parse)(&std::fs::read(file.unwrap().path()).unwrap());
            borne += 1;
        }
        assert!(borne >= subject.seeds.len(), "the corpus of {} is thin", subject.name);
    }
}

/// A change of some bytes.
#[derive(Debug, Clone)]
enum Change {
    Flip(usize, u8),
    Cut(usize),
    Insert(usize, Vec<u8>),
    /// Bytes of one place over those of another, as digits and keys that the format knows.
    Copy(usize, usize, usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let place = |at: &usize| at % bytes.len();
        match self {
            Self::Flip(at, mask) => {
                let at = place(at);
                bytes[at] ^= mask;
            }
            Self::Cut(at) => bytes.truncate(place(at)),
            Self::Insert(at, more) => {
                let at = place(at);
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Copy(from, to, length) => {
                let (from, to) = (place(from), place(to));
                let length = (*length).min(bytes.len() - from.max(to));
                bytes.copy_within(from..from + length, to);
            }
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let at = || 0usize..1 << 16;
    let number =
        prop_oneof![Just(vec![0xff; 9]), Just(b"18446744073709551615".to_vec()), Just(b"-1e999".to_vec())];
    prop_oneof![
        4 => (at(), 1u8..).prop_map(|(at, mask)| Change::Flip(at, mask)),
        1 => at().prop_map(Change::Cut),
        2 => (at(), prop_oneof![proptest::collection::vec(0u8.., 1..8), number])
            .prop_map(|(at, more)| Change::Insert(at, more)),
        2 => (at(), at(), 1usize..40).prop_map(|(from, to, length)| Change::Copy(from, to, length)),
    ]
}

/// What a fuzzer does, without a nightly compiler and without its sense of direction.
#[test]
#[ignore = "minutes: a million inputs for each parser"]
fn a_million_inputs_that_are_almost_right() {
    let changes = proptest::collection::vec(change(), 1..6);
    std::thread::scope(|scope| {
        for subject in &*SUBJECTS {
            let changes = &changes;
            scope.spawn(move || {
                let mut runner = TestRunner::deterministic();
                let mut accepted = 0;
                for index in 0..1_000_000 {
                    let mut bytes = subject.seeds[index % subject.seeds.len()].clone();
                    let changes = changes.new_tree(&mut runner).unwrap().current();
                    changes.iter().for_each(|change| change.apply(&mut bytes));
                    accepted += usize::from((subject.parse)(&bytes));
                }
                eprintln!("{}: 1000000 inputs, {accepted} accepted", subject.name);
            });
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_parser_panics_on_what_is_almost_right(
        index in 0usize..64,
        changes in proptest::collection::vec(change(), 1..6),
    ) {
        for subject in &*SUBJECTS {
            let mut bytes = subject.seeds[index % subject.seeds.len()].clone();
            changes.iter().for_each(|change| change.apply(&mut bytes));
            (subject.parse)(&bytes);
        }
    }

    #[test]
    fn no_parser_panics_on_noise(bytes in proptest::collection::vec(0u8.., 0..300)) {
        for subject in &*SUBJECTS {
            (subject.parse)(&bytes);
        }
    }
}
