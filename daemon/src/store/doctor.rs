//! Looking at the state folder and what it is on: what works, what does not, and what to do about it.
//!
//! Owns: the checks, and one temporary file that is tried out and unlinked. Refuses: changing anything else. Survives a
//! crash: the temporary file may be left; the next start unlinks it.

use std::io::{self, IoSlice};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use super::disk::{Around, Disk};
use super::handle::Inner;
use super::shortage::size;
use super::{Store, now};

/// What is tried out is tried on this file.
pub(super) const TEMPORARY: &str = "doctor.tmp";

/// Its length; holes of half of it are whole blocks of any file system.
const TRIED: usize = 1 << 20;

/// When this was written no clock was right that said less: 2026.
const LONG_AGO: u64 = 1_767_225_600;

const HOUR: u64 = 3600;

/// The last second of the year 9999.
const LAST_DATE: u64 = 253_402_300_799;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, and someone should know.
    Warn,
    /// It does not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name, which never changes.
    pub name: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found, for people.
    pub what: String,
    /// What to do; empty when there is nothing to do.
    pub advice: String,
    /// The numbers that it comes from, by names that never change: bytes, and times in Unix seconds.
    pub numbers: Vec<(&'static str, u64)>,
}

impl Check {
    fn with(mut self, numbers: impl Into<Vec<(&'static str, u64)>>) -> Self {
        self.numbers = numbers.into();
        self
    }
}

fn check(name: &'static str, level: Level, what: impl Into<String>, advice: &str) -> Check {
    Check { name, level, what: what.into(), advice: advice.to_owned(), numbers: Vec::new() }
}

fn ok(name: &'static str, what: impl Into<String>) -> Check {
    check(name, Level::Ok, what, "")
}

/// A time in Unix seconds as people read it.
fn date(at: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(at.min(LAST_DATE)))
}

impl Store {
    /// Looks at the state folder, the file system below it, and how the store is. Writes and unlinks a file of 1 MiB;
    /// one look at a time. What cannot be looked at is a check that fails, never an error.
    pub async fn examine(&self) -> Vec<Check> {
        let _alone = self.inner.examined.lock().await;
        self.blocking(Inner::examine).await
    }
}

impl Inner {
    fn examine(&self) -> Vec<Check> {
        let disk = self.disk.as_ref();
        let mut checks = match disk.around() {
            Ok(around) => vec![folder(&disk.name(), &around), file_system(&around)],
            Err(error) => vec![check(
                "folder",
                Level::Fail,
                format!("{} cannot be looked at: {error}", disk.name()),
                "see that the folder is there and that casd may use it",
            )],
        };
        let writable = self.writable();
        if writable.level == Level::Ok {
            checks.extend(features(disk));
        }
        checks.extend([
            self.space(),
            writable,
            self.last_stop(),
            self.journal(),
            self.index(),
            self.records(),
            self.ballast(),
            self.clock(),
        ]);
        checks
    }

    fn space(&self) -> Check {
        let free = match self.disk.free() {
            Ok(free) => free,
            Err(error) => {
                let what = format!("the file system does not tell its free space: {error}");
                return check("space", Level::Fail, what, "check the disk");
            }
        };
        let account = self.catalog.space.account();
        let (quota, reserve) = self.catalog.space.limits();
        let room = Room { free, reserve, used: account.stored + account.index, quota };
        room.check().with([
            ("free_bytes", free),
            ("reserve_bytes", reserve),
            ("used_bytes", room.used),
            ("quota_bytes", quota),
        ])
    }

    fn writable(&self) -> Check {
        match self.health.failed() {
            None => ok("writable", "no write has failed"),
            Some((why, at)) => check(
                "writable",
                Level::Fail,
                format!("read-only since {}: {why}", date(*at)),
                "check the disk (the kernel's log says more), then restart casd",
            )
            .with([("since", *at)]),
        }
    }

    fn last_stop(&self) -> Check {
        if !self.unclean {
            return ok("stop", "the last run ended in order");
        }
        let advice = "nothing to do: the start has checked what was there; if it happens often, see the log";
        check("stop", Level::Warn, "the last run did not end in order", advice)
    }

