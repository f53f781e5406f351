//! [`MessageCodec`]: how the messages of every call are encoded and decoded: protobuf, as usual in gRPC.
//!
//! tonic's own codec writes a message into a buffer of 8 KiB that grows as it is filled, so that the largest array
//! of an unroll is moved again for those that follow. Here the buffer has the message's size from the start, and room for
//! messages that are ready to follow at once: they travel in one frame, which costs both sides what one message would.

use std::marker::PhantomData;

use bytes::BufMut;
use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic_prost::{ProstCodec, ProstDecoder};

/// Bytes that an encoder's buffer begins with.
const BUFFER: usize = 8 << 10;

/// Bytes of messages after which a frame is sent, though more are ready: little enough to stay in a cache.
const FRAME: usize = 32 << 10;

/// Messages of one size that a buffer is made for.
const MESSAGES_A_BUFFER: usize = 16;

/// Encodes messages `T` and decodes messages `U`.
#[derive(Debug, Clone)]
pub struct MessageCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for MessageCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for MessageCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = MessageEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        MessageEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::default().decoder()
    }
}

/// Encodes messages `T`.
#[derive(Debug, Clone)]
pub struct MessageEncoder<T>(PhantomData<T>);

impl<T: Message> Encoder for MessageEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let length = item.encoded_len();
        if buf.chunk_mut().len() < length {
            buf.reserve(length.max((2 * FRAME).min(length * MESSAGES_A_BUFFER)));
        }
        item.encode(buf).map_err(|e| Status::internal(format!("cannot encode a message: {e}")))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER, FRAME)
    }
}
