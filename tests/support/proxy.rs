//! A network between actors and learner that a test can cut.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

/// Forwards connections to the learner.
pub(crate) struct Proxy {
    pub(crate) url: String,
    inner: Arc<Inner>,
}

struct Inner {
    learner: String,
    down: AtomicBool,
    /// Both ends of each connection: the actor's and the learner's.
    connections: Mutex<Vec<(TcpStream, TcpStream)>>,
}

impl Proxy {
    /// A proxy for the learner at `url`.
    pub(crate) fn start(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let own = format!("http://{}", listener.local_addr().expect("its address"));
        let learner = url.trim_start_matches("http://").to_owned();
        let inner = Arc::new(Inner { learner, down: AtomicBool::new(false), connections: Mutex::default() });
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

    /// Lets connections through again.
    pub(crate) fn restore(&self) {
        self.inner.down.store(false, SeqCst);
    }
}

impl Inner {
    fn connect(&self, actor: TcpStream) {
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
        std::thread::spawn(move || forward(from_actor, to_learner));
        std::thread::spawn(move || forward(from_learner, to_actor));
        connections.push((actor, learner));
    }
}

/// Copies until either end is gone. The far end is not told: only a cut closes it.
fn forward(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 1 << 14];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..n]).is_err() {
            return;
        }
    }
}
