//! Verbs about other nodes, and what this one says of itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::{Check, Error, Node, company, reach};
use crate::peer::{
    Announcing, Company, Multiaddr, PeerAddr, PeerId, Reach, ReachVerdict, Standing, Unconnected,
    read_peer_id,
};
use crate::store::Level;
use crate::upkeep::Broken;

/// How long connecting to a chunk port may take before it counts as unreachable.
const CONNECT: Duration = Duration::from_secs(15);

/// A node that has been connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connected {
    /// Which: its id is proved.
    pub peer: PeerId,
    /// There is a session at its chunk port, and on the DHT plane this node knows nobody, reaches nobody, or only such
    /// as keep no records: it has not joined the network.
    pub is_chunk_only: bool,
}

/// A node that this one knows.
#[derive(Clone, Debug, Default)]
pub struct PeerLine {
    /// Where: multiaddrs and chunk ports.
    pub addresses: Vec<String>,
    /// Whether there is a session on the chunk plane.
    pub chunk: bool,
    /// Whether there is a connection on the DHT plane.
    pub dht: bool,
    /// Bytes that came from it.
    pub received: u64,
    /// Bytes that went to it.
    pub sent: u64,
    /// How it has behaved, over restarts.
    pub standing: Standing,
}

/// What a node says of itself.
#[derive(Clone, Debug)]
pub struct Status {
    /// Chunk ports as bound.
    pub chunk: Vec<SocketAddr>,
    /// DHT addresses as bound, good as another node's bootstrap.
    pub dht: Vec<Multiaddr>,
    /// Nodes that it is connected to, on either plane.
    pub peers: u64,
    /// How it stands among others.
    pub company: Company,
    /// What the store holds.
    pub usage: crate::store::Usage,
    /// Whether others can connect to it.
    pub reachable: ReachVerdict,
    /// What made the store read-only, when it has become so.
    pub read_only: Option<String>,
    /// Since it started.
    pub uptime: Duration,
}

impl Node {
    /// The nodes that are known, by id, and those that are remembered for how they behaved.
    pub async fn peers(&self) -> BTreeMap<PeerId, PeerLine> {
        let mut lines: BTreeMap<PeerId, PeerLine> = BTreeMap::new();
        for (peer, addresses, connected) in self.parts.neighbours.peers().await {
            let line = lines.entry(peer).or_default();
            line.addresses.extend(addresses.iter().map(ToString::to_string));
            line.dht = connected;
        }
        for link in self.parts.fetcher.links() {
            let line = lines.entry(link.peer).or_default();
            line.addresses.extend(link.at.map(|at| PeerAddr::chunk(link.peer, at).to_string()));
            line.chunk = link.open;
            line.received += link.received;
        }
        for (peer, visitor) in self.parts.visitors.views() {
            let line = lines.entry(peer).or_default();
            line.chunk |= visitor.sessions > 0;
            line.sent += visitor.sent;
        }
        for (peer, standing) in self.parts.conduct.standings(SystemTime::now()) {
            lines.entry(peer).or_default().standing = standing;
        }
        lines
    }

    /// Connects to a node by its address on either plane, and lifts its ban. The address is tried also where the node
    /// is connected at another. Where it is a chunk port and this node is not part of the network, the DHT's usual port
    /// is tried beside it.
    ///
    /// # Errors
    /// [`Error::Address`], [`Error::Myself`], [`Error::Unreachable`], [`Error::OtherNetwork`], [`Error::OtherKey`].
    pub async fn connect(&self, text: &str) -> Result<Connected, Error> {
        let address = Self::address(text)?;
        if address.peer == self.about().peer {
            return Err(Error::Myself(text.to_owned()));
        }
        if self.parts.conduct.pardon(&address.peer, SystemTime::now()) {
            tracing::info!(peer = %address.peer, "a ban is lifted: an administrator connects to the peer");
        }
        let failed = |why: Unconnected| match why {
            Unconnected::OtherNetwork => Error::OtherNetwork(text.to_owned()),
            Unconnected::OtherKey => {
                Error::OtherKey { address: text.to_owned(), is_private: self.about().is_private_network }
            }
            Unconnected::Unreachable(why) => Error::Unreachable { address: text.to_owned(), why },
        };
        match &address.reach {
            Reach::Dht(at) => {
                let peer = self.parts.neighbours.connect(at.clone()).await.map_err(failed)?;
                Ok(Connected { peer, is_chunk_only: false })
            }
            Reach::Chunk(host, _) => {
                let connected = tokio::time::timeout(CONNECT, self.parts.fetcher.connect(&address)).await;
                let silent = Unconnected::Unreachable("nobody answers there in time".to_owned());
                let peer = connected.unwrap_or(Err(silent)).map_err(failed)?;
                Ok(Connected { peer, is_chunk_only: !self.join_near(peer, host).await })
            }
        }
    }

