//! Machines on a network of their own: Linux network namespaces, each with an address and a cable to one switch.
//!
//! A cable can be pulled: nothing gets through any more, and nobody is told. A bad cable delays, reorders and loses frames; it is
//! made of two TAP devices and the threads between them, since few kernels have what `tc netem` needs. All of it takes root and
//! `ip` (iproute2), and vanishes with what is dropped, namespaces of tests that were killed included.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sched::{CloneFlags, setns};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::support::{self, Process};

/// Where namespaces lie that have a name.
const NAMESPACES: &str = "/run/netns";
/// What our namespaces are called, before the number of the process that made them.
const PREFIX: &str = "impresario-test-";
/// Longest wait of a bad cable before it looks whether it is still needed.
const IDLE: Duration = Duration::from_millis(100);
/// Bytes of the longest frame, with room to spare.
const FRAME: usize = 2048;

/// Runs `ip` with `args`.
fn ip(args: &[&str]) -> Result<(), String> {
    let output =
        Command::new("ip").args(args).stdin(Stdio::null()).output().map_err(|e| format!("ip: {e}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// As [`ip`], where it can only fail by a mistake of the test.
fn must(args: &[&str]) {
    ip(args).unwrap_or_else(|problem| panic!("{problem}"));
}

/// A namespace with a name, removed with this.
struct Namespace(String);

impl Namespace {
    /// One whose name no other has.
    fn create() -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("{PREFIX}{}-{}", std::process::id(), NUMBER.fetch_add(1, SeqCst));
        ip(&["netns", "add", &name])?;
        Ok(Self(name))
    }

    /// Moves the thread that calls this into the namespace.
    fn enter(&self) {
        let file = File::open(Path::new(NAMESPACES).join(&self.0)).expect("it exists");
        setns(file, CloneFlags::CLONE_NEWNET).expect("a thread may enter a namespace");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = ip(&["netns", "del", &self.0]);
    }
}

/// Removes the namespaces of tests that were killed.
fn remove_leftovers() {
    for entry in std::fs::read_dir(NAMESPACES).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = ip(&["netns", "del", &name]);
        }
    }
}

/// A switch, to which hosts are connected.
pub(crate) struct Network {
    switch: Arc<Namespace>,
    ports: AtomicU32,
}

impl Network {
    /// A network without hosts; `None`, with the reason on the terminal, where none can be made.
    pub(crate) fn create() -> Option<Self> {
        remove_leftovers();
        let skipped = |problem: String| eprintln!("skipped: no network of our own here: {problem}");
        let switch = Namespace::create().map_err(skipped).ok()?;
        let bridge = ["-n", &switch.0, "link", "add", "switch", "up", "type", "bridge"];
        ip(&bridge).map_err(skipped).ok()?;
        Some(Self { switch: Arc::new(switch), ports: AtomicU32::new(0) })
    }

    /// A host with the address 10.77.0.`number`. Its hardware address goes with that, so that another host can take both over,
    /// as floating addresses are.
    pub(crate) fn host(&self, number: u8) -> Host {
        let host = self.unconnected(number, None);
        let pair = ["-n", &self.switch.0, "link", "add", &host.port, "type", "veth"];
        must(&[&pair[..], &["peer", "name", "eth0", "netns", &host.namespace.0]].concat());
        self.connect(host)
    }

    /// As [`Self::host`], but by a bad cable; `None`, with the reason on the terminal, where there are no TAP devices.
    pub(crate) fn far_host(&self, number: u8, quality: Quality) -> Option<Host> {
        let mut host = self.unconnected(number, None);
        match BadCable::lay(&host.namespace, "eth0", &self.switch, &host.port, quality) {
            Ok(cable) => host.cable = Some(cable),
            Err(problem) => {
                eprintln!("skipped: no TAP devices here: {problem}");
                return None;
            }
        }
        Some(self.connect(host))
    }

    fn unconnected(&self, number: u8, cable: Option<BadCable>) -> Host {
        Host {
            cable,
            namespace: Namespace::create().unwrap_or_else(|problem| panic!("{problem}")),
            switch: self.switch.clone(),
            port: format!("port{}", self.ports.fetch_add(1, SeqCst)),
            number,
        }
    }

    fn connect(&self, host: Host) -> Host {
        let name = host.namespace.0.as_str();
        let hardware = format!("02:00:0a:4d:00:{:02x}", host.number);
        must(&["-n", &self.switch.0, "link", "set", &host.port, "master", "switch", "up"]);
        must(&["-n", name, "link", "set", "lo", "up"]);
        must(&["-n", name, "link", "set", "eth0", "address", &hardware]);
        must(&["-n", name, "address", "add", &format!("{}/24", host.address()), "dev", "eth0"]);
        must(&["-n", name, "link", "set", "eth0", "up"]);
        host
    }
}

/// A machine.
pub(crate) struct Host {
    /// Ends before the devices that it is made of.
    cable: Option<BadCable>,
    namespace: Namespace,
    switch: Arc<Namespace>,
    /// Its cable's end at the switch.
    port: String,
    number: u8,
}

impl Host {
    pub(crate) fn address(&self) -> String {
        format!("10.77.0.{}", self.number)
    }

    /// Starts `impresario` with `args` here.
    pub(crate) fn start(&self, args: &[&str]) -> Process {
        let mut command = Command::new("ip");
        // It becomes the program that it starts.
        command.args(["netns", "exec", &self.namespace.0, support::BINARY]);
        support::start_by(command, args, &[])
    }

