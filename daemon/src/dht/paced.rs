//! How fast the other end of a connection may open streams.
//!
//! Owns: the pace, below everything that speaks on a connection: whoever opens streams and resets them at once is seen
//! by no protocol. Refuses: nothing; streams over the rate wait where they are, within the connection's own limits.
//! Survives a crash: nothing.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use libp2p::core::Transport as _;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, SubstreamBox};

use super::transport::Transport;
use crate::support::allowance::{Allowances, Rate};

/// More than the questions that a peer may ask (see [`meter`](super::meter)) and all else on a connection.
const STREAMS: Rate = Rate { each_second: 1_500, burst: 6_000 };
/// A stream is late by one turn at most, since those behind it are not looked at.
const LONGEST: Duration = Duration::MAX;

/// `carriers`, on whose connections others open streams at a pace.
pub(super) fn paced(carriers: Transport) -> Transport {
    carriers.map(|(peer, muxer), _| (peer, StreamMuxerBox::new(Paced::new(muxer)))).boxed()
}

struct Paced {
    inner: StreamMuxerBox,
    opened: Allowances<()>,
    /// Until when no stream is taken.
    rest: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Paced {
    fn new(inner: StreamMuxerBox) -> Self {
        Self { inner, opened: Allowances::new(STREAMS, 1), rest: None }
    }
}

impl StreamMuxer for Paced {
    type Substream = SubstreamBox;
    type Error = io::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<SubstreamBox>> {
        if let Some(rest) = &mut self.rest {
            ready!(rest.as_mut().poll(context));
            self.rest = None;
        }
        let stream = ready!(Pin::new(&mut self.inner).poll_inbound(context))?;
        if let Some(wait) = self.opened.wait((), LONGEST, Instant::now()).filter(|wait| !wait.is_zero()) {
            self.rest = Some(Box::pin(tokio::time::sleep(wait)));
        }
        Poll::Ready(Ok(stream))
    }

    fn poll_outbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<SubstreamBox>> {
        Pin::new(&mut self.inner).poll_outbound(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(context)
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        Pin::new(&mut self.inner).poll(context)
    }
}
