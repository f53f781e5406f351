//! How the learner is reached, what its refusals mean, and how long to keep trying.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use impresario_common::security::{Bearer, ClientFlags, trouble};
use impresario_common::wire::{MAX_FRAME_BYTES, MAX_MESSAGE_BYTES, REFUSAL_METADATA, v1};
use tokio::time::Instant;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};
use v1::learner_client::LearnerClient;

use crate::error::ActorError;

/// Time that opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time that an answer to a single call may take.
pub(crate) const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// A silent connection is probed this often, and given up when a probe stays unanswered as long: so late does an actor notice that
/// the learner's machine is gone, since nobody is left to tell it.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// Bytes that may be under way on one stream, and on one connection.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// Longest pause between two attempts, up to twice as long with its jitter: a learner that is back is found within seconds,
/// and hundreds of actors that look for it cost nothing.
const MAX_PAUSE: Duration = Duration::from_secs(1);

pub(crate) type Client = LearnerClient<InterceptedService<Channel, Bearer>>;

/// Where the learner is.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    url: String,
    endpoint: Endpoint,
    bearer: Bearer,
}

impl Address {
    /// # Errors
    /// If `url` is not of the form `http://HOST:PORT` or `https://HOST:PORT`, or does not go with `security`.
    pub(crate) fn parse(url: &str, security: &ClientFlags) -> Result<Self, ActorError> {
        let invalid = |problem: String| ActorError::Url { url: url.into(), problem };
        let uri: Uri = url.parse().map_err(|e| invalid(format!("{e}")))?;
        match uri.scheme_str() {
            Some("http" | "https") => {}
            Some(scheme) => return Err(invalid(format!("{scheme}:// is not supported"))),
            None => return Err(invalid("http:// or https:// is missing".into())),
        }
        if uri.port_u16().is_none() {
            return Err(invalid("the port is missing".into()));
        }
        let security = security.load(&uri)?;
        let endpoint = security
            .secure(Endpoint::from(uri))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(MAX_FRAME_BYTES);
        Ok(Self { url: url.into(), endpoint, bearer: security.bearer() })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Opens a connection of its own.
    pub(crate) async fn connect(&self) -> Result<Client, CallError> {
        let channel = self.endpoint.connect().await.map_err(|e| match trouble::explain(&e) {
            Some(problem) => CallError::Untrusted(problem),
            None => CallError::Unreachable(trouble::chain(&e)),
        })?;
        let client = LearnerClient::with_interceptor(channel, self.bearer.clone());
        Ok(client.max_decoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// The error for two sides whose security does not fit.
    pub(crate) fn untrusted(&self, problem: String) -> ActorError {
        ActorError::Untrusted { url: self.url.clone(), problem }
    }

    /// The error for a refusal that trying again would not change.
    pub(crate) fn refused(&self, message: String) -> ActorError {
        ActorError::Refused { url: self.url.clone(), message }
    }
}

/// `message` with the deadline of a single call.
pub(crate) fn with_deadline<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_DEADLINE);
    request
}

/// Why a call to the learner, or a stream, ended without an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CallError {
    /// No answer: worth another try.
    Unreachable(String),
    /// Security does not fit, and another try would not change that: what to change.
    Untrusted(String),
    /// The answer is no.
    Refused {
        /// The kind; unspecified where it is none of the contract's.
        refusal: v1::Refusal,
        /// The learner's words.
        message: String,
    },
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        if let Some(problem) = trouble::explain(&status) {
            return Self::Untrusted(problem);
        }
        let named = status.metadata().get(REFUSAL_METADATA).and_then(|name| name.to_str().ok());
        let message = || match status.message() {
            "" => status.code().to_string(),
            message => message.to_owned(),
        };
        if let Some(name) = named {
            let refusal = v1::Refusal::from_str_name(name).unwrap_or(v1::Refusal::Unspecified);
            return Self::Refused { refusal, message: message() };
        }
        match status.code() {
            Code::Unimplemented
            | Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::OutOfRange => Self::Refused {
                refusal: v1::Refusal::Unspecified,
                message: format!("{} ({})", message(), status.code()),
            },
            _ => Self::Unreachable(match std::error::Error::source(&status) {
                Some(source) => format!("{}: {}", message(), trouble::chain(source)),
                None => message(),
            }),
        }
    }
}

/// How long to keep trying, and how long to pause in between: jittered, so that many actors do not come back
/// to a restarted learner all at once, and longer each time.
#[derive(Debug)]
pub(crate) struct Patience {
    url: String,
    give_up_after: Duration,
    trouble: Option<Trouble>,
}

/// Time without the learner.
#[derive(Debug)]
struct Trouble {
    since: Instant,
    pauses: ExponentialBackoff,
}

