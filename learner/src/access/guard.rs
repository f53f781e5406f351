//! [`Guard`]: asks every call for the token.

use std::sync::Arc;

use impresario_common::security::Token;
use tonic::service::Interceptor;
use tonic::{Request, Status};

use super::ration::Ration;
use super::socket::Peer;

/// What a call without a token is told.
const MISSING: &str = "this learner asks for a token: give --token-file, or set IMPRESARIO_TOKEN";

/// What a call with another token is told.
const WRONG: &str =
    "the token shown is not this learner's: compare --token-file or IMPRESARIO_TOKEN on both sides";

/// Asks every call for the token, if there is one.
#[derive(Debug, Clone)]
pub struct Guard {
    token: Option<Token>,
    refusals: Arc<Ration>,
}

impl Guard {
    /// Asks for `token`; for nothing, without one.
    pub fn new(token: Option<Token>) -> Self {
        Self { token, refusals: Arc::default() }
    }

    /// Judges what a call shows as its `authorization`.
    ///
    /// # Errors
    /// If it is not the token, with what to change.
    pub fn judge(&self, authorization: Option<&[u8]>) -> Result<(), &'static str> {
        match (&self.token, authorization) {
            (None, _) => Ok(()),
            (Some(_), None) => Err(MISSING),
            (Some(token), Some(shown)) if token.is_shown_by(shown) => Ok(()),
            (Some(_), Some(_)) => Err(WRONG),
        }
    }
}

impl Interceptor for Guard {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let shown = request.metadata().get("authorization").map(|value| value.as_bytes());
        if let Err(problem) = self.judge(shown) {
            let peer = request.extensions().get::<Peer>().copied().unwrap_or_default();
            self.refusals.warn(|| format!("refused a call from {peer}: {problem}"));
            return Err(Status::unauthenticated(problem));
        }
        Ok(request)
    }
}
