//! The proof of a private network's key, on the first stream of each connection, before the swarm sees it.
//!
//! Owns: the exchange, and that it ends: within [`WITHIN`], on one stream, with messages of fixed lengths; meanwhile
//! the connection counts as one whose handshake is under way. Refuses: whoever does not prove the key of this network
//! and name. A stranger learns a peer id, which TLS has shown, and that it is refused: nothing of the swarm's runs on
//! a connection before this is over. Survives a crash: nothing.
//!
//! Whoever dials opens a stream and negotiates `/casd/proof/1` on it by multistream-select 1.0.0, so that a node
//! without a key answers that it does not know this. Then:
//!
//! ```text
//! listener to dialer   32  nonce
//! dialer to listener   32  nonce
//!                      32  proof, and the end of what it writes
//! listener to dialer    1  1: admitted; 0: refused, and nothing follows
//!                      32  proof
//! ```
//!
//! A proof is [`NetworkKey::prove`] with the context `casd dht proof 1\n`, the role 1 of the dialer or 2 of the
//! listener, the ids of the dialer and of the listener, and as binding [`network_id`] of the network's name, the
//! listener's nonce and the dialer's. TLS has proved both ids, and each end has made one of the nonces for this
//! connection: what one end proves is of no use between other ends, on another connection, or in the other direction.
//! Who listens proves nothing before the other end has.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::PeerId;
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox};
use libp2p::core::upgrade::{NegotiationError, Version};
use libp2p::core::{ConnectedPoint, Endpoint, Negotiated, Transport as Transporting};
use libp2p::swarm::DialError;
use multistream_select::{dialer_select_proto, listener_select_proto};

use super::causes;
use super::transport::Transport;
use crate::peer::{NetworkKey, network_id};

/// What the stream is for.
pub(super) const PROTOCOL: &str = "/casd/proof/1";
/// For all of it, on top of the handshake.
pub(super) const WITHIN: Duration = Duration::from_secs(5);
/// Keeps these proofs apart from those of other protocols.
const CONTEXT: &[u8] = b"casd dht proof 1\n";
const NONCE: usize = 32;
const PROOF: usize = 32;
const ADMITTED: u8 = 1;
const REFUSED: u8 = 0;

/// Why a connection did not become one of this network.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// It does not know of proofs.
    #[error("it belongs to no private network, or is no casd node")]
    Keyless,
    /// Its proof, or ours, is not that of the other's key.
    #[error("it has another key (network.key_file) or another network.name")]
    OtherKey,
    /// It speaks of proofs, but not in their form.
    #[error("it broke the protocol of the key's proof")]
    Garbled,
    /// It took too long.
    #[error("it did not prove the network's key within {} s", WITHIN.as_secs())]
    Silent,
    /// The connection ended.
    #[error("the connection broke while the network's key was proved: {0}")]
    Broken(String),
}

/// What one node proves and wants proved.
#[derive(Debug)]
pub(super) struct Prover {
    pub(super) key: NetworkKey,
    pub(super) local: PeerId,
    /// What stands for the network's name.
    pub(super) network: [u8; 32],
}

/// An end of a connection, as a proof names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Dialer = 1,
    Listener = 2,
}

/// What has been agreed on by the ends of one connection, and what a proof is of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Between {
    pub(super) dialer: PeerId,
    pub(super) listener: PeerId,
    pub(super) dialer_nonce: [u8; NONCE],
    pub(super) listener_nonce: [u8; NONCE],
}

/// What a listener has heard of a dialer.
struct Heard {
    stream: Negotiated<SubstreamBox>,
    proof: [u8; PROOF],
    between: Between,
}

/// What becomes of streams that the other end opens beside the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Others {
    /// They wait in the connection, within its limits: who listens is the first to know that the proof is over.
    Wait,
    /// The connection ends: who dials has to wait, and could fill each with as much as a stream may hold.
    Refused,
}

/// `carriers`, of which the swarm sees only connections whose other end has proved the key.
pub(super) fn proved(carriers: Transport, prover: Prover) -> Transport {
    let prover = Arc::new(prover);
    let proving = carriers.and_then(move |(peer, connection), point| {
        // Two that dial each other at the same moment have agreed beforehand on who is to be the listener.
        let end = match point {
            ConnectedPoint::Dialer { role_override, .. } => role_override,
            ConnectedPoint::Listener { .. } => Endpoint::Listener,
        };
        let prover = Arc::clone(&prover);
        async move { prover.meet(peer, connection, end).await }
    });
    // One way to find a refusal in an error: below io errors only.
    proving.map_err(|either| either.either(|error| error, io::Error::other)).boxed()
}

/// What the other end was refused for, or we were, if that is why a dial failed.
pub(super) fn refusal(failed: &DialError) -> Option<&Refusal> {
    let DialError::Transport(tried) = failed else { return None };
    tried.iter().find_map(|(_, error)| causes::inside(error))
}

// === impl Prover ===

impl Prover {
    /// The prover of a node of the network called `name`.
    pub(super) fn new(key: NetworkKey, local: PeerId, name: &str) -> Self {
        Self { key, local, network: network_id(name) }
    }

