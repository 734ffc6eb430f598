//! One who announces: where it is, how much it has here, and how fast it may announce.
//!
//! Owns: the shape of a source, and what is known of where peers are. Pure. Refuses: more keys a second than
//! [`RATE`](super::RATE), and more or longer addresses than are told. Survives a crash: nothing.

use std::net::IpAddr;

use libp2p::{Multiaddr, PeerId};

use super::owners::Owner;
use super::replay::Window;
use super::{MAX_ADDRESS, MAX_ADDRESSES, Records};
use crate::dht::journal::Entry;
use crate::dht::listen::ip_of;
use crate::dht::reach;

/// Hosts that probably have one owner: a /16 of IPv4 or a /32 of IPv6. Of globally routable addresses only; those of
/// one's own network are not many to begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::dht) struct Group(u32, bool);

/// Where a peer is.
#[derive(Clone, Debug, Default)]
pub(super) struct Contact {
    /// What it told.
    pub(super) addresses: Vec<Multiaddr>,
    /// Where it was seen.
    pub(super) group: Option<Group>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Source {
    /// Who.
    pub(super) peer: PeerId,
    /// Where it can be reached, told in answers.
    pub(super) addresses: Vec<Multiaddr>,
    /// Where it was last seen.
    pub(super) group: Option<Group>,
    /// Records it has here.
    pub(super) count: u32,
    /// Which batches of it have been taken.
    pub(super) window: Window,
    /// Keys that it may announce now, and the second in which that was reckoned.
    allowance: (u32, u32),
}

// === impl Group ===

impl Group {
    /// Those of whom it is not seen where they are, and who come through relays: however many they are, they are one
    /// group. No global address is in it.
    pub(in crate::dht) const UNSEEN: Self = Self(0, false);

    /// The group of a global address.
    pub(in crate::dht) fn of(ip: IpAddr) -> Option<Self> {
        let ip = ip.to_canonical();
        reach::is_global(ip).then(|| match ip {
            IpAddr::V4(ip) => Self(ip.to_bits() >> 16, false),
            IpAddr::V6(ip) => Self(u32::try_from(ip.to_bits() >> 96).unwrap_or(0), true),
        })
    }

    /// The group of who is at the other end of a connection.
    pub(in crate::dht) fn seen(remote: &Multiaddr) -> Option<Self> {
        ip_of(remote).map_or(Some(Self::UNSEEN), Self::of)
    }
}

// === impl Source ===

impl Source {
    pub(super) fn new(peer: PeerId, contact: Contact, allowed: u32) -> Self {
        let Contact { addresses, group } = contact;
        Self { peer, addresses, group, count: 0, window: Window::default(), allowance: (allowed, 0) }
    }

    /// Whose share its records are of; `number` is its own.
    pub(super) fn owner(&self, number: u32) -> Owner {
        self.group.map_or(Owner::Alone(number), Owner::Group)
    }

    /// Whether it may announce one more key in this second.
    pub(super) fn may_announce(&mut self, second: u32, rate: u32, burst: u32) -> bool {
        let (left, since) = self.allowance;
        let earned = second.saturating_sub(since).saturating_mul(rate);
        let left = left.saturating_add(earned).min(burst);
        self.allowance = (left.saturating_sub(1), second.max(since));
        left > 0
    }
}

/// Of the addresses that a peer tells those that are kept, and told to others: few and short ones, so that an answer
/// that names many is not too long to be read. Those of some network of its own give way, but where it was `seen`: a
/// host may have many such.
pub(in crate::dht) fn chosen(mut told: Vec<Multiaddr>, seen: &[IpAddr]) -> Vec<Multiaddr> {
    told.retain(|at| at.len() <= MAX_ADDRESS);
    told.sort_by_key(|at| ip_of(at).is_some_and(|ip| !reach::is_global(ip) && !seen.contains(&ip)));
    told.truncate(MAX_ADDRESSES);
    told
}

// === impl Records ===

impl Records {
    /// Replaces what is told of where a source is.
    pub(in crate::dht) fn locate(&mut self, peer: &PeerId, addresses: Vec<Multiaddr>) {
        let addresses = chosen(addresses, &[]);
        let number = self.numbers.get(peer).copied();
        let source = number.and_then(|n| self.sources.get_mut(n as usize)?.as_mut());
        if let Some(source) = source.filter(|source| source.addresses != addresses) {
            source.addresses.clone_from(&addresses);
            self.journal.note(&Entry::Located { peer: *peer, addresses });
        }
    }

