//! Whom an IP address can belong to, and which addresses probably have one owner. Pure.

use std::net::{IpAddr, Ipv4Addr};

/// Whom an IP address can belong to. An IPv4 address within IPv6 counts as itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// This host.
    Loopback,
    /// A host of a network of its own: RFC 1918, RFC 6598, RFC 4193, and what the internet does not route either: the
    /// networks of RFC 2544 and RFC 6890, and of IPv6 all beyond 2000::/3, where overlays and old sites are.
    Private,
    /// Any host.
    Global,
    /// Nobody that could be dialled: link-local (which means nothing without its interface), multicast, unspecified,
    /// and of 0000::/8 of IPv6 what carries no address of IPv4 that is known here: translators of one's own are there.
    Nowhere,
}

/// What one host can have for itself: an address of IPv4, or a /56 of IPv6, which is what a home is given. Of globally
/// routable addresses only: those of one's own network are not many to begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HostAddr {
    /// The address.
    V4(u32),
    /// The upper 56 bits.
    V6(u64),
}

/// Hosts that probably have one owner: a /24 of IPv4 or a /48 of IPv6, of globally routable addresses as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Block {
    /// The upper 24 bits.
    V4(u32),
    /// The upper 48 bits.
    V6(u64),
}

/// The address of IPv4 that one of IPv6 carries (mapped, compatible, RFC 6052, RFC 3056), which is where a translator
/// sends what goes there; else the address itself.
fn carried(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip.to_canonical() else { return ip.to_canonical() };
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => both(high, low),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => both(high, low),
        _ => v6.into(),
    }
}

fn both(high: u16, low: u16) -> IpAddr {
    Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)).into()
}

impl Scope {
    /// Of an address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        let ip = carried(ip);
        if ip.is_loopback() {
            return Self::Loopback;
        }
        let (nowhere, private) = match ip {
            IpAddr::V4(ip) => {
                let [first, second, third, _] = ip.octets();
                let reserved = first == 0 || first >= 224;
                let shared = first == 100 && second & 0xc0 == 64;
                let unrouted = matches!((first, second, third), (198, 18 | 19, _) | (192, 0, 0));
                (reserved || ip.is_link_local(), ip.is_private() || shared || unrouted)
            }
            IpAddr::V6(ip) => {
                let [first, ..] = ip.octets();
                let nowhere = first == 0 || ip.is_multicast() || ip.is_unicast_link_local();
                (nowhere, first >> 5 != 1)
            }
        };
        match (nowhere, private) {
            (true, _) => Self::Nowhere,
            (false, true) => Self::Private,
            (false, false) => Self::Global,
        }
    }
}

impl HostAddr {
    /// The host of a global address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Option<Self> {
        let ip = ip.to_canonical();
        (Scope::of(ip) == Scope::Global).then(|| match ip {
            IpAddr::V4(ip) => Self::V4(ip.to_bits()),
            IpAddr::V6(ip) => Self::V6(u64::try_from(ip.to_bits() >> 72).unwrap_or(0)),
        })
    }

    /// Its block.
    #[must_use]
    pub fn block(self) -> Block {
        match self {
            Self::V4(ip) => Block::V4(ip >> 8),
            Self::V6(upper) => Block::V6(upper >> 8),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_internet_routes_is_global() {
        let is = |scope: Scope, all: &[&str]| {
            for text in all {
                assert_eq!(Scope::of(text.parse().unwrap()), scope, "{text}");
            }
        };
        is(Scope::Nowhere, &["::", "::2", "::ffff:0:7f00:1", "64:ff9b:1::7f00:1", "fe80::1", "ff02::1"]);
        is(Scope::Nowhere, &["0.0.0.0", "0.1.2.3", "224.0.0.1", "255.255.255.255", "169.254.1.1"]);
        is(Scope::Private, &["fec0::1", "fd00::1", "200::1", "1fff::1", "4000::1", "64:ff9b::10.0.0.1"]);
        is(Scope::Private, &["10.0.0.1", "100.127.0.1", "198.18.0.1", "198.19.255.255", "192.0.0.8"]);
        is(Scope::Loopback, &["::1", "127.0.0.1", "::127.0.0.1", "2002:7f00:1::1"]);
        is(Scope::Global, &["2000::1", "2a00:1450:4001::1", "3fff::1", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8"]);
        is(Scope::Global, &["198.17.0.1", "198.20.0.1", "192.0.1.1", "192.0.2.1", "100.128.0.1"]);
    }

    #[test]
    fn blocks_are_of_global_addresses() {
        let host = |text: &str| HostAddr::of(text.parse().unwrap());
        let block = |text: &str| host(text).map(HostAddr::block);
        assert_ne!(host("8.8.4.4"), host("8.8.4.5"));
        assert_eq!(host("2a00:1450:4001:1::1"), host("2a00:1450:4001:ff::1"));
        assert_ne!(host("2a00:1450:4001:1::1"), host("2a00:1450:4001:100::1"));
        assert_eq!(block("8.8.4.4"), block("::ffff:8.8.4.200"));
        assert_ne!(block("8.8.4.4"), block("8.8.5.4"));
        assert_eq!(block("2a00:1450:4001::1"), block("2a00:1450:4001:ffff::2"));
        assert_ne!(block("2a00:1450:4001::1"), block("2a00:1450:4002::1"));
        for near in
            ["127.0.0.1", "10.1.2.3", "100.64.0.1", "192.168.0.1", "169.254.0.1", "fe80::1", "fd00::1", "::1"]
        {
            assert_eq!(block(near), None, "{near}");
        }
    }
}