    /// Reads a peer's address.
    ///
    /// # Errors
    /// [`Error::Address`].
    pub fn address(text: &str) -> Result<PeerAddr, Error> {
        let wrong =
            |why: crate::peer::AddrError| Error::Address { text: text.to_owned(), why: why.to_string() };
        text.parse().map_err(wrong)
    }

    /// Reads a peer's id.
    ///
    /// # Errors
    /// [`Error::PeerId`].
    pub fn peer_id(text: &str) -> Result<PeerId, Error> {
        read_peer_id(text).map_err(|_| Error::PeerId(text.to_owned()))
    }

    /// How this node stands among others.
    pub async fn company(&self) -> Company {
        self.parts.neighbours.company().await
    }

    /// What this node says of itself.
    ///
    /// # Errors
    /// [`Error::Store`] when the file system does not answer.
    pub async fn status(&self) -> Result<Status, Error> {
        let (peers, company) = (self.peers().await, self.company().await);
        Ok(Status {
            chunk: self.about().chunk.clone(),
            dht: self.parts.neighbours.listen(),
            peers: peers.values().filter(|line| line.dht || line.chunk).count() as u64,
            company,
            usage: self.parts.store.usage().await?,
            reachable: self.parts.neighbours.reachability().verdict,
            read_only: self.parts.store.read_only(),
            uptime: self.about().started.elapsed(),
        })
    }

    /// Looks at the state folder and how the store is, see [`crate::store::Store::examine`], at what is known to be
    /// damaged, at whether this node is alone, and at whether others can connect to it.
    pub async fn examine(&self) -> Vec<Check> {
        let mut checks = self.parts.store.examine().await;
        checks.push(damage(self.parts.scrubber.damaged().await));
        let neighbours = &self.parts.neighbours;
        let company = neighbours.company().await;
        let sessions = self.parts.fetcher.links().len();
        checks.push(company::check(&company, sessions));
        checks.push(reach::check(
            &neighbours.reachability(),
            !neighbours.listen().is_empty(),
            company.is_alone,
        ));
        checks
    }

    /// Where announcing stands.
    #[must_use]
    pub fn announcing(&self) -> Announcing {
        self.parts.announcer.status()
    }
}

/// Damaged objects that the doctor names at most.
const NAMED: usize = 3;

/// What the last proving found and could not bring back: those that are known, and how many more there are.
fn damage((broken, unnamed): (Vec<Broken>, u64)) -> Check {
    let name = "damage";
    let count = broken.len() as u64 + unnamed;
    if count == 0 {
        let what = "nothing is known to be damaged".to_owned();
        return Check { name, level: Level::Ok, what, advice: String::new(), numbers: Vec::new() };
    }
    let named = broken.iter().take(NAMED).map(|broken| match &broken.name {
        Some(called) => format!("{} ({called})", broken.id),
        None => broken.id.to_string(),
    });
    let mut named: Vec<String> = named.collect();
    if count > named.len() as u64 {
        named.push("…".to_owned());
    }
    let what = format!("{count} object(s) lack what could not be brought back: {}", named.join(", "));
    let advice = "add those files again, or fetch them from a node that has them, or remove them; `casctl verify` proves \
                  everything and names them all";
    Check { name, level: Level::Fail, what, advice: advice.to_owned(), numbers: vec![("damaged", count)] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::ObjectId;

    #[test]
    fn what_is_known_to_be_damaged_is_counted_and_the_first_are_named() {
        assert_eq!(damage((Vec::new(), 0)).level, Level::Ok);
        let broken = |number: u8| Broken {
            id: ObjectId::from_bytes([number; 32]),
            name: (number > 1).then(|| format!("file {number}")),
            records: 1,
        };
        let found = damage(((1..=5).map(broken).collect(), 7));
        assert!(found.level == Level::Fail && found.what.starts_with("12 object(s)"), "{}", found.what);
        assert!(found.what.contains(&"01".repeat(32)) && found.what.contains("(file 3)"), "{}", found.what);
        assert!(!found.what.contains("(file 4)") && found.what.ends_with('…'), "{}", found.what);
        assert!(found.advice.contains("casctl verify"));
    }
}
