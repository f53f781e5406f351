//! Whatever reads bytes that others wrote, called on arbitrary bytes: none may panic, and whatever one accepts must be the same
//! after being written and read again. Shared by tests/parsers.rs and the targets in fuzz/.

use std::sync::LazyLock;

use impresario_actor::env::gymnasium::rehearsal;
use impresario_common::config::{Compression, RunConfig};
use impresario_common::policy::Snapshot;
use impresario_common::space::{ElementType, EnvironmentSpec, Space};
use impresario_common::unroll::{Unroll, UnrollLayout};
use impresario_common::wire::v1;
use impresario_learner::checkpoint::Checkpoint;
use prost::Message;

/// Runs of several kinds.
pub(crate) static LAYOUTS: LazyLock<Vec<UnrollLayout>> = LazyLock::new(|| {
    let box_of = |n: usize| Space::boxed(&vec![-1.0; n], &vec![1.0; n]);
    let layout = |observation: Space, action| {
        UnrollLayout::new(2, &EnvironmentSpec::new("Thing-v0", observation, action))
    };
    let masked = EnvironmentSpec::new("Thing-v0", box_of(1), Space::MultiDiscrete { nvec: vec![3, 2] });
    let mut layouts = vec![
        layout(box_of(2), Space::Discrete { n: 2 }),
        layout(Space::Discrete { n: 3 }, box_of(2)),
        UnrollLayout::new(2, &masked.with_masked_actions()),
    ];
    for compression in [Compression::Lz4, Compression::Zstd] {
        let mut compressed = layouts[0].clone();
        (compressed.compression, compressed.frame_stack, compressed.core_state_len) = (compression, 3, 2);
        layouts.push(compressed);
    }
    layouts
});

/// Which run, and how many columns, a first byte means.
fn choice(byte: u8) -> (&'static UnrollLayout, usize) {
    let byte = usize::from(byte);
    (&LAYOUTS[byte % LAYOUTS.len()], 1 + byte / LAYOUTS.len() % 3)
}

/// An actor's message, and a request to join, after a byte that chooses the run. Says whether either was accepted.
pub(crate) fn wire(bytes: &[u8]) -> bool {
    let Some((first, bytes)) = bytes.split_first() else { return false };
    let (layout, copies) = choice(*first);
    let mut accepted = false;
    if let Ok(message) = v1::ActorMessage::decode(bytes)
        && let Some(v1::actor_message::Kind::Unroll(message)) = message.kind
        && let Ok(unroll) = Unroll::from_wire(message, layout, copies)
    {
        let again = Unroll::from_wire(unroll.to_wire(layout), layout, copies);
        assert_eq!(again.as_ref(), Ok(&unroll));
        accepted = true;
    }
    if let Ok(message) = v1::JoinRequest::decode(bytes)
        && let Some(environment) = message.environment
        && let Ok(spec) = EnvironmentSpec::try_from(environment)
    {
        assert_eq!(EnvironmentSpec::try_from(v1::EnvironmentSpec::from(&spec)), Ok(spec));
        accepted = true;
    }
    accepted
}

/// A configuration, as a file and as the JSON that actors are sent. Says whether it was accepted.
pub(crate) fn configuration(text: &str) -> bool {
    if let Ok(config) = serde_json::from_str::<RunConfig>(text) {
        // It may be out of range, and says so.
        let _ = config.validate();
    }
    let Ok(config) = RunConfig::from_toml(text) else { return false };
    let written = config.to_toml().expect("what was read can be written");
    assert_eq!(RunConfig::from_toml(&written).expect("what was written can be read"), config);
    true
}

