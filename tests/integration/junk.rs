//! A hundred peers place junk records at a daemon: its memory moves by a bounded amount, and what it announces itself
//! is announced none the worse. `CASD_JUNK_RECORDS` is how many there are.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use casd_tests::nodes;
use casd_tests::programs::program;
use casd_tests::wait::{self, LONG};

const PEERS: usize = 100;
const RECORDS: usize = 50_000;
/// By how much the daemon's resident memory may grow.
const MOST: u64 = 64 << 20;
/// Objects that it announces meanwhile.
const OWN: usize = 300;

/// The flood, ended with the test.
struct Flood(Child);

impl Drop for Flood {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Says that something is over when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Bytes that a process has resident.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/statm")).unwrap();
    status.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("pages") * 4096
}

#[test]
fn junk_records_of_a_hundred_peers_move_little_memory_and_no_announcement_fails() {
    let records = std::env::var("CASD_JUNK_RECORDS").map_or(RECORDS, |text| text.parse().expect("a number"));
    let nodes = nodes::network(2, |_, settings| settings);
    let (victim, other) = (&nodes[0], &nodes[1]);
    let name = victim.ctl().status()["network"].as_str().unwrap().to_owned();
    // The first add warms up what every daemon has.
    let _ = victim.ctl().add_bytes(b"warm");
    let folder = victim.home.path("own");
    std::fs::create_dir(&folder).unwrap();
    for number in 0..OWN {
        std::fs::write(folder.join(number.to_string()), format!("own {number}")).unwrap();
    }
    let pid = victim.daemon.pid();
    let before = resident(pid);
    let (peak, is_over) = (AtomicU64::new(before), AtomicBool::new(false));
    let ids: Vec<String> = std::thread::scope(|scope| {
        // Also where the test fails: the scope waits for its thread.
        let _over = Over(&is_over);
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                peak.fetch_max(resident(pid), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let target = victim.daemon.dht_addresses().remove(0);
        let flood = Command::new(program("poisoner"))
            .args(["junk", &name, &target, &PEERS.to_string(), &records.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut flood = Flood(flood);
        let added = victim.ctl().run(&["-q", "add", "-r", "--each"]).arg(&folder).done().ok().text();
        let mut said = String::new();
        BufReader::new(flood.0.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        let placed = said.trim().strip_prefix("placed ").and_then(|taken| taken.parse::<usize>().ok());
        let placed = placed.unwrap_or_else(|| panic!("the flood ended: {said:?}"));
        assert!(placed > 0 && placed <= records.next_multiple_of(PEERS), "{placed} of {records} were taken");
        wait::until("all of its own to be announced", LONG, || {
            let told = victim.ctl().json(&["announce"]).pop()?;
            (told["queued"] == 0).then_some(())
        });
        let told = victim.ctl().json(&["announce"]).pop().unwrap();
        assert_eq!((&told["overdue"], &told["refused"]), (&0.into(), &0.into()), "{told}");
        eprintln!("{placed} of {records} records taken");
        added.lines().map(str::to_owned).collect()
    });
    let grown = peak.load(Ordering::Relaxed).saturating_sub(before);
    eprintln!("resident: {} MiB before, at most {} MiB more", before >> 20, grown >> 20);
    assert!(grown < MOST, "grown by {} MiB", grown >> 20);
    assert!(ids.len() >= OWN, "{} are added", ids.len());
    for id in ids.iter().step_by(30) {
        let found = other.ctl().json(&["providers", id]);
        assert!(
            found.iter().any(|holder| holder["peer_id"] == victim.id().as_str()),
            "{id} is not found: {found:?}"
        );
    }
}
