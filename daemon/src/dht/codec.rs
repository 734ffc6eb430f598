//! One message each way over a stream: the shape of all our request-response protocols.
//!
//! Owns: handing a whole message to the protocol that knows it; [`reading`](super::reading) reads it.
//! Refuses: a message over its limit, before keeping more of it than that. Survives a crash: nothing.

use std::io;

use futures::{AsyncRead, AsyncWrite, AsyncWriteExt};
use libp2p::StreamProtocol;
use libp2p::request_response::Codec;

use super::proving::Proofs;
use super::reading::Reading;

/// A protocol of one question and one answer, each a whole message.
pub(super) trait Exchange: Clone + Send + 'static {
    /// What is asked.
    type Request: Send;
    /// What is answered.
    type Response: Send;
    /// Bytes of the longest question.
    const MAX_REQUEST: usize;
    /// Bytes of the longest answer.
    const MAX_RESPONSE: usize;

    /// How many signatures are proved when this question is read, where there are any.
    fn proofs(&self, _: &[u8]) -> usize {
        0
    }

    /// Reads a question; an error ends the stream without an answer.
    fn decode_request(&self, bytes: &[u8]) -> io::Result<Self::Request>;
    /// Reads an answer.
    fn decode_response(&self, bytes: &[u8]) -> io::Result<Self::Response>;
    /// Writes a question.
    fn encode_request(&self, request: Self::Request) -> Vec<u8>;
    /// Writes an answer.
    fn encode_response(&self, response: Self::Response) -> Vec<u8>;
}

/// Carries an [`Exchange`] over the swarm's streams.
#[derive(Clone, Debug)]
pub(super) struct Whole<E> {
    exchange: E,
    reading: Reading,
    proofs: Proofs,
}

impl<E: Exchange> Whole<E> {
    /// What is read is part of `reading`.
    pub(super) fn new(exchange: E, reading: &Reading) -> Self {
        Self { exchange, reading: reading.clone(), proofs: Proofs::default() }
    }

    async fn read<T: AsyncRead + Unpin>(&self, io: &mut T, limit: usize) -> io::Result<Vec<u8>> {
        let bytes = self.reading.whole(io, limit).await?;
        if bytes.len() > limit { Err(malformed("longer than its limit")) } else { Ok(bytes) }
    }
}

impl<E: Exchange + Sync> Codec for Whole<E> {
    type Protocol = StreamProtocol;
    type Request = Asked<E::Request>;
    type Response = E::Response;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Asked<E::Request>>
    where
        T: AsyncRead + Unpin + Send,
    {
        let read = async {
            let bytes = self.read(io, E::MAX_REQUEST).await?;
            self.proofs.turn(self.exchange.proofs(&bytes)).await?;
            self.exchange.decode_request(&bytes)
        };
        match read.await {
            Ok(request) => Ok(Ok(request)),
            Err(error) => malformation(&error).map(Err).ok_or(error),
        }
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<E::Response>
    where
        T: AsyncRead + Unpin + Send,
    {
        self.exchange.decode_response(&self.read(io, E::MAX_RESPONSE).await?)
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        request: Asked<E::Request>,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        // Only what is read can be malformed.
        let request = request.map_err(io::Error::other)?;
        io.write_all(&self.exchange.encode_request(request)).await
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        answer: E::Response,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&self.exchange.encode_response(answer)).await
    }
}

/// What is wrong with a message that is not as its protocol says.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(&'static str);

/// A question as it was read. The swarm would keep it to itself that one could not be, and nobody would learn who lies.
pub(super) type Asked<T> = Result<T, Malformed>;

/// The error of a message that is not as its protocol says.
pub(super) fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Malformed(what))
}

/// The error of a message that ends too early. That may be its carrier's fault.
pub(super) fn cut_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "cut short")
}

/// Whether an error is the fault of whoever wrote the message.
pub(super) fn is_malformed(error: &io::Error) -> bool {
    malformation(error).is_some()
}

fn malformation(error: &io::Error) -> Option<Malformed> {
    error.get_ref()?.downcast_ref::<Malformed>().copied()
}

/// Takes fields off the front of a message; every step says when it runs short.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(cut_short)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or_else(cut_short)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> io::Result<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> io::Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> io::Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> io::Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// All that is left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Ends the message: nothing may follow.
    pub(super) fn end(self) -> io::Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(malformed("followed by more than belongs to it")) }
    }
}
