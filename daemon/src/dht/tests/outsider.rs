//! A node of stock libp2p that says bytes in our protocols, whatever they are.

use std::future::Future;
use std::io;
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::request_response::{
    self, Codec, Event, Message, OutboundFailure, ProtocolSupport, ResponseChannel,
};
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{Multiaddr, StreamProtocol, identify};

use super::{Node, within};
use crate::dht::transport;
use crate::peer::{Keypair, PeerId};

/// One end of a stream: writes the bytes, closes its direction if they are whole, and reads what comes from the other.
#[derive(Clone, Debug)]
pub(super) struct Raw;

/// What is said on a stream.
#[derive(Clone, Debug)]
pub(super) enum Says {
    /// These bytes, and the end.
    Whole(Vec<u8>),
    /// These bytes again and again, until the other end has had enough.
    Endless(Vec<u8>),
    /// These bytes, and then nothing more, nor the end.
    Half(Vec<u8>),
}

#[derive(NetworkBehaviour)]
pub(super) struct Speaks {
    identify: identify::Behaviour,
    /// Each protocol is one of these, in the order of [`PROTOCOLS`].
    hello: request_response::Behaviour<Raw>,
    announce: request_response::Behaviour<Raw>,
    find: request_response::Behaviour<Raw>,
    describe: request_response::Behaviour<Raw>,
    catalogue: request_response::Behaviour<Raw>,
    servers: request_response::Behaviour<Raw>,
    kad: request_response::Behaviour<Raw>,
}

/// Our protocols, and Kademlia.
pub(super) const PROTOCOLS: [&str; 7] =
    ["hello/1", "announce/1", "find/1", "describe/1", "catalogue/1", "servers/1", "kad/1.0.0"];

/// A node that is no casd.
pub(super) struct Outsider {
    swarm: Swarm<Speaks>,
    pub(super) keypair: Keypair,
}

impl Outsider {
    /// Of the network `name`, not connected. It only asks in Kademlia: else it would be looked at as a server of the
    /// DHT.
    pub(super) fn new(name: &str) -> Self {
        Self::with(name, ProtocolSupport::Outbound, ProtocolSupport::Outbound)
    }

    /// One that can be asked for servers.
    pub(super) fn neighbour(name: &str) -> Self {
        Self::with(name, ProtocolSupport::Outbound, ProtocolSupport::Full)
    }

    /// One that says that it is a server of the DHT.
    pub(super) fn server(name: &str) -> Self {
        Self::with(name, ProtocolSupport::Full, ProtocolSupport::Outbound)
    }

    fn with(name: &str, part: ProtocolSupport, introduces: ProtocolSupport) -> Self {
        let keypair = Keypair::generate_ed25519();
        let speaks = |rest: &str, support| {
            let protocol = StreamProtocol::try_from_owned(format!("/casd/{name}/{rest}")).unwrap();
            let config = request_response::Config::default().with_request_timeout(Duration::from_secs(15));
            request_response::Behaviour::with_codec(Raw, [(protocol, support)], config)
        };
        let [hello, announce, find, describe, catalogue, servers, kad] = PROTOCOLS;
        let behaviour = Speaks {
            identify: identify::Behaviour::new(identify::Config::new("/x/1".into(), keypair.public())),
            hello: speaks(hello, ProtocolSupport::Full),
            announce: speaks(announce, ProtocolSupport::Full),
            find: speaks(find, ProtocolSupport::Full),
            describe: speaks(describe, ProtocolSupport::Full),
            catalogue: speaks(catalogue, ProtocolSupport::Full),
            servers: speaks(servers, introduces),
            kad: speaks(kad, part),
        };
        let config = libp2p::swarm::Config::with_tokio_executor();
        let config = config.with_idle_connection_timeout(Duration::from_secs(60));
        let local = keypair.public().to_peer_id();
        Self { swarm: Swarm::new(transport::sockets(&keypair).unwrap(), behaviour, local, config), keypair }
    }

    pub(super) fn id(&self) -> PeerId {
        *self.swarm.local_peer_id()
    }

    /// Connects, if it is let in.
    pub(super) async fn meet(&mut self, node: &Node) -> Result<(), String> {
        self.swarm.dial(DialOpts::unknown_peer_id().address(node.address()).build()).unwrap();
        let met = async {
            loop {
                match self.swarm.select_next_some().await {
                    SwarmEvent::Behaviour(SpeaksEvent::Identify(identify::Event::Received { .. })) => {
                        return Ok(());
                    }
                    SwarmEvent::ConnectionClosed { cause, .. } => return Err(format!("closed: {cause:?}")),
                    SwarmEvent::OutgoingConnectionError { error, .. } => return Err(error.to_string()),
                    _ => {}
                }
            }
        };
        within("the two have met, or not", met).await
    }