    /// Pulls the cable out of the switch: connections stay open, and silent, on both sides.
    pub(crate) fn unplug(&self) {
        must(&["-n", &self.switch.0, "link", "set", &self.port, "down"]);
    }

    /// Puts it in again.
    pub(crate) fn plug(&self) {
        must(&["-n", &self.switch.0, "link", "set", &self.port, "up"]);
    }

    /// Frames that a bad cable has carried and lost.
    pub(crate) fn traffic(&self) -> (u64, u64) {
        let count = |counter: fn(&Counts) -> &AtomicU64| {
            self.cable.as_ref().map_or(0, |cable| counter(&cable.counts).load(SeqCst))
        };
        (count(|counts| &counts.carried), count(|counts| &counts.lost))
    }
}

/// What a bad cable does to each frame, both ways.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quality {
    /// How long it is under way.
    pub(crate) delay: Duration,
    /// By how much more or less, evenly spread: frames overtake each other.
    pub(crate) jitter: Duration,
    /// Share of the frames that are lost.
    pub(crate) loss: f64,
}

#[derive(Debug, Default)]
struct Counts {
    carried: AtomicU64,
    lost: AtomicU64,
}

/// Carries frames between two devices.
struct BadCable {
    counts: Arc<Counts>,
    cut: Arc<AtomicBool>,
    directions: Vec<std::thread::JoinHandle<()>>,
}

impl BadCable {
    fn lay(
        here: &Namespace,
        device: &str,
        there: &Namespace,
        port: &str,
        quality: Quality,
    ) -> Result<Self, String> {
        let ends = [(here, device), (there, port)];
        // The namespace of a thread is that of the devices it makes.
        let tap = |(namespace, name): (&Namespace, &str)| {
            std::thread::scope(|scope| {
                let making = scope.spawn(|| {
                    namespace.enter();
                    tap(name)
                });
                making.join().expect("making a device does not panic")
            })
        };
        let ends = ends.map(|end| tap(end).map_err(|e| e.to_string()));
        let [here, there] = ends;
        let (here, there) = (here?, there?);
        let clone = |end: &File| end.try_clone().map_err(|e| e.to_string());
        let ways = [(clone(&here)?, clone(&there)?), (there, here)];
        let (counts, cut) = <(Arc<Counts>, Arc<AtomicBool>)>::default();
        let directions = ways.into_iter().zip(1..).map(|((from, to), seed)| {
            let random = ChaCha8Rng::seed_from_u64(seed);
            let way = Way { from, to, quality, random, counts: counts.clone(), cut: cut.clone() };
            std::thread::spawn(move || way.carry())
        });
        let directions = directions.collect();
        Ok(Self { counts, cut, directions })
    }
}

impl Drop for BadCable {
    fn drop(&mut self) {
        self.cut.store(true, SeqCst);
        for direction in self.directions.drain(..) {
            let _ = direction.join();
        }
    }
}

/// One way through a bad cable.
struct Way {
    from: File,
    to: File,
    quality: Quality,
    random: ChaCha8Rng,
    counts: Arc<Counts>,
    cut: Arc<AtomicBool>,
}

impl Way {
    fn carry(mut self) {
        // By when they arrive, then by when they came.
        let mut under_way: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>> = BinaryHeap::new();
        let mut frame = [0; FRAME];
        for number in 0u64.. {
            if self.cut.load(SeqCst) {
                return;
            }
            let mut wait = IDLE;
            while let Some(Reverse((due, ..))) = under_way.peek() {
                wait = due.saturating_duration_since(Instant::now());
                if !wait.is_zero() {
                    break;
                }
                let Some(Reverse((_, _, frame))) = under_way.pop() else { break };
                // A pulled cable takes nothing.
                let _ = self.to.write(&frame);
                wait = IDLE;
            }
            let milliseconds = wait.min(IDLE).as_micros().div_ceil(1000) as u16;
            let mut ready = [PollFd::new(self.from.as_fd(), PollFlags::POLLIN)];
            if !matches!(poll(&mut ready, milliseconds), Ok(1)) {
                continue;
            }
            match self.from.read(&mut frame) {
                Ok(length) if self.random.random_bool(1.0 - self.quality.loss) => {
                    self.counts.carried.fetch_add(1, SeqCst);
                    under_way.push(Reverse((self.due(), number, frame[..length].to_vec())));
                }
                Ok(_) => drop(self.counts.lost.fetch_add(1, SeqCst)),
                // The device is down, or has gone.
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// When a frame that comes now arrives.
    fn due(&mut self) -> Instant {
        let Quality { delay, jitter, .. } = self.quality;
        Instant::now() + delay.saturating_sub(jitter) + (2 * jitter).mul_f64(self.random.random())
    }
}

nix::ioctl_write_ptr_bad!(set_interface, libc::TUNSETIFF, libc::ifreq);

/// Makes a TAP device in the namespace of the thread that calls this; it is gone when the file is closed.
fn tap(name: &str) -> std::io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    let file = options.open("/dev/net/tun")?;
    let mut ifr_name = [0; libc::IFNAMSIZ];
    for (to, from) in ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let ifr_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    let request = libc::ifreq { ifr_name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: ifr_flags } };
    // SAFETY: the request is what this call reads, and outlives it; the name ends with a zero.
    unsafe { set_interface(file.as_raw_fd(), &request) }?;
    Ok(file)
}
