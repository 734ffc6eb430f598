//! How bytes move on the DHT plane: QUIC, and TCP or a relay's circuit with TLS 1.3 and yamux, all bound to peer ids.
//!
//! Owns: the transport stack and its per-connection limits. Refuses: addresses that [`Reach`] does not allow (whoever
//! wants to dial them), dialling them faster than [`Pace`] says, and other security (noise is not needed where every
//! node has TLS). Survives a crash: nothing.
//!
//! In a private network the key is proved on top of this, before the swarm sees a connection: see
//! [`proof`](super::proof).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use libp2p::core::Transport as Transporting;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, dns, quic, relay, tcp, tls, yamux};

use super::error::Error;
use super::listen::ip_of;
use super::pace::Pace;
use super::reach::Reach;

/// Streams of one connection: kad opens up to 32 each way at once, hello and announce a handful.
const MAX_STREAMS: u32 = 64;
/// Bytes in flight on one QUIC stream and connection: a batch is at most 200 KiB.
const QUIC_STREAM_WINDOW: u32 = 512 << 10;
const QUIC_CONNECTION_WINDOW: u32 = 2 << 20;
/// QUIC notices a vanished peer after this long without a packet.
const QUIC_IDLE: Duration = Duration::from_secs(15);
/// From the first byte to a proved peer id.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What carries connections: each is multiplexed, and who is at its other end has been proved.
pub type Transport = Boxed<(PeerId, StreamMuxerBox)>;

/// `carriers`, of which only what `reach` allows is dialled, one after the other.
pub(super) fn guarded(carriers: Transport, reach: Arc<Reach>) -> Transport {
    Guarded { inner: carriers, reach, pace: Arc::default() }.boxed()
}

/// This host's sockets. Names are resolved by the system's resolver; where there is none (no resolv.conf) only
/// addresses can be dialled.
pub(super) fn sockets(keypair: &Keypair) -> Result<Transport, Error> {
    match dns::tokio::Transport::system(carriers(keypair)?) {
        Ok(transport) => Ok(transport.boxed()),
        Err(error) => {
            tracing::warn!(%error, "no name resolver: only peers given by IP address can be reached");
            nameless(keypair)
        }
    }
}

/// With a resolver that has nobody to ask: names fail, addresses work.
fn nameless(keypair: &Keypair) -> Result<Transport, Error> {
    let config = dns::ResolverConfig::from_name_servers(Vec::new());
    Ok(dns::tokio::Transport::custom(carriers(keypair)?, config, dns::ResolverOpts::default()).boxed())
}

fn carriers(keypair: &Keypair) -> Result<Transport, Error> {
    let tls = certificate(keypair)?;
    let tcp = tcp::tokio::Transport::new(tcp::Config::default())
        .upgrade(Version::V1Lazy)
        .authenticate(tls)
        .multiplex(multiplexer())
        .timeout(HANDSHAKE)
        .boxed();
    let mut config = quic::Config::new(keypair);
    config.max_concurrent_stream_limit = MAX_STREAMS;
    config.max_stream_data = QUIC_STREAM_WINDOW;
    config.max_connection_data = QUIC_CONNECTION_WINDOW;
    config.max_idle_timeout = u32::try_from(QUIC_IDLE.as_millis()).unwrap_or(u32::MAX);
    let quic = quic::tokio::Transport::new(config);
    let either = quic.map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection))).or_transport(tcp);
    Ok(either.map(|either, _| either.into_inner()).map_err(io::Error::other).boxed())
}

/// `carriers`, and besides them connections through relays, on which who is at the other end is proved as on any.
pub(super) fn with_circuits(
    carriers: Transport,
    circuits: relay::client::Transport,
    keypair: &Keypair,
) -> Result<Transport, Error> {
    let circuits = circuits
        .upgrade(Version::V1Lazy)
        .authenticate(certificate(keypair)?)
        .multiplex(multiplexer())
        .timeout(HANDSHAKE)
        .boxed();
    let either = circuits.or_transport(carriers);
    Ok(either.map(|either, _| either.into_inner()).map_err(io::Error::other).boxed())
}

fn certificate(keypair: &Keypair) -> Result<tls::Config, Error> {
    tls::Config::new(keypair).map_err(|error| Error::Transport(error.to_string()))
}

fn multiplexer() -> yamux::Config {
    let mut multiplexer = yamux::Config::default();
    multiplexer.set_max_num_streams(MAX_STREAMS as usize);
    multiplexer
}