    /// Proves and has proved; gives the connection back for what comes after.
    async fn meet(
        &self,
        peer: PeerId,
        mut connection: StreamMuxerBox,
        end: Endpoint,
    ) -> Result<(PeerId, StreamMuxerBox), Refusal> {
        let exchange = async {
            match end {
                Endpoint::Dialer => {
                    let stream = poll_fn(|cx| connection.poll_outbound_unpin(cx)).await?;
                    driven(&mut connection, Others::Wait, self.dial(peer, stream)).await
                }
                Endpoint::Listener => {
                    let stream = poll_fn(|cx| connection.poll_inbound_unpin(cx)).await?;
                    let heard = driven(&mut connection, Others::Refused, self.hear(peer, stream)).await?;
                    let answered = driven(&mut connection, Others::Wait, self.answer(heard)).await;
                    if matches!(answered, Err(Refusal::OtherKey)) {
                        closed(&mut connection).await;
                    }
                    answered
                }
            }
        };
        tokio::time::timeout(WITHIN, exchange).await.unwrap_or(Err(Refusal::Silent))?;
        Ok((peer, connection))
    }

    /// The dialer's half.
    async fn dial(&self, listener: PeerId, stream: SubstreamBox) -> Result<(), Refusal> {
        let (_, mut stream) = dialer_select_proto(stream, [PROTOCOL], Version::V1).await?;
        let listener_nonce = array(&mut stream).await?;
        let dialer_nonce = rand::random();
        let between = Between { dialer: self.local, listener, dialer_nonce, listener_nonce };
        let proof = self.prove(Role::Dialer, &between);
        say(&mut stream, &[&dialer_nonce[..], proof.as_bytes()].concat()).await?;
        match array(&mut stream).await? {
            [ADMITTED] => {}
            [REFUSED] => return Err(Refusal::OtherKey),
            _ => return Err(Refusal::Garbled),
        }
        self.check(array(&mut stream).await?, Role::Listener, &between)
    }

    /// The listener's half, up to the dialer's proof.
    async fn hear(&self, dialer: PeerId, stream: SubstreamBox) -> Result<Heard, Refusal> {
        let (_, mut stream) = listener_select_proto(stream, [PROTOCOL]).await?;
        let listener_nonce: [u8; NONCE] = rand::random();
        stream.write_all(&listener_nonce).await?;
        stream.flush().await?;
        let dialer_nonce = array(&mut stream).await?;
        let proof = array(&mut stream).await?;
        let between = Between { dialer, listener: self.local, dialer_nonce, listener_nonce };
        Ok(Heard { stream, proof, between })
    }

    /// The listener's half, from there on.
    async fn answer(&self, Heard { mut stream, proof, between }: Heard) -> Result<(), Refusal> {
        if let Err(refusal) = self.check(proof, Role::Dialer, &between) {
            say(&mut stream, &[REFUSED]).await?;
            return Err(refusal);
        }
        say(&mut stream, &[&[ADMITTED], &self.prove(Role::Listener, &between).as_bytes()[..]].concat()).await
    }

    fn check(&self, proof: [u8; PROOF], role: Role, between: &Between) -> Result<(), Refusal> {
        let proved = self.prove(role, between) == blake3::Hash::from_bytes(proof);
        proved.then_some(()).ok_or(Refusal::OtherKey)
    }

    pub(super) fn prove(&self, role: Role, between: &Between) -> blake3::Hash {
        let binding = [&self.network, &between.listener_nonce, &between.dialer_nonce].map(|part| &part[..]);
        self.key.prove(CONTEXT, role as u8, [&between.dialer, &between.listener], &binding)
    }
}

/// Lets `connection` move while `work` goes on with its first stream.
async fn driven<T>(
    connection: &mut StreamMuxerBox,
    others: Others,
    work: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(done);
        }
        let mut moved = Ok(());
        while let (Ok(()), Poll::Ready(event)) = (&moved, connection.poll_unpin(cx)) {
            moved = event.map(drop);
        }
        if moved.is_ok()
            && others == Others::Refused
            && let Poll::Ready(opened) = connection.poll_inbound_unpin(cx)
        {
            match opened {
                Ok(_) => return Poll::Ready(Err(Refusal::Garbled)),
                Err(error) => moved = Err(error),
            }
        }
        match moved {
            Ok(()) => Poll::Pending,
            // The last words may have come just before the end.
            Err(error) => match work.as_mut().poll(cx) {
                Poll::Pending => Poll::Ready(Err(error.into())),
                done => done,
            },
        }
    })
    .await
}

/// Waits until the other end has closed the connection, having heard the refusal, or opens another stream.
async fn closed(connection: &mut StreamMuxerBox) {
    let _ = poll_fn(|cx| connection.poll_inbound_unpin(cx)).await;
}

async fn array<const N: usize>(stream: &mut (impl AsyncRead + Unpin)) -> Result<[u8; N], Refusal> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// Says the last that there is to say.
async fn say(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), Refusal> {
    stream.write_all(bytes).await?;
    stream.flush().await?;
    Ok(stream.close().await?)
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<NegotiationError> for Refusal {
    fn from(error: NegotiationError) -> Self {
        match error {
            NegotiationError::Failed => Self::Keyless,
            NegotiationError::ProtocolError(multistream_select::ProtocolError::IoError(error)) => {
                error.into()
            }
            NegotiationError::ProtocolError(_) => Self::Garbled,
        }
    }
}
