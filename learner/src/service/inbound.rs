//! [`Inbound`]: an actor's messages, decoded from the very frames in which they came.
//!
//! tonic's reader gathers every message in a buffer of its own before it decodes it. Here an array that lies in one
//! HTTP/2 frame is shared with the frame until the unroll is decoded, and only what straddles frames is copied. On the
//! wire nothing differs: any gRPC client may be at the other end.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use prost::Message;
use tonic::body::Body;
use tonic::codegen::{Body as _, Service, http};
use tonic::server::NamedService;
use tonic::{Code, Extensions, Status};

use impresario_common::wire::v1;

/// Where the generated service has the stream of unrolls.
const STREAM_UNROLLS: &str = "/impresario.v1.Learner/StreamUnrolls";

/// Bytes before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// A request's body, set aside by [`SetAside`] for [`Inbound`]. Extensions are cloned with their request; the body
/// goes to whoever asks first.
#[derive(Clone)]
struct Aside(Arc<Mutex<Option<Body>>>);

/// The service `S`, but for the body of each stream of unrolls, which it finds among the request's extensions.
#[derive(Debug, Clone)]
pub(crate) struct SetAside<S>(pub(crate) S);

impl<S: NamedService> NamedService for SetAside<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: Service<http::Request<Body>>> Service<http::Request<Body>> for SetAside<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> S::Future {
        if request.uri().path() == STREAM_UNROLLS {
            let body = std::mem::take(request.body_mut());
            request.extensions_mut().insert(Aside(Arc::new(Mutex::new(Some(body)))));
        }
        self.0.call(request)
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Inbound {
    body: Body,
    pieces: Pieces,
    /// Length of the next message, once its prefix is read.
    expected: Option<usize>,
    /// Bytes that a message may have.
    limit: usize,
}

impl Inbound {
    /// The body that was set aside for a request with these extensions, whose messages have at most `limit` bytes.
    pub(crate) fn of(extensions: &Extensions, limit: usize) -> Option<Self> {
        let body = extensions.get::<Aside>()?.0.lock().take()?;
        Some(Self { body, pieces: Pieces::default(), expected: None, limit })
    }

    /// The next message; `None` at the end of the stream.
    pub(crate) async fn message(&mut self) -> Result<Option<v1::ActorMessage>, Status> {
        poll_fn(|context| self.poll_message(context)).await
    }

    /// The same without waiting: pending where the message is not here yet.
    pub(crate) async fn message_at_hand(&mut self) -> Poll<Result<Option<v1::ActorMessage>, Status>> {
        poll_fn(|context| Poll::Ready(self.poll_message(context))).await
    }

    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<v1::ActorMessage>, Status>> {
        loop {
            if let Some(message) = self.decode()? {
                return Poll::Ready(Ok(Some(message)));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                // Trailers say nothing here.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.pieces.push(data);
                    }
                }
                // An actor that is gone; whatever it had begun to send comes again.
                Some(Err(status)) if status.code() == Code::Cancelled => return Poll::Ready(Ok(None)),
                Some(Err(status)) => return Poll::Ready(Err(status)),
                None if self.pieces.has_remaining() => {
                    return Poll::Ready(Err(Status::internal("the stream ended inside a message")));
                }
                None => return Poll::Ready(Ok(None)),
            }
        }
    }

    /// The next message, if all of it is here.
    fn decode(&mut self) -> Result<Option<v1::ActorMessage>, Status> {
        let length = match self.expected {
            Some(length) => length,
            None if self.pieces.remaining() < PREFIX => return Ok(None),
            None => {
                if self.pieces.get_u8() != 0 {
                    return Err(Status::unimplemented("compressed messages are not supported"));
                }
                let length = self.pieces.get_u32() as usize;
                if length > self.limit {
                    return Err(Status::out_of_range(format!(
                        "a message of {length} bytes exceeds the {} of limits.message_bytes",
                        self.limit
                    )));
                }
                *self.expected.insert(length)
            }
        };
        if self.pieces.remaining() < length {
            return Ok(None);
        }
        self.expected = None;
        // A varint in one piece is read faster than one that may straddle two.
        let message = match self.pieces.whole(length) {
            Some(message) => v1::ActorMessage::decode(message),
            None => v1::ActorMessage::decode((&mut self.pieces).take(length)),
        };
        message.map(Some).map_err(|e| Status::internal(e.to_string()))
    }
}

/// Bytes in the pieces in which they came.
#[derive(Debug, Default)]
struct Pieces {
    /// None is empty.
    pieces: VecDeque<Bytes>,
    length: usize,
}

