//! Connections for the gRPC service and the operations port: accepted, counted, encrypted, and looked at before HTTP has them, so that
//! whoever speaks something else is told so and costs little.
//!
//! Every connection has a moment to show how it begins. The wrong beginning is answered in the language of whoever began: HTTP/2
//! with a GOAWAY whose text says what to change, anything else with a line of HTTP/1.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use impresario_common::security::trouble::{SPEAKS_PLAINLY, SPEAKS_TLS};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;

use super::ration::Ration;
use super::socket::{Peer, Socket, Stream};

/// Time for TLS's handshake, or a plain connection's first bytes.
const GREETING: Duration = Duration::from_secs(10);

/// Time that a connection which is turned away may take to read why.
const FAREWELL: Duration = Duration::from_secs(1);

/// Connections that may be turned away at once; beyond them nobody is told why.
const TURNING_AWAY: usize = 64;

/// Pause after a failure to accept, say because no more files may be open.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// How HTTP/2 begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The first byte of TLS: the type of a handshake's record.
const TLS_HANDSHAKE: u8 = 0x16;

/// Statuses of HTTP/1.
const BAD_REQUEST: &str = "400 Bad Request";
const SERVICE_UNAVAILABLE: &str = "503 Service Unavailable";

/// Reasons of HTTP/2 to end a connection.
const INADEQUATE_SECURITY: u32 = 0xc;
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// What is behind a door.
pub(crate) enum Behind {
    /// gRPC, encrypted if there are means to.
    Grpc(Option<TlsAcceptor>),
    /// Plain HTTP, 1 or 2.
    Http,
}

/// How many may be behind a door at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places {
    pub(crate) limit: usize,
    /// What the limit is called.
    pub(crate) name: &'static str,
    /// What is said to those beyond it.
    pub(crate) full: &'static str,
}

/// The connections that come to `listener`, no more at a time than there are places. The listener is closed when the stream is
/// dropped.
pub(crate) fn incoming(
    listener: TcpListener,
    behind: Behind,
    places: Places,
    keepalive: Duration,
) -> ReceiverStream<io::Result<Socket>> {
    let (accepted, connections) = mpsc::channel(1);
    let door = Arc::new(Door { behind, accepted, places, keepalive, turned_away: Ration::default() });
    tokio::spawn(accept(listener, door));
    ReceiverStream::new(connections)
}

struct Door {
    behind: Behind,
    accepted: mpsc::Sender<io::Result<Socket>>,
    places: Places,
    keepalive: Duration,
    turned_away: Ration,
}

async fn accept(listener: TcpListener, door: Arc<Door>) {
    let places = Arc::new(Semaphore::new(door.places.limit));
    let leaving = Arc::new(Semaphore::new(TURNING_AWAY));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = door.accepted.closed() => return,
        };
        let (stream, peer) = match accepted {
            Ok((stream, peer)) => (stream, Peer(Some(peer))),
            Err(error) => {
                door.turned_away.warn(|| format!("cannot accept a connection: {error}"));
                tokio::time::sleep(AFTER_FAILURE).await;
                continue;
            }
        };
        let door = door.clone();
        if let Ok(place) = places.clone().try_acquire_owned() {
            tokio::spawn(async move { door.let_in(stream, peer, place).await });
            continue;
        }
        let Places { limit, name, .. } = door.places;
        door.turned_away.warn(|| format!("turned {peer} away: {name} is {limit}"));
        if let Ok(place) = leaving.clone().try_acquire_owned() {
            tokio::spawn(async move { door.turn_away(stream, place).await });
        }
    }
}

/// Why a connection does not become one of HTTP/2.
enum Misfit {
    /// It ended, or took too long.
    Gone(String),
    /// It began as something else.
    Speaks(&'static str),
    /// TLS was not agreed on.
    Handshake(io::Error),
}

impl Door {
    async fn let_in(&self, stream: TcpStream, peer: Peer, place: OwnedSemaphorePermit) {
        match self.greet(stream).await {
            // Nobody takes it any more at the learner's end.
            Ok((stream, _)) => drop(self.accepted.send(Ok(Socket { stream, peer, _place: place })).await),
            Err(Misfit::Gone(how)) => tracing::debug!("{peer} {how}"),
            Err(Misfit::Speaks(what)) => {
                self.turned_away.warn(|| format!("turned {peer} away: it speaks {what}"));
            }
            Err(Misfit::Handshake(error)) => {
                self.turned_away.warn(|| format!("turned {peer} away: no TLS with it: {error}"));
            }
        }
    }

    async fn turn_away(&self, stream: TcpStream, _place: OwnedSemaphorePermit) {
        match self.greet(stream).await {
            Ok((mut stream, Language::Http1)) => {
                farewell(&mut stream, &line(SERVICE_UNAVAILABLE, self.places.full)).await;
            }
            Ok((mut stream, Language::Http2)) => {
                farewell(&mut stream, &goaway(ENHANCE_YOUR_CALM, self.places.full)).await;
            }
            Err(_) => {}
        }
    }