    /// Says something in a protocol to a connected node; what it answers.
    pub(super) async fn say(&mut self, node: &Node, protocol: &str, says: Says) -> Result<Vec<u8>, String> {
        let (to, all) = (node.dht.0.local, self.swarm.behaviour_mut());
        let behaviour = match protocol {
            "hello/1" => &mut all.hello,
            "announce/1" => &mut all.announce,
            "find/1" => &mut all.find,
            "describe/1" => &mut all.describe,
            "catalogue/1" => &mut all.catalogue,
            "servers/1" => &mut all.servers,
            _ => &mut all.kad,
        };
        behaviour.send_request(&to, says);
        let answered = async {
            loop {
                let SwarmEvent::Behaviour(
                    SpeaksEvent::Hello(event)
                    | SpeaksEvent::Announce(event)
                    | SpeaksEvent::Find(event)
                    | SpeaksEvent::Describe(event)
                    | SpeaksEvent::Catalogue(event)
                    | SpeaksEvent::Servers(event)
                    | SpeaksEvent::Kad(event),
                ) = self.swarm.select_next_some().await
                else {
                    continue;
                };
                match event {
                    Event::Message {
                        message: Message::Response { response: Says::Whole(response), .. },
                        ..
                    } => {
                        // Or its stream is ended without an answer.
                        let is_silent = response.is_empty();
                        return if is_silent { Err("nothing".to_owned()) } else { Ok(response) };
                    }
                    Event::OutboundFailure { error: OutboundFailure::Io(error), .. } => {
                        return Err(error.to_string());
                    }
                    Event::OutboundFailure { error, .. } => return Err(error.to_string()),
                    _ => {}
                }
            }
        };
        within("it answers, or does not", answered).await
    }

    /// Says `says` to whatever it is asked about objects, lists and servers, until `asking` is over.
    pub(super) async fn answer<T>(&mut self, says: &Says, asking: impl Future<Output = T>) -> T {
        let mut asking = std::pin::pin!(asking);
        let answered = async {
            loop {
                let event = tokio::select! {
                    asked = &mut asking => return asked,
                    event = self.swarm.select_next_some() => event,
                };
                // That nobody waits any more is nothing to this one.
                let all = self.swarm.behaviour_mut();
                match event {
                    SwarmEvent::Behaviour(SpeaksEvent::Describe(event)) => {
                        if let Some(to) = way_back(event) {
                            let _ = all.describe.send_response(to, says.clone());
                        }
                    }
                    SwarmEvent::Behaviour(SpeaksEvent::Catalogue(event)) => {
                        if let Some(to) = way_back(event) {
                            let _ = all.catalogue.send_response(to, says.clone());
                        }
                    }
                    SwarmEvent::Behaviour(SpeaksEvent::Servers(event)) => {
                        if let Some(to) = way_back(event) {
                            let _ = all.servers.send_response(to, says.clone());
                        }
                    }
                    _ => {}
                }
            }
        };
        within("who asks has an answer, or none", answered).await
    }

    /// Tells whom it is connected with that these are its addresses, and no others.
    pub(super) fn moves(&mut self, to: &[Multiaddr]) {
        let before: Vec<_> = self.swarm.external_addresses().cloned().collect();
        before.iter().for_each(|gone| self.swarm.remove_external_address(gone));
        to.iter().for_each(|new| self.swarm.add_external_address(new.clone()));
        let connected: Vec<_> = self.swarm.connected_peers().copied().collect();
        self.swarm.behaviour_mut().identify.push(connected);
    }

    /// Waits until the node has ended all connections.
    pub(super) async fn is_let_go(&mut self, why: &str) {
        let gone = async {
            while self.swarm.connected_peers().next().is_some() {
                self.swarm.select_next_some().await;
            }
        };
        within(&format!("the connection ends: {why}"), gone).await;
    }
}

fn way_back(event: Event<Says, Says>) -> Option<ResponseChannel<Says>> {
    match event {
        Event::Message { message: Message::Request { channel, .. }, .. } => Some(channel),
        _ => None,
    }
}

async fn read<T: AsyncRead + Unpin>(io: &mut T) -> io::Result<Says> {
    let mut bytes = Vec::new();
    io.take(1 << 20).read_to_end(&mut bytes).await?;
    Ok(Says::Whole(bytes))
}

async fn write<T: AsyncWrite + Unpin>(io: &mut T, says: Says) -> io::Result<()> {
    match says {
        Says::Whole(bytes) => io.write_all(&bytes).await,
        Says::Endless(bytes) => loop {
            io.write_all(&bytes).await?;
            io.flush().await?;
        },
        Says::Half(bytes) => {
            io.write_all(&bytes).await?;
            io.flush().await?;
            std::future::pending().await
        }
    }
}

impl Codec for Raw {
    type Protocol = StreamProtocol;
    type Request = Says;
    type Response = Says;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Says>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(io).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Says>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(io).await
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, says: Says) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write(io, says).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, says: Says) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write(io, says).await
    }
}
