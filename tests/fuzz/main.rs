//! All fuzz targets of casd in one program: `CASD_FUZZ` names the one that is run. See `run`, beside it.

#![no_main]

use std::sync::OnceLock;

use casd::fuzzing::{TARGETS, Target, memory};
use libfuzzer_sys::fuzz_target;

static CHOSEN: OnceLock<&Target> = OnceLock::new();

fn choose() {
    let name = std::env::var("CASD_FUZZ").unwrap_or_default();
    let found = TARGETS.iter().find(|target| target.name == name);
    let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    assert!(found.is_some(), "CASD_FUZZ is {name:?}; it names one of {}", names.join(", "));
    found.map(|target| CHOSEN.set(target));
}

fuzz_target!(init: choose(), |data: &[u8]| {
    let Some(target) = CHOSEN.get() else { return };
    let cost = allocation_counter::measure(|| (target.check)(data));
    assert!(cost.bytes_max <= memory(data.len()), "{} bytes of memory", cost.bytes_max);
});