impl Patience {
    pub(crate) fn new(address: &Address, give_up_after: Duration) -> Self {
        Self { url: address.url.clone(), give_up_after, trouble: None }
    }

    /// All is well again.
    pub(crate) fn renew(&mut self) {
        self.trouble = None;
    }

    /// Logs `problem` and pauses before the next attempt.
    ///
    /// # Errors
    /// If the learner has been away for too long.
    pub(crate) async fn pause(&mut self, problem: &str) -> Result<(), ActorError> {
        let trouble = self.trouble.get_or_insert_with(|| Trouble {
            since: Instant::now(),
            pauses: ExponentialBuilder::default()
                .with_min_delay(Duration::from_millis(100))
                .with_max_delay(MAX_PAUSE)
                .with_factor(2.0)
                .without_max_times()
                .with_jitter()
                .build(),
        });
        let remaining = self.give_up_after.saturating_sub(trouble.since.elapsed());
        if remaining.is_zero() {
            return Err(ActorError::GaveUp {
                url: self.url.clone(),
                seconds: self.give_up_after.as_secs_f64(),
                problem: problem.into(),
            });
        }
        tracing::warn!(
            "cannot reach the learner at {}: {problem}; trying again for another {:.0} s",
            self.url,
            remaining.as_secs_f64().ceil()
        );
        let pause = trouble.pauses.next().unwrap_or(MAX_PAUSE);
        tokio::time::sleep(pause.min(remaining)).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_cannot_be_used_says_why() {
        for (url, problem) in [
            ("localhost:7000", "http:// or https:// is missing"),
            ("ftp://host:7000", "ftp:// is not supported"),
            ("http://host", "port is missing"),
            ("http://ho st:7000", "invalid"),
            ("", "empty"),
        ] {
            let error = Address::parse(url, &ClientFlags::default()).unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains("http://HOST:PORT"), "{url}: {error}");
        }
        for url in ["http://127.0.0.1:7000", "http://learner:7000/"] {
            Address::parse(url, &ClientFlags::default()).unwrap();
        }
    }

    #[test]
    fn refusals_are_told_from_trouble_by_their_metadata() {
        let mut status = Status::failed_precondition("a newer incarnation has replaced it");
        assert!(matches!(CallError::from(status.clone()), CallError::Unreachable(_)));
        status.metadata_mut().insert(REFUSAL_METADATA, "REFUSAL_IDENTITY".parse().unwrap());
        let expected = CallError::Refused {
            refusal: v1::Refusal::Identity,
            message: "a newer incarnation has replaced it".into(),
        };
        assert_eq!(CallError::from(status), expected);
        assert!(matches!(CallError::from(Status::unavailable("")), CallError::Unreachable(_)));
        assert!(matches!(CallError::from(Status::unimplemented("")), CallError::Refused { .. }));
    }

    #[tokio::test(start_paused = true)]
    async fn no_pause_is_longer_than_two_seconds_however_long_the_learner_is_away() {
        let address = Address::parse("http://localhost:7000", &ClientFlags::default()).unwrap();
        let mut patience = Patience::new(&address, Duration::from_secs(3600));
        let mut longest = Duration::ZERO;
        loop {
            let start = Instant::now();
            let Ok(()) = patience.pause("nobody listens").await else { break };
            longest = longest.max(start.elapsed());
        }
        // The timer's grain is a millisecond.
        assert!(longest <= 2 * MAX_PAUSE + Duration::from_millis(1), "{longest:?}");
        assert!(2 * MAX_PAUSE <= Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn actors_that_lost_the_learner_together_do_not_come_back_together() {
        let address = Address::parse("http://localhost:7000", &ClientFlags::default()).unwrap();
        let mut attempts = vec![];
        for _ in 0..2 {
            let mut patience = Patience::new(&address, Duration::from_secs(60));
            let start = Instant::now();
            for _ in 0..10 {
                patience.pause("nobody listens").await.unwrap();
            }
            attempts.push(start.elapsed());
        }
        assert_ne!(attempts[0], attempts[1], "ten pauses of each");
    }

    #[tokio::test(start_paused = true)]
    async fn patience_pauses_longer_each_time_and_ends() {
        let address = Address::parse("http://localhost:7000", &ClientFlags::default()).unwrap();
        let mut patience = Patience::new(&address, Duration::from_secs(60));
        let mut attempts = 0;
        let start = Instant::now();
        let error = loop {
            match patience.pause("nobody listens").await {
                Ok(()) => attempts += 1,
                Err(error) => break error,
            }
        };
        assert!((60.0..61.0).contains(&start.elapsed().as_secs_f64()), "{:?}", start.elapsed());
        assert!((30..=66).contains(&attempts), "{attempts} attempts");
        assert!(error.to_string().contains("gave up after 60 s"), "{error}");
        patience.renew();
        patience.pause("gone again").await.unwrap();
    }
}
