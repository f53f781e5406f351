//! A network between actors and learner that a test can cut.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Forwards connections to the learner.
pub(crate) struct Proxy {
    pub(crate) url: String,
    inner: Arc<Inner>,
}

struct Inner {
    learner: String,
    down: AtomicBool,
    partitioned: AtomicBool,
    /// Both ends of each connection: the actor's and the learner's.
    connections: Mutex<Vec<(TcpStream, TcpStream)>>,
}

impl Proxy {
    /// A proxy for the learner at `url`.
    pub(crate) fn start(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let own = format!("http://{}", listener.local_addr().expect("its address"));
        let learner = url.trim_start_matches("http://").to_owned();
        let inner = Arc::new(Inner {
            learner,
            down: AtomicBool::new(false),
            partitioned: AtomicBool::new(false),
            connections: Mutex::default(),
        });
        let accepting = inner.clone();
        std::thread::spawn(move || {
            for actor in listener.incoming().map_while(Result::ok) {
                accepting.connect(actor);
            }
        });
        Self { url: own, inner }
    }

    /// Cuts every connection, and refuses new ones until [`Self::restore`].
    pub(crate) fn cut(&self) {
        self.inner.down.store(true, SeqCst);
        for (actor, learner) in self.inner.connections.lock().expect("nobody panics").drain(..) {
            // It may have ended by itself.
            let _ = actor.shutdown(Shutdown::Both);
            let _ = learner.shutdown(Shutdown::Both);
        }
    }

    /// Cuts the actors off, without a word to the learner: its ends stay open, and silent.
    pub(crate) fn cut_unheard(&self) {
        for (actor, _) in self.inner.connections.lock().expect("nobody panics").iter() {
            let _ = actor.shutdown(Shutdown::Both);
        }
    }

    /// Nothing gets through any more, and nobody is told: connections stay open, and silent, on both sides, as when a cable
    /// is pulled. What was sent meanwhile arrives after [`Self::restore`].
    pub(crate) fn partition(&self) {
        self.inner.partitioned.store(true, SeqCst);
    }

    /// Lets connections through again.
    pub(crate) fn restore(&self) {
        self.inner.down.store(false, SeqCst);
        self.inner.partitioned.store(false, SeqCst);
    }
}

impl Inner {
    fn connect(self: &Arc<Self>, actor: TcpStream) {
        // Under the lock: a connection is either refused or known to whoever cuts.
        let mut connections = self.connections.lock().expect("nobody panics");
        if self.down.load(SeqCst) {
            return;
        }
        let Ok(learner) = TcpStream::connect(&self.learner) else { return };
        for socket in [&actor, &learner] {
            socket.set_nodelay(true).expect("a socket");
        }
        let clone = |socket: &TcpStream| socket.try_clone().expect("a socket");
        let (from_actor, from_learner) = (clone(&actor), clone(&learner));
        let (to_actor, to_learner) = (clone(&actor), clone(&learner));
        let (up, down) = (self.clone(), self.clone());
        std::thread::spawn(move || up.forward(from_actor, to_learner));
        std::thread::spawn(move || down.forward(from_learner, to_actor));
        connections.push((actor, learner));
    }

    /// Copies until either end is gone. The far end is not told: only a cut closes it.
    fn forward(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = [0; 1 << 14];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            while self.partitioned.load(SeqCst) {
                std::thread::sleep(Duration::from_millis(20));
            }
            if to.write_all(&buffer[..n]).is_err() {
                return;
            }
        }
    }
}