    /// Waits for how a connection begins, and encrypts it if that is asked for. Who begins otherwise is told.
    async fn greet(&self, mut stream: TcpStream) -> Result<(Stream, Language), Misfit> {
        let set = stream.set_nodelay(true).and_then(|()| self.keep_alive(&stream));
        set.map_err(|e| Misfit::Gone(format!("is gone: {e}")))?;
        let encrypts = matches!(self.behind, Behind::Grpc(Some(_)));
        let opening = timeout(GREETING, opening(&stream, encrypts)).await;
        let opening = opening
            .map_err(|_| Misfit::Gone("said nothing".into()))?
            .map_err(|e| Misfit::Gone(format!("is gone: {e}")))?;
        match (opening, &self.behind) {
            (Opening::Http2, Behind::Grpc(None) | Behind::Http) => {
                Ok((Stream::Plain(stream), Language::Http2))
            }
            (Opening::Other, Behind::Http) => Ok((Stream::Plain(stream), Language::Http1)),
            (Opening::Tls, Behind::Grpc(Some(tls))) => Ok((handshake(tls, stream).await?, Language::Http2)),
            (Opening::Http2, Behind::Grpc(Some(_))) => {
                farewell(&mut stream, &goaway(INADEQUATE_SECURITY, SPEAKS_TLS)).await;
                Err(Misfit::Speaks("HTTP/2 without TLS"))
            }
            (Opening::Tls, Behind::Grpc(None) | Behind::Http) => {
                farewell(&mut stream, &line(BAD_REQUEST, SPEAKS_PLAINLY)).await;
                Err(Misfit::Speaks(match self.behind {
                    Behind::Http => "TLS, which --metrics-listen does not",
                    Behind::Grpc(_) => "TLS, and this learner has no --tls-cert",
                }))
            }
            (Opening::Other, Behind::Grpc(_)) => {
                let text = "a learner of Impresario listens here and speaks gRPC";
                farewell(&mut stream, &line(BAD_REQUEST, text)).await;
                Err(Misfit::Speaks("neither gRPC nor TLS"))
            }
        }
    }

    fn keep_alive(&self, stream: &TcpStream) -> io::Result<()> {
        let settings = socket2::TcpKeepalive::new().with_time(self.keepalive);
        socket2::SockRef::from(stream).set_tcp_keepalive(&settings)
    }
}

/// What a connection speaks that is let in.
enum Language {
    Http1,
    Http2,
}

/// How a connection begins.
enum Opening {
    Http2,
    Tls,
    Other,
}

/// Looks at the first bytes, and leaves them where they are.
async fn opening(stream: &TcpStream, first_byte_says_enough: bool) -> io::Result<Opening> {
    let mut first = [0; PREFACE.len()];
    loop {
        let seen = stream.peek(&mut first).await?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if first[0] == TLS_HANDSHAKE {
            return Ok(Opening::Tls);
        }
        if first[..seen] != PREFACE[..seen] {
            return Ok(Opening::Other);
        }
        // With TLS it is wrong anyway, and three letters are enough to know in which language to say so.
        if seen == PREFACE.len() || first_byte_says_enough && seen >= 3 {
            return Ok(Opening::Http2);
        }
        // A peek does not wait for more than there is.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn handshake(tls: &TlsAcceptor, stream: TcpStream) -> Result<Stream, Misfit> {
    let accepting = timeout(GREETING, tls.accept(stream).into_fallible()).await;
    match accepting.map_err(|_| Misfit::Gone("did not finish TLS's handshake".into()))? {
        Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
        Err((error, mut stream)) => {
            // The alert is on its way; closing at once could overtake it.
            farewell(&mut stream, &[]).await;
            Err(Misfit::Handshake(error))
        }
    }
}

/// Says `words` and ends a connection, reading on for a moment: what is closed with bytes unread takes back what was said.
async fn farewell(stream: &mut (impl AsyncWrite + AsyncReadExt + Unpin), words: &[u8]) {
    let _ = timeout(FAREWELL, async {
        stream.write_all(words).await?;
        stream.shutdown().await?;
        let mut unread = [0; 1024];
        while stream.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    })
    .await;
}

/// The settings with which HTTP/2 begins, and a GOAWAY for `reason` that says `text`.
fn goaway(reason: u32, text: &str) -> Vec<u8> {
    // An empty frame; and type, flags and stream of the other.
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const GOAWAY: [u8; 6] = [7, 0, 0, 0, 0, 0];
    let length = 8 + text.len() as u32;
    let mut frames = SETTINGS.to_vec();
    frames.extend(&length.to_be_bytes()[1..]);
    frames.extend(GOAWAY);
    // The last stream that was served: none.
    frames.extend(0u32.to_be_bytes());
    frames.extend(reason.to_be_bytes());
    frames.extend(text.as_bytes());
    frames
}

/// An answer in HTTP/1, which people and most programs can read.
fn line(status: &str, text: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{text}\n",
        text.len() + 1
    )
    .into_bytes()
}