    /// Remembers where a connected peer is, for when it announces without telling.
    pub(in crate::dht) fn met(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, group: Option<Group>) {
        let addresses = chosen(addresses, &[]);
        // Who says nothing of it now may have signed something before.
        if !addresses.is_empty() {
            self.locate(&peer, addresses.clone());
        }
        self.opened(peer, group);
        self.contacts.insert(peer, Contact { addresses, group });
    }

    /// A peer is connected, and seen there: it counts there from its first message on, and need never say what it is.
    pub(in crate::dht) fn opened(&mut self, peer: PeerId, group: Option<Group>) {
        if let Some(&number) = self.numbers.get(&peer)
            && let Some(source) = self.sources.get_mut(number as usize).and_then(Option::as_mut)
            && source.group != group
        {
            self.owners.recount(source.owner(number), number, source.count, 0);
            source.group = group;
            self.owners.recount(source.owner(number), number, 0, source.count);
        }
        self.contacts.entry(peer).or_default().group = group;
    }

    /// Forgets where a peer is that is no longer connected; its records stay.
    pub(in crate::dht) fn parted(&mut self, peer: &PeerId) {
        self.contacts.remove(peer);
    }

    /// Where a peer is, as far as it has told; empty when it has not.
    pub(in crate::dht) fn whereabouts(&self, peer: &PeerId) -> Vec<Multiaddr> {
        let source = self.numbers.get(peer).and_then(|number| self.source(*number));
        let told = source.map(|source| &source.addresses).filter(|told| !told.is_empty());
        told.or_else(|| Some(&self.contacts.get(peer)?.addresses)).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_of_global_addresses() {
        let group = |text: &str| Group::of(text.parse().unwrap());
        assert_eq!(group("8.8.4.4"), group("8.8.255.1"));
        assert_eq!(group("8.8.4.4"), group("::ffff:8.8.1.1"));
        assert_ne!(group("8.8.4.4"), group("8.9.4.4"));
        assert_eq!(group("2a00:1450:4001::1"), group("2a00:1450:9::2"));
        assert_ne!(group("2a00:1450::1"), group("2a00:1451::1"));
        for near in ["127.0.0.1", "10.1.2.3", "192.168.0.1", "fe80::1", "fd00::1", "::1"] {
            assert_eq!(group(near), None, "{near}");
        }
    }

    #[test]
    fn few_and_short_addresses_are_kept_and_those_that_lead_far_first() {
        let all =
            |texts: &[String]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Multiaddr>>();
        let bridges: Vec<_> = (16..30).map(|net| format!("/ip4/172.{net}.0.1/tcp/8468")).collect();
        let far = ["/ip4/8.8.4.4/tcp/8468".to_owned(), "/ip6/2a00:1450::1/udp/8468/quic-v1".to_owned()];
        let long = format!("/dns4/{}/tcp/1", "x".repeat(MAX_ADDRESS));
        let told = all(&[&[long][..], &bridges[..], &far[..]].concat());
        let kept = chosen(told.clone(), &[]);
        assert_eq!(kept, all(&[&far[..], &bridges[..MAX_ADDRESSES - 2]].concat()));
        assert_eq!(chosen(kept.clone(), &[]), kept);
        let seen = chosen(told, &["172.29.0.1".parse().unwrap()]);
        assert_eq!(seen[..3], all(&[&bridges[13..], &far[..]].concat()));
    }

    #[test]
    fn a_source_may_save_up_and_no_more() {
        let mut source = Source::new(PeerId::random(), Contact::default(), 10);
        let mut announced =
            |second, wanted: usize| (0..wanted).filter(|_| source.may_announce(second, 4, 10)).count();
        assert_eq!(announced(0, 100), 10);
        assert_eq!(announced(1, 100), 4);
        assert_eq!(announced(1, 100), 0);
        assert_eq!(announced(100, 100), 10);
    }
}
