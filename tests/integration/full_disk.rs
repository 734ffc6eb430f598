//! A file system that two clients fill to the brim: what does not fit is refused, what is there is given, and a removal
//! makes room at once.
//!
//! `CASD_DISK_MIB` is its size, 256 unless set. Only root can make one.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use casd_tests::corpus::{self, MIB};
use casd_tests::disk::Mounted;
use casd_tests::wait::LONG;
use casd_tests::{Ctl, Home, skip};

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

#[test]
fn a_full_tmpfs() {
    brim(|home| Mounted::tmpfs(&home.path("disk"), size()));
}

#[test]
fn a_full_ext4() {
    brim(|home| Mounted::ext4(&home.path("disk"), &home.path("image"), size()));
}

fn brim(make: impl FnOnce(&Home) -> Option<Mounted>) {
    let mut home = Home::with(|settings| settings.text("store.parity", "none"));
    let Some(disk) = make(&home) else { return skip("only root can mount a file system") };
    let empty = disk.used();
    let state = disk.folder().join("state").display().to_string();
    home.change(|settings| settings.text("node.state_dir", &state));
    let mut daemon = home.start();
    let filling = Filling::default();
    for length in LENGTHS {
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| filling.fill(daemon.ctl(), length));
            }
        });
    }
    let count = filling.added.lock().unwrap().len();
    eprintln!("{count} objects fill {} MiB", size());
    filling.is_given(daemon.ctl());
    agrees(daemon.ctl(), &disk, empty);

    // Others are served, and what they have does not fit either.
    let network = daemon.ctl().status()["network"].as_str().unwrap().to_owned();
    let other = Home::with(|settings| settings.text("network.name", &network));
    let taker = other.start();
    let (id, seed, length) = filling.added.lock().unwrap()[0].clone();
    let fetch = ["fetch", &id, "--peer", &daemon.chunk_address(), "-o", "-"];
    assert!(taker.ctl().run(&fetch).done().ok().stdout == corpus::bytes(seed, length), "it is served");
    let foreign = taker.ctl().add_bytes(&corpus::bytes(u64::MAX, LENGTHS[0]));
    let to = home.path("another");
    let fetch = ["fetch", &foreign, "--pin", "--peer", &taker.chunk_address(), "-o", to.to_str().unwrap()];
    daemon.ctl().run(&fetch).done().refused(&[6], "space");

    // Being full is no reason not to start, or to lose anything.
    assert_eq!(daemon.stop(LONG).code(), Some(0));
    daemon = home.start();
    let ctl = daemon.ctl().clone();
    filling.is_given(&ctl);

    // What is removed makes room at once: as much as it took.
    for seed in 0..3 {
        ctl.text(&["rm", &filling.take(LENGTHS[0])]);
        let bytes = corpus::bytes(seed + (1 << 40), LENGTHS[0] - 200_000);
        let id = ctl.add_bytes(&bytes);
        assert!(ctl.cat(&id) == bytes);
        ctl.text(&["rm", &id]);
        ctl.add_bytes(&bytes);
    }
    filling.is_given(&ctl);
    agrees(&ctl, &disk, empty);
    for object in ctl.json(&["ls"]) {
        ctl.text(&["rm", object["id"].as_str().unwrap()]);
    }
    agrees(&ctl, &disk, empty);
    assert!(disk.used() < empty + 2 * BESIDES, "{} of {empty} bytes before are in use", disk.used());
    filling.added.lock().unwrap().clear();
    filling.fill(&ctl, LENGTHS[0]);
    filling.is_given(&ctl);
    let log = daemon.log();
    assert!(!log.contains("panicked") && !log.contains("read-only"), "{log}");
}

/// What `status` says is in use is in use: within 1 %, or for small disks what is said at [`BESIDES`].
#[track_caller]
fn agrees(ctl: &Ctl, disk: &Mounted, empty: u64) {
    let stored = ctl.status()["stored_bytes"].as_u64().unwrap();
    let used = disk.used() - empty;
    let off = used.abs_diff(stored);
    eprintln!("{stored} bytes are stored, {used} in use");
    assert!(off <= BESIDES.max(used / 100), "{stored} bytes are stored, and {used} in use");
}