    fn journal(&self) -> Check {
        const NAME: &str = "journal";
        let loss = self.health.journal_loss();
        let what = match (loss.cut, loss.entries) {
            (None, 0) => return ok(NAME, "all of it could be read"),
            (Some((left, found)), _) => {
                format!(
                    "the last run left {left} bytes of it and the start found {found}: objects and pins are lost"
                )
            }
            (None, entries) => {
                format!("{entries} of its entries, or more, could not be read: what they said is lost")
            }
        };
        let advice =
            "check the disk, then add what `casctl ls` lacks again, or put back a copy of the state folder";
        check(NAME, Level::Fail, what, advice)
    }

    fn records(&self) -> Check {
        let (count, first) = self.recordless();
        if count == 0 {
            return ok("records", "every object has its first record");
        }
        let what = format!("{count} object(s) have no record in any segment: {first}");
        let advice = "were segments removed? put them back while casd is stopped; else add or fetch the objects again, or \
                      remove them";
        check("records", Level::Fail, what, advice)
    }

    fn index(&self) -> Check {
        const NAME: &str = "index";
        if let Some(error) = self.gauge.failed() {
            let what = format!("it could not be brought up: {error}");
            return check(NAME, Level::Fail, what, "check the disk, then restart casd");
        }
        match self.gauge.working() {
            Some((_, 0)) => {
                check(NAME, Level::Warn, "it is being checked", "wait: reads are served, writing waits")
            }
            Some((done, total)) => {
                let what = format!("it is being made anew: {done} of {total} segments");
                check(NAME, Level::Warn, what, "wait: reads are served, writing waits")
            }
            None if !self.catalog.has_all() => check(
                NAME,
                Level::Warn,
                "some blocks of the segments could not be read or given back",
                "check the disk; the next start looks again",
            ),
            None if self.catalog.index.is_in_memory() => check(
                NAME,
                Level::Warn,
                "it is whole, and only in memory: the disk refused it",
                "check the disk; the next start makes it anew",
            ),
            None => ok(NAME, "it names every record"),
        }
    }

    fn ballast(&self) -> Check {
        if self.disk.open(Path::new(super::ballast::FILE)).is_ok() {
            return ok("ballast", "it is there");
        }
        let advice =
            "free 64 MiB or more, then restart casd: it is what lets a removal be written on a full disk";
        check("ballast", Level::Warn, "it has been given up, or could not be made", advice)
    }

    fn clock(&self) -> Check {
        const NAME: &str = "clock";
        let now = now();
        if now < LONG_AGO {
            let what = format!("it says {}, which is long ago", date(now));
            return check(NAME, Level::Fail, what, "set the clock: what expires depends on it")
                .with([("now", now)]);
        }
        let ahead = self.ledger.select(|info| info.added > now.saturating_add(HOUR)).len();
        if ahead > 0 {
            let what = format!("{ahead} object(s) came later than it says is now");
            return check(NAME, Level::Warn, what, "set the clock: it is behind, or was ahead");
        }
        ok(NAME, format!("it says {}", date(now))).with([("now", now)])
    }
}

/// How much room there is, in bytes.
struct Room {
    free: u64,
    reserve: u64,
    used: u64,
    /// 0: none.
    quota: u64,
}

impl Room {
    fn check(&self) -> Check {
        const NAME: &str = "space";
        let Self { free, reserve, used, quota } = *self;
        let limit = if quota == 0 { "no quota".to_owned() } else { format!("quota {}", size(quota)) };
        let said =
            format!("{} free, {} kept in reserve, {} in use, {limit}", size(free), size(reserve), size(used));
        if free <= reserve {
            let advice = "free some space, remove objects, or lower store.reserve: nothing can be added";
            return check(NAME, Level::Fail, said, advice);
        }
        let left = free - reserve;
        if quota != 0 && used >= quota - quota / 20 {
            return check(
                NAME,
                Level::Warn,
                said,
                "the quota is nearly used up: remove objects or raise store.quota",
            );
        }
        if quota != 0 && quota.saturating_sub(used) > left {
            let advice = "the disk is full before the quota is: lower store.quota, or free some space";
            return check(NAME, Level::Warn, said, advice);
        }
        if left < used / 20 {
            return check(
                NAME,
                Level::Warn,
                said,
                "the disk is nearly full: free some space or remove objects",
            );
        }
        ok(NAME, said)
    }
}

