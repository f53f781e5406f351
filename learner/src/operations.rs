//! The operations port: `/metrics` for Prometheus, and health for probes that speak gRPC without TLS, as orchestrators' do.
//!
//! Plain HTTP, 1 and 2. Metrics ask for the token if there is one (Prometheus shows it as `authorization`); health asks for nothing.

use std::future::Future;
use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use impresario_common::wire::v1::learner_server::LearnerServer;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::access::Guard;
use crate::report::EXPOSITION_CONTENT_TYPE;
use crate::service::LearnerService;

/// Calls of one connection at a time.
const CONCURRENT_CALLS: usize = 16;

/// Serves what `metrics` says, to those whom `guard` lets, and health, until `stopped` completes.
///
/// # Errors
/// If the transport fails.
pub async fn serve(
    metrics: impl Fn() -> String + Send + Sync + 'static,
    guard: Guard,
    listener: TcpListener,
    stopped: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
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
        .concurrency_limit_per_connection(CONCURRENT_CALLS)
        .add_routes(Routes::from(router))
        .serve_with_incoming_shutdown(TcpIncoming::from(listener), stopped)
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