/// Writes the checksum that a checkpoint's bytes should have, if there is a place for it: it would keep everything out that was not
/// written by us, and an attacker can compute it.
pub(crate) fn seal(bytes: &mut [u8]) {
    const KEY: &[u8] = b"\"crc32c\":\"";
    let Some(key) = bytes.windows(KEY.len()).position(|window| window == KEY) else { return };
    let start = key + KEY.len();
    let Some(digits) = bytes.get_mut(start..start + 8) else { return };
    digits.fill(b'0');
    let checksum = format!("{:08x}", crc32c::crc32c(bytes));
    bytes[start..start + 8].copy_from_slice(checksum.as_bytes());
}

/// A checkpoint's file, with a checksum that is right. Says whether it was accepted.
pub(crate) fn checkpoint(bytes: &[u8]) -> bool {
    let _ = Checkpoint::decode(bytes);
    let mut sealed = bytes.to_vec();
    seal(&mut sealed);
    let Ok(checkpoint) = Checkpoint::decode(&sealed) else { return false };
    let written = checkpoint.encode().expect("what was read can be written");
    let again = Checkpoint::decode(&written).expect("what was written can be read");
    assert_eq!((again.env_steps, again.policy_version), (checkpoint.env_steps, checkpoint.policy_version));
    assert_eq!((again.config, again.environment), (checkpoint.config, checkpoint.environment));
    true
}

/// Weights as an actor gets them. Says whether they were accepted.
pub(crate) fn snapshot(bytes: &[u8]) -> bool {
    Snapshot::decode(bytes).is_ok()
}

/// Spaces of observations and actions, for memory that is shared with a worker.
static SPACES: LazyLock<[(Space, Space); 3]> = LazyLock::new(|| {
    let pixels =
        Space::Box { low: vec![0.0; 4], high: vec![9.0; 4], shape: vec![2, 2], dtype: ElementType::U8 };
    let reals = Space::boxed(&[-1.0; 3], &[1.0; 3]);
    [
        (reals.clone(), Space::Discrete { n: 2 }),
        (pixels, reals),
        (Space::Discrete { n: 3 }, Space::MultiDiscrete { nvec: vec![2, 2] }),
    ]
});

/// All that an actor reads of a Python worker. The first byte says what comes: the answer to what it shall make as it is sent, or only the
/// JSON in it (`.`, `!`, `{`), the answer to a request to list (`l`), to a ring (`r`), to one that is timed (`t`), or what it
/// leaves in shared memory, after a byte that chooses the spaces (`m`). Says whether it was accepted.
pub(crate) fn worker(bytes: &[u8]) -> bool {
    let Some((first, rest)) = bytes.split_first() else { return false };
    let spec = match first {
        b'l' => return rehearsal::listed(rest).is_ok(),
        b'r' => return rehearsal::rung(rest).is_ok(),
        b't' => {
            let Ok(seconds) = rehearsal::timed(rest) else { return false };
            assert!(seconds.is_finite() && seconds >= 0.0);
            return true;
        }
        b'm' => return rest.split_first().is_some_and(|(choice, memory)| worker_memory(*choice, memory)),
        b'{' => rehearsal::described("Thing-v0", bytes),
        _ => rehearsal::made("Thing-v0", bytes).map_err(|failure| failure.to_string()),
    };
    let Ok(spec) = spec else { return false };
    // It goes to the learner next, which may refuse it.
    let _ = EnvironmentSpec::try_from(v1::EnvironmentSpec::from(&spec));
    true
}

fn worker_memory(choice: u8, memory: &[u8]) -> bool {
    let (observation, action) = &SPACES[usize::from(choice) % SPACES.len()];
    let Ok(stepped) = rehearsal::stepped(observation, action, memory) else { return false };
    let ends = stepped.truncated.iter().zip(&stepped.terminated);
    assert!(ends.clone().all(|(truncated, terminated)| *truncated.max(terminated) <= 1));
    let cut: Vec<usize> =
        (0..).zip(ends).filter(|(_, (cut, over))| cut > over).map(|(copy, _)| copy).collect();
    assert_eq!(stepped.finals.iter().map(|(copy, _)| *copy).collect::<Vec<_>>(), cut);
    assert!(stepped.pictures <= 2);
    true
}