impl Pieces {
    fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.length += piece.len();
            self.pieces.push_back(piece);
        }
    }

    /// The first `length` bytes, if they lie in one piece.
    fn whole(&mut self, length: usize) -> Option<Bytes> {
        let piece = self.pieces.front_mut().filter(|piece| length <= piece.len())?;
        let whole = piece.split_to(length);
        if piece.is_empty() {
            self.pieces.pop_front();
        }
        self.length -= length;
        Some(whole)
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.length
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.length, "advances by {count} of {} bytes", self.length);
        self.length -= count;
        while let Some(piece) = self.pieces.front_mut().filter(|_| count > 0) {
            if count < piece.len() {
                piece.advance(count);
                return;
            }
            count -= piece.len();
            self.pieces.pop_front();
        }
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        assert!(length <= self.length, "takes {length} of {} bytes", self.length);
        if let Some(whole) = self.whole(length) {
            return whole;
        }
        let mut bytes = BytesMut::with_capacity(length);
        let mut missing = length;
        while missing > 0 {
            let part = self.chunk().len().min(missing);
            bytes.extend_from_slice(&self.chunk()[..part]);
            self.advance(part);
            missing -= part;
        }
        bytes.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::codegen::http::Request;

    use impresario_common::wire::v1::actor_message::Kind;

    /// A body of these pieces.
    struct Cut(VecDeque<Bytes>);

    impl tonic::codegen::Body for Cut {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(http_body::Frame::data(piece))))
        }
    }

    fn inbound(bytes: &[u8], piece: usize) -> Inbound {
        let body = Body::new(Cut(bytes.chunks(piece).map(Bytes::copy_from_slice).collect()));
        Inbound { body, pieces: Pieces::default(), expected: None, limit: 1 << 20 }
    }

    fn prefixed(message: &v1::ActorMessage) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend((message.encoded_len() as u32).to_be_bytes());
        bytes.extend(message.encode_to_vec());
        bytes
    }

    fn message(kind: Kind) -> v1::ActorMessage {
        v1::ActorMessage { kind: Some(kind) }
    }

    #[tokio::test]
    async fn messages_are_the_same_however_frames_cut_them() {
        let data: Vec<u8> = (0..300).map(|i| i as u8).collect();
        let tensor = v1::Tensor { dtype: 2, shape: vec![3, 100], data: data.into(), compression: 0 };
        let unroll = v1::Unroll { sequence: 1 << 40, observations: Some(tensor), ..v1::Unroll::default() };
        let dropped_steps = [("unsent".to_owned(), 7)].into();
        let progress = v1::Progress { produced_steps: 9, dropped_steps, worker_time: None };
        let goodbye = v1::Goodbye { progress: Some(progress.clone()), ..Default::default() };
        let messages = [Kind::Unroll(unroll), Kind::Progress(progress), Kind::Goodbye(goodbye)].map(message);
        let bytes = messages.iter().flat_map(prefixed).collect::<Vec<u8>>();
        for piece in (1..=64).chain([300, bytes.len() - 1, bytes.len()]) {
            let mut inbound = inbound(&bytes, piece);
            for expected in &messages {
                assert_eq!(inbound.message().await.unwrap().as_ref(), Some(expected), "pieces of {piece}");
            }
            assert_eq!(inbound.message().await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn what_is_no_message_is_refused() {
        let bytes =
            prefixed(&message(Kind::Progress(v1::Progress { produced_steps: 9, ..Default::default() })));
        let refused = async |bytes: &[u8]| inbound(bytes, 4).message().await.unwrap_err();
        assert_eq!(refused(&bytes[..bytes.len() - 1]).await.code(), Code::Internal, "it ends early");
        let compressed = [&[1], &bytes[1..]].concat();
        assert_eq!(refused(&compressed).await.code(), Code::Unimplemented);
        let endless = [0, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(refused(&endless).await.code(), Code::OutOfRange);
        let garbage = [0, 0, 0, 0, 2, 0xff, 0xff];
        assert_eq!(refused(&garbage).await.code(), Code::Internal);
    }

    /// A service that takes a request's body, set aside or not.
    struct Takes;

    impl Service<Request<Body>> for Takes {
        type Response = bool;
        type Error = Status;
        type Future = std::future::Ready<Result<bool, Status>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            std::future::ready(Ok(request.extensions().get::<Aside>().is_some()))
        }
    }

    #[tokio::test]
    async fn only_the_stream_of_unrolls_has_its_body_set_aside() {
        for (path, aside) in [(STREAM_UNROLLS, true), ("/impresario.v1.Learner/Join", false)] {
            let request = Request::builder().uri(path).body(Body::empty()).unwrap();
            assert_eq!(SetAside(Takes).call(request).await.unwrap(), aside, "{path}");
        }
    }
}
