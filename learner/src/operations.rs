//! The operations port: `/metrics` for Prometheus, and health for probes that speak gRPC without TLS, as orchestrators' do.
//!
//! Plain HTTP, 1 and 2. Metrics ask for the token if there is one (Prometheus shows it as `authorization`); health asks for nothing.
//! Whoever watches a run must not be able to harm it: connections are counted and live for a while only, and a port that fails is
//! told of in the log while training goes on.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use impresario_common::wire::v1::learner_server::LearnerServer;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::Server;

use crate::access::{Behind, Guard, Places, incoming};
use crate::report::EXPOSITION_CONTENT_TYPE;
use crate::service::LearnerService;

/// Calls of one connection at a time.
const CONCURRENT_CALLS: usize = 16;

/// How much of the learner the port may take up.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Connections at a time.
    connections: usize,
    /// Time after which a connection is asked to end, so that none is held for ever; whoever wants more opens another.
    age: Duration,
    /// Time that it may take to do so.
    grace: Duration,
    /// Time for a call. (The head of a request of HTTP/1 has half a minute, which is hyper's own.)
    call: Duration,
}

const BOUNDS: Bounds = Bounds {
    connections: 64,
    age: Duration::from_secs(120),
    grace: Duration::from_secs(10),
    call: Duration::from_secs(10),
};

/// How often a connection that says nothing is asked whether it is still there, and the time for an answer.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Serves what `metrics` says, to those whom `guard` lets, and health, for as long as this future lives. Should that fail, the log says
/// so and nothing else happens.
pub async fn keep_serving(
    metrics: impl Fn() -> String + Send + Sync + 'static,
    guard: Guard,
    listener: TcpListener,
) {
    // In a task of its own, so that a panic is told like any other failure.
    let serving = tokio::spawn(serve(metrics, guard, listener, BOUNDS, std::future::pending()));
    tell_failure(AbortOnDrop(serving)).await;
}

/// A task that ends when this goes out of scope.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Waits for the end of a server that should have none, and says what it was.
async fn tell_failure<E: std::fmt::Display>(mut serving: AbortOnDrop<Result<(), E>>) {
    let problem = match (&mut serving.0).await {
        Ok(Ok(())) => "it has ended".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => panic.to_string(),
    };
    tracing::error!("metrics and health are not served any more, and training goes on without: {problem}");
}

async fn serve(
    metrics: impl Fn() -> String + Send + Sync + 'static,
    guard: Guard,
    listener: TcpListener,
    bounds: Bounds,
    stopped: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let places = Places {
        limit: bounds.connections,
        name: "the metrics port's limit of connections",
        full: "as many ask for metrics and health as this learner permits: ask again later",
    };
    let incoming = incoming(listener, Behind::Http, places, KEEPALIVE);
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<LearnerServer<LearnerService>>().await;
    let metrics = Arc::new(metrics);
    let page = get(move |headers: HeaderMap| {
        let (metrics, guard) = (metrics.clone(), guard.clone());
        async move { answer(&*metrics, &guard, &headers) }
    });
    let router = Routes::new(health_service).into_axum_router().route("/metrics", page);
    Server::builder()
        .accept_http1(true)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .max_connection_age(bounds.age)
        .max_connection_age_grace(bounds.grace)
        .timeout(bounds.call)
        .concurrency_limit_per_connection(CONCURRENT_CALLS)
        .add_routes(Routes::from(router))
        .serve_with_incoming_shutdown(incoming, stopped)
        .await
}

fn answer(metrics: &impl Fn() -> String, guard: &Guard, headers: &HeaderMap) -> Response {
    let shown = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
    match guard.judge(shown) {
        Ok(()) => ([(header::CONTENT_TYPE, EXPOSITION_CONTENT_TYPE)], metrics()).into_response(),
        Err(problem) => {
            (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], format!("{problem}\n"))
                .into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::time::timeout;

    use super::*;

    /// Longest wait for anything that must happen.
    const DEADLINE: Duration = Duration::from_secs(60);

    /// A port with these bounds.
    async fn port(bounds: Bounds) -> (SocketAddr, AbortOnDrop<Result<(), tonic::transport::Error>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = serve(|| "a 1\n".into(), Guard::new(None), listener, bounds, std::future::pending());
        (address, AbortOnDrop(tokio::spawn(serving)))
    }

    async fn connect(address: SocketAddr, words: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(words).await.unwrap();
        stream
    }

    /// What comes until the other side ends the connection.
    async fn rest(stream: &mut TcpStream) -> String {
        let mut answer = vec![];
        // A connection that is cut takes back what it said.
        let _ = timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("the connection is ended");
        String::from_utf8_lossy(&answer).into_owned()
    }

    const ASK: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

    #[tokio::test]
    async fn connections_are_counted_and_those_beyond_are_told() {
        let (address, _serving) = port(Bounds { connections: 2, age: DEADLINE, ..BOUNDS }).await;
        let mut held = vec![connect(address, b"GET /met").await, connect(address, b"GET /metr").await];
        let full = rest(&mut connect(address, ASK).await).await;
        assert!(full.starts_with("HTTP/1.1 503"), "{full}");
        held.pop();
        let answered = async {
            loop {
                let answer = rest(&mut connect(address, ASK).await).await;
                if answer.starts_with("HTTP/1.1 200") {
                    return answer;
                }
            }
        };
        let answer = timeout(DEADLINE, answered).await.expect("a place is free again");
        assert!(answer.ends_with("a 1\n"), "{answer}");
        let tls = rest(&mut connect(address, &[0x16, 3, 1]).await).await;
        assert!(tls.starts_with("HTTP/1.1 503") || tls.starts_with("HTTP/1.1 400"), "{tls}");
    }

    #[tokio::test]
    async fn a_request_that_does_not_get_on_is_cut_off_and_makes_room() {
        let moment = Duration::from_millis(50);
        let (address, _serving) = port(Bounds { connections: 1, age: moment, grace: moment, ..BOUNDS }).await;
        let mut slow = connect(address, b"GET /metrics HTTP/1.1\r\nHost").await;
        assert!(!rest(&mut slow).await.contains("200"));
        let answered =
            async { while !rest(&mut connect(address, ASK).await).await.starts_with("HTTP/1.1 200") {} };
        timeout(DEADLINE, answered).await.expect("its place is free again");
    }

    /// A log that is kept.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_port_that_fails_is_told_of_in_the_log() {
        let log = Kept::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        tell_failure(AbortOnDrop(tokio::spawn(async { Err("out of order") }))).await;
        tell_failure(AbortOnDrop(tokio::spawn(async { Ok::<(), String>(()) }))).await;
        async fn fails() -> Result<(), String> {
            panic!("it fell over")
        }
        tell_failure(AbortOnDrop(tokio::spawn(fails()))).await;
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert_eq!(log.matches("ERROR").count(), 3, "{log}");
        for said in ["out of order", "it has ended", "it fell over", "training goes on without"] {
            assert!(log.contains(said), "{log}");
        }
    }
}