fn folder(name: &str, around: &Around) -> Check {
    let mode = around.mode;
    if around.owner != around.user {
        let what = format!("{name} belongs to uid {}, and casd runs as uid {}", around.owner, around.user);
        return check("folder", Level::Warn, what, "give it to the user that casd runs as (chown -R)");
    }
    if mode & 0o077 != 0 {
        let what = format!("{name} has mode {mode:04o}: other users can see into it");
        return check("folder", Level::Warn, what, "make it mode 0700 (chmod 0700)");
    }
    if !around.open.is_empty() {
        let what = format!("others can read or write {} in {name}", around.open.join(", "));
        return check("folder", Level::Warn, what, "make files mode 0600 and folders 0700");
    }
    ok("folder", format!("{name} has mode {mode:04o} and belongs to uid {}", around.owner))
}

fn file_system(around: &Around) -> Check {
    let system = &around.system;
    let advice = match system.as_str() {
        "tmpfs" | "ramfs" => "everything is lost when the machine restarts: set node.state_dir to a disk",
        "nfs" | "cifs" | "smb2" | "ceph" | "9p" | "fuse" => {
            "locks and syncs may not be what they are on a local disk: set node.state_dir to one"
        }
        "overlay" => "what is stored may go with the container: mount a volume for node.state_dir",
        "vfat" | "exfat" => "it knows neither holes nor modes: set node.state_dir to ext4, xfs or btrfs",
        _ => return ok("filesystem", system.clone()),
    };
    check("filesystem", Level::Warn, system.clone(), advice)
}

/// Tries out on a file what the store asks of a file system.
fn features(disk: &dyn Disk) -> Vec<Check> {
    let remove = || disk.unlink(Path::new(TEMPORARY));
    let _ = remove();
    let checks = try_out(disk);
    let _ = remove();
    checks.unwrap_or_else(|error| {
        let full = super::error::is_full(&error);
        let level = if full { Level::Warn } else { Level::Fail };
        let advice =
            if full { "free 1 MiB and look again" } else { "check the disk and the folder's permissions" };
        vec![check("sync", level, format!("a file could not be written and synced: {error}"), advice)]
    })
}

fn try_out(disk: &dyn Disk) -> io::Result<Vec<Check>> {
    let file = disk.create(Path::new(TEMPORARY))?;
    file.write_at(0, &mut [IoSlice::new(&vec![0xca; TRIED])])?;
    file.sync()?;
    disk.sync_dir(Path::new(""))?;
    let mut checks = vec![ok("sync", "a file and the folder can be synced")];
    let (start, length) = (TRIED as u64 / 4, TRIED as u64 / 2);
    if let Err(error) = file.punch(start, length) {
        let what = format!("holes cannot be punched: {error}");
        let advice =
            "what is removed gives its room back only with its whole segment: use ext4, xfs, btrfs or tmpfs";
        checks.push(check("holes", Level::Warn, what, advice));
        return Ok(checks);
    }
    file.sync()?;
    let read = file.read_at(start, 4096)?;
    checks.push(if read.iter().any(|byte| *byte != 0) {
        check("holes", Level::Fail, "a hole does not read as zeros", "use another file system: this one is broken")
    } else if file.next_hole(0)? == start && file.next_data(start)? == Some(start + length) {
        ok("holes", "they can be punched and found")
    } else {
        let advice = "a start after a crash looks at more, and a torn removal may pass for damage: use ext4, xfs or btrfs";
        check("holes", Level::Warn, "they can be punched, and not found", advice)
    });
    Ok(checks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_judged_and_told_in_units() {
        let room = |free, quota| Room { free, reserve: 1 << 30, used: 512 << 20, quota }.check();
        let good = room(3 << 30, 0);
        assert_eq!(good.what, "3.0 GiB free, 1.0 GiB kept in reserve, 512.0 MiB in use, no quota");
        assert_eq!(good.level, Level::Ok);
        assert_eq!(room(1 << 30, 0).level, Level::Fail);
        assert_eq!(room(3 << 30, 1 << 40).level, Level::Warn, "the disk is full before the quota is");
        assert!(room(3 << 30, 513 << 20).advice.contains("quota is nearly used up"));
    }

    #[test]
    fn times_are_dates_whatever_they_are() {
        assert_eq!(date(LONG_AGO), "Thu, 01 Jan 2026 00:00:00 GMT");
        assert!(date(u64::MAX).contains("9999"));
    }
}