/// A transport that dials only what [`Reach`] allows, and at a pace what nobody but strangers told. It sits above the
/// resolver: names are dialled only when the owner gave them.
struct Guarded {
    inner: Transport,
    reach: Arc<Reach>,
    pace: Arc<Pace>,
}

impl Transporting for Guarded {
    type Output = <Transport as Transporting>::Output;
    type Error = <Transport as Transporting>::Error;
    type ListenerUpgrade = <Transport as Transporting>::ListenerUpgrade;
    type Dial = <Transport as Transporting>::Dial;

    fn listen_on(&mut self, id: ListenerId, at: Multiaddr) -> Result<(), TransportError<Self::Error>> {
        self.inner.listen_on(id, at)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(&mut self, at: Multiaddr, how: DialOpts) -> Result<Self::Dial, TransportError<Self::Error>> {
        if !self.reach.allows(&at) {
            tracing::debug!(address = %at, "not dialled: no node is there, or it is neither global, nor near, nor given");
            return Err(TransportError::MultiaddrNotSupported(at));
        }
        if self.reach.is_given(&at) || ip_of(&at).is_some_and(|ip| ip.to_canonical().is_loopback()) {
            self.reach.dials(&at, Instant::now());
            return self.inner.dial(at, how);
        }
        // Nothing is sent before a dial is polled, and of one peer's addresses not all are polled at once: so the turn
        // is taken then, and only what has had its turn has been dialled.
        let (dial, pace, reach) =
            (self.inner.dial(at.clone(), how)?, Arc::clone(&self.pace), Arc::clone(&self.reach));
        Ok(Box::pin(async move {
            tokio::time::sleep(pace.turn(&at, Instant::now())?).await;
            reach.dials(&at, Instant::now());
            let (peer, connection) = dial.await?;
            if at.iter().last() == Some(Protocol::P2p(peer)) {
                pace.answered(at);
            }
            Ok((peer, connection))
        }))
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Pin::new(&mut self.inner).poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::core::Endpoint;
    use libp2p::core::transport::PortUse;
    use libp2p::swarm::DialError;

    use crate::dht::pace;

    #[tokio::test]
    async fn without_a_resolver_only_names_fail() {
        let mut transport = nameless(&Keypair::generate_ed25519()).unwrap();
        let how = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
        let name = transport.dial("/dns4/casd.example/tcp/1".parse().unwrap(), how).unwrap();
        let failed = tokio::time::timeout(Duration::from_secs(60), name).await.unwrap();
        assert!(failed.is_err());
        transport.listen_on(ListenerId::next(), "/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    }

    #[tokio::test]
    async fn what_has_no_turn_is_told_from_what_fails() {
        let sockets = nameless(&Keypair::generate_ed25519()).unwrap();
        let mut transport = guarded(sockets, Arc::new(Reach::default().opened(true)));
        let (peer, mut failed) = (PeerId::random(), Vec::new());
        for port in 1..=17 {
            let at: Multiaddr = format!("/ip4/255.255.255.255/tcp/{port}/p2p/{peer}").parse().unwrap();
            let how = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
            let dialled = transport.dial(at.clone(), how).unwrap();
            let error = tokio::time::timeout(Duration::from_secs(60), dialled).await.unwrap().unwrap_err();
            failed.push((at, TransportError::Other(error)));
        }
        let last = failed.pop().unwrap();
        assert!(pace::is_unhurried(&DialError::Transport(vec![last])));
        assert!(!pace::is_unhurried(&DialError::Transport(failed)));
    }

    #[tokio::test]
    async fn where_it_dials_is_remembered_and_not_what_it_is_only_told() {
        // Everything may be dialled: where TCP does not lead, so that nothing leaves this host.
        let (reach, now) = (Arc::new(Reach::default().opened(true)), Instant::now());
        let sockets = nameless(&Keypair::generate_ed25519()).unwrap();
        let mut transport = guarded(sockets, Arc::clone(&reach));
        let mut dial = |at: &str| {
            let how = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
            transport.dial(at.parse().unwrap(), how)
        };
        // More than are remembered, of which none has its turn.
        for number in 0..10_000 {
            drop(dial(&format!("/ip4/203.0.{}.{}/tcp/8468", number / 250, number % 250)));
        }
        let has = |ip: [u8; 4]| reach.has_dialled(ip.into(), now);
        assert!(!has([203, 0, 0, 1]) && !has([255; 4]));
        let dialled = dial("/ip4/255.255.255.255/tcp/9").unwrap();
        let _ = tokio::time::timeout(Duration::from_secs(60), dialled).await.unwrap();
        assert!(!has([203, 0, 0, 1]) && has([255; 4]));
    }
}
