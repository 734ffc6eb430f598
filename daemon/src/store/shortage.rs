//! What there is to say when there is no room: how much is used and allowed, and what takes most of it.
//!
//! Owns: the words of such a refusal. Refuses: deciding about room, which is `space`. Survives a crash: nothing.

use std::fmt::Write;

use super::Error;
use super::handle::Inner;
use super::object::ObjectInfo;
use crate::content::ObjectId;

/// Pins that a refusal names at most.
const PINS: usize = 5;

/// Characters of a name that are shown at most.
const NAME: usize = 40;

/// How much there is, and how much was wanted. All in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shortage {
    /// Asked for.
    pub needed: u64,
    /// In use, with those promised to others.
    pub used: u64,
    /// The most that may be in use, 0 for no limit.
    pub quota: u64,
    /// To stay free of the file system.
    pub reserve: u64,
    /// Free on the file system.
    pub free: u64,
    /// The largest pinned objects, the largest first; at most 5.
    pub pins: Vec<LargePin>,
}

/// A pinned object that takes much room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LargePin {
    /// Its id.
    pub id: ObjectId,
    /// What it is called here, at most 40 characters of it.
    pub name: Option<String>,
    /// Its length in bytes; parity and what it shares with others are not in it.
    pub bytes: u64,
    /// Who pinned it first.
    pub uid: u32,
    /// How many others did.
    pub others: usize,
}

impl LargePin {
    /// An object that someone has pinned.
    pub(super) fn of(info: &ObjectInfo) -> Self {
        Self {
            id: info.id,
            name: info.name.as_ref().map(|name| cut(name)),
            bytes: info.length,
            uid: info.pins.first().map_or(0, |pin| pin.uid),
            others: info.pins.len().saturating_sub(1),
        }
    }
}

fn cut(name: &str) -> String {
    match name.char_indices().nth(NAME) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

impl Shortage {
    /// The message about a quota.
    pub(super) fn of_quota(&self) -> String {
        let (needed, used, quota) = (size(self.needed), size(self.used), size(self.quota));
        if self.needed > self.quota {
            return format!(
                "it needs {needed}, which is more than the store's whole quota of {quota}; raise store.quota"
            );
        }
        let pins = self.pins();
        format!(
            "the store's quota is used up: {needed} more, {used} of {quota} in use{pins}; remove or unpin some, or raise \
             store.quota"
        )
    }

    /// As the message about a full disk says it.
    pub(super) fn of_disk(&self) -> String {
        let (needed, free, reserve) = (size(self.needed), size(self.free), size(self.reserve));
        let used = size(self.used);
        format!("{needed} more, {free} free, {reserve} kept in reserve, {used} in use by casd{}", self.pins())
    }

    fn pins(&self) -> String {
        let mut said = String::new();
        for pin in &self.pins {
            said.push_str(if said.is_empty() { "; largest pins: " } else { ", " });
            let id = || pin.id.to_string()[..16].to_owned();
            let name = pin.name.clone().unwrap_or_else(id);
            let others = if pin.others == 0 { String::new() } else { format!(" and {} more", pin.others) };
            // Writing to a string does not fail.
            let _ = write!(said, "{name} {} (uid {}{others})", size(pin.bytes), pin.uid);
        }
        said
    }
}

/// Bytes in the unit that fits.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    // In tenths of the unit.
    let mut tenths = u128::from(bytes) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

impl Inner {
    /// A refusal for want of room, with what takes the most of it.
    pub(super) async fn explained(self: &std::sync::Arc<Self>, mut error: Error) -> Error {
        if let Error::Quota(short) | Error::DiskFull(short) = &mut error {
            let inner = std::sync::Arc::clone(self);
            let find = move || (inner.ledger.largest_pins(PINS), inner.catalog.space.disk_full(0));
            let (pins, now) = self.pool.run(find).await;
            short.pins = pins;
            if let (0, Error::DiskFull(now)) = (short.used, now) {
                // Whoever refused knew nothing of the account.
                **short = Shortage { needed: short.needed, pins: std::mem::take(&mut short.pins), ..*now };
            }
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_how_much_and_of_whom() {
        let pin = |name: Option<&str>, bytes, others| LargePin {
            id: ObjectId::from_bytes([0xab; 32]),
            name: name.map(cut),
            bytes,
            uid: 1000,
            others,
        };
        let short = Shortage {
            needed: 5 << 20,
            used: 10 << 20,
            quota: 12 << 20,
            reserve: 1 << 30,
            free: 500,
            pins: vec![pin(Some("film.mkv"), 9 << 20, 0), pin(None, 1 << 19, 2)],
        };
        let pins =
            "; largest pins: film.mkv 9.0 MiB (uid 1000), abababababababab 512.0 KiB (uid 1000 and 2 more)";
        assert_eq!(
            Error::Quota(Box::new(short.clone())).to_string(),
            format!(
                "the store's quota is used up: 5.0 MiB more, 10.0 MiB of 12.0 MiB in use{pins}; remove or unpin some, or \
                 raise store.quota"
            )
        );
        let large = Shortage { needed: 13 << 20, ..short.clone() };
        assert_eq!(
            Error::Quota(Box::new(large)).to_string(),
            "it needs 13.0 MiB, which is more than the store's whole quota of 12.0 MiB; raise store.quota"
        );
        assert_eq!(
            Error::DiskFull(Box::new(short)).to_string(),
            format!(
                "not enough space on the file system: 5.0 MiB more, 500 bytes free, 1.0 GiB kept in reserve, 10.0 MiB in \
                 use by casd{pins}; remove or unpin some, or free some space"
            )
        );
        assert_eq!(cut(&"ä".repeat(41)), format!("{}…", "ä".repeat(40)));
        assert_eq!(size(u64::MAX), "16777215.9 TiB");
    }
}
