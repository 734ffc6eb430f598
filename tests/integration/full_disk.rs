//! A file system that two clients fill to the brim: what does not fit is refused, what is there is given, and a removal
//! makes room at once.
//!
//! `CASD_DISK_MIB` is its size, 256 unless set. Only root can make one.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use casd_tests::corpus::{self, MIB};
use casd_tests::disk::Mounted;
use casd_tests::wait::LONG;
use casd_tests::{Ctl, Daemon, Home, skip};

/// What the file system takes besides what `status` says: the ballast of 4 MiB, the journal, the index.
const BESIDES: u64 = 8 * MIB;

/// Lengths of what is added until it does not fit.
const LENGTHS: [usize; 3] = [3_000_000, 200_000, 3000];

/// Objects that were acknowledged: id, seed, length.
#[derive(Default)]
struct Filling {
    seed: AtomicU64,
    added: Mutex<Vec<(String, u64, usize)>>,
}

impl Filling {
    /// Adds objects until one is refused, clearly.
    fn fill(&self, ctl: &Ctl, length: usize) {
        loop {
            let seed = self.seed.fetch_add(1, Ordering::SeqCst);
            let bytes = corpus::bytes(seed, length);
            let done = ctl.run(&["-q", "add", "-"]).input(&bytes).done();
            if !done.status.success() {
                return done.refused(&[6], "space");
            }
            assert_eq!(done.text(), corpus::id(&bytes));
            self.added.lock().unwrap().push((done.text(), seed, length));
        }
    }

    #[track_caller]
    fn is_given(&self, ctl: &Ctl) {
        for (id, seed, length) in &*self.added.lock().unwrap() {
            assert!(ctl.cat(id) == corpus::bytes(*seed, *length), "{id} of seed {seed}");
        }
    }

    /// Lets go of the first object of this length.
    fn take(&self, length: usize) -> String {
        let mut added = self.added.lock().unwrap();
        let at = added.iter().position(|(_, _, other)| *other == length).expect("there is one");
        added.remove(at).0
    }
}

/// MiB of the file system.
fn size() -> u64 {
    std::env::var("CASD_DISK_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(256)
}

fn tmpfs(home: &Home) -> Option<Mounted> {
    Mounted::tmpfs(&home.path("disk"), size())
}

fn ext4(home: &Home) -> Option<Mounted> {
    Mounted::ext4(&home.path("disk"), &home.path("image"), size())
}

#[test]
fn a_full_tmpfs_is_read_served_and_emptied() {
    if let Some(full) = full(tmpfs) {
        is_read_served_and_emptied(&full);
    }
}

#[test]
fn a_full_ext4_is_read_served_and_emptied() {
    if let Some(full) = full(ext4) {
        is_read_served_and_emptied(&full);
    }
}

#[test]
fn a_full_tmpfs_is_started_on() {
    if let Some(full) = full(tmpfs) {
        is_started_on(full);
    }
}

#[test]
fn a_full_ext4_is_started_on() {
    if let Some(full) = full(ext4) {
        is_started_on(full);
    }
}

/// A daemon on a file system that is full.
struct Full {
    // In this order they go.
    daemon: Daemon,
    disk: Mounted,
    home: Home,
    filling: Filling,
    /// Bytes that were in use before.
    empty: u64,
}

/// Fills a file system, by two clients at once, with ever smaller objects.
/// `None`: this cannot be done here, which has been said.
fn full(make: fn(&Home) -> Option<Mounted>) -> Option<Full> {
    let mut home = Home::with(|settings| settings.text("store.parity", "none"));
    let Some(disk) = make(&home) else {
        skip("only root can mount a file system");
        return None;
    };
    let empty = disk.used();
    let state = disk.folder().join("state").display().to_string();
    home.change(|settings| settings.text("node.state_dir", &state));
    let full = Full { daemon: home.start(), disk, home, filling: Filling::default(), empty };
    for length in LENGTHS {
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| full.filling.fill(full.daemon.ctl(), length));
            }
        });
    }
    let count = full.filling.added.lock().unwrap().len();
    eprintln!("{count} objects fill {} MiB", size());
    full.filling.is_given(full.daemon.ctl());
    full.agrees();
    Some(full)
}

fn is_read_served_and_emptied(full: &Full) {
    let ctl = full.daemon.ctl();
    // Others are served, and what they have does not fit either.
    let network = ctl.status()["network"].as_str().unwrap().to_owned();
    let other = Home::with(|settings| settings.text("network.name", &network));
    let taker = other.start();
    let (id, seed, length) = full.filling.added.lock().unwrap()[0].clone();
    let fetch = ["fetch", &id, "--peer", &full.daemon.chunk_address(), "-o", "-"];
    assert!(taker.ctl().run(&fetch).done().ok().stdout == corpus::bytes(seed, length), "it is served");
    // More than what the refused adds have left, which gives way.
    let foreign = taker.ctl().add_bytes(&corpus::bytes(u64::MAX, 12 * LENGTHS[0]));
    let to = full.home.path("another");
    let fetch = ["fetch", &foreign, "--pin", "--peer", &taker.chunk_address(), "-o", to.to_str().unwrap()];
    ctl.run(&fetch).done().refused(&[6], "space");
    full.gives_room_back();
}

fn is_started_on(mut full: Full) {
    // Being full is no reason to end badly, not to start, or to lose anything.
    let log = full.daemon.log_file().to_owned();
    let ended = full.daemon.stop(LONG);
    assert_eq!(ended.code(), Some(0), "{}", std::fs::read_to_string(log).unwrap());
    full.daemon = full.home.start();
    full.filling.is_given(full.daemon.ctl());
    full.gives_room_back();
}

impl Full {
    /// What is removed makes room at once: as much as it took.
    fn gives_room_back(&self) {
        let ctl = self.daemon.ctl();
        for seed in 0..3 {
            ctl.text(&["rm", &self.filling.take(LENGTHS[0])]);
            let bytes = corpus::bytes(seed + (1 << 40), LENGTHS[0] - 200_000);
            let id = ctl.add_bytes(&bytes);
            assert!(ctl.cat(&id) == bytes);
            ctl.text(&["rm", &id]);
            ctl.add_bytes(&bytes);
        }
        self.filling.is_given(ctl);
        self.agrees();
        for object in ctl.json(&["ls"]) {
            ctl.text(&["rm", object["id"].as_str().unwrap()]);
        }
        self.agrees();
        let used = self.disk.used() - self.empty;
        assert!(used < 2 * BESIDES, "{used} bytes are in use by nothing");
        self.filling.added.lock().unwrap().clear();
        self.filling.fill(ctl, LENGTHS[0]);
        self.filling.is_given(ctl);
        let log = self.daemon.log();
        assert!(!log.contains("panicked") && !log.contains("read-only"), "{log}");
    }

    /// What `status` says is in use is in use: within 1 %, or for small disks what is said at [`BESIDES`].
    #[track_caller]
    fn agrees(&self) {
        let stored = self.daemon.ctl().status()["stored_bytes"].as_u64().unwrap();
        let used = self.disk.used() - self.empty;
        let off = used.abs_diff(stored);
        eprintln!("{stored} bytes are stored, {used} in use");
        assert!(off <= BESIDES.max(used / 100), "{stored} bytes are stored, and {used} in use");
    }
}
