//! Parts of objects that are elsewhere, read by `cat`: they come without the rest, from whoever has them; and what is
//! lost of them from the stripe around it.

use std::time::{Duration, Instant};

use casd_tests::corpus::{self, MIB};
use casd_tests::ctl::Run;
use casd_tests::wait::{self, LONG};
use casd_tests::{Node, Settings, nodes, segments};

/// Bytes of an object.
const SIZE: u64 = 64 * MIB;

/// `cat ID --offset OFFSET --length LENGTH`.
fn cat(node: &Node, id: &str, offset: u64, length: u64) -> Run {
    let (offset, length) = (offset.to_string(), length.to_string());
    node.ctl().run(&["cat", id, "--offset", &offset, "--length", &length])
}

/// Some bytes of what [`corpus::file`] has written of a seed.
fn truth(seed: u64, offset: u64, length: u64) -> Vec<u8> {
    let [from, to] = [offset, offset + length].map(|at| usize::try_from(at).unwrap());
    corpus::bytes(seed, to).split_off(from)
}

/// MiB of data chunks that a node has.
fn stored(node: &Node) -> u64 {
    node.ctl().status()["store"]["data_bytes"].as_u64().expect("it counts") / MIB
}

/// Adds the object of a seed to a node, without parity, and waits until others can find it.
fn add(node: &Node, seed: u64, size: u64) -> String {
    let file = node.home.path("file");
    let id = corpus::file(&file, seed, size);
    let add = node.ctl().run(&["-q", "add", "--parity", "none", "--wait-announced"]).arg(&file);
    assert_eq!(add.within(2 * LONG).done().ok().text(), id);
    std::fs::remove_file(file).unwrap();
    id
}

#[test]
fn a_range_comes_from_a_slow_holder_without_the_rest() {
    let slow = |number: usize, settings: Settings| match number {
        0 => settings.text("transfer.upload", "1MiB"),
        _ => settings,
    };
    let [holder, reader] = <[Node; 2]>::try_from(nodes::network(2, slow)).unwrap();
    let id = add(&holder, 51, SIZE);
    let (offset, length) = (20 * MIB + 5, MIB + 77);
    let begun = Instant::now();
    let got = cat(&reader, &id, offset, length).done().ok().stdout;
    assert!(got == truth(51, offset, length));
    // All of it would take a minute.
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert_eq!(stored(&reader), 2);
    assert!(reader.ctl().json(&["ls"]).is_empty(), "a part is no object");

    // Of what reaches beyond the end there is what there is; behind the end is nothing, and that is said.
    assert!(cat(&reader, &id, SIZE - 10, u64::MAX).done().ok().stdout == truth(51, SIZE - 10, 10));
    assert!(cat(&reader, &id, SIZE, 1).done().ok().stdout.is_empty());
    assert!(cat(&reader, &id, 7, 0).done().ok().stdout.is_empty());
    for behind in [SIZE + 1, u64::MAX] {
        cat(&reader, &id, behind, 1).done().refused(&[2], &behind.to_string());
    }
    cat(&reader, &corpus::id(b""), 1, 1).done().refused(&[2], "the object has 0 bytes");
    assert_eq!(stored(&reader), 3);

    // What has come can be read when nobody is there.
    assert_eq!(holder.daemon.stop(LONG).code(), Some(0));
    assert!(cat(&reader, &id, offset, length).done().ok().stdout == truth(51, offset, length));
}

#[test]
fn who_has_read_a_part_gives_it_to_others_though_nobody_has_the_rest() {
    let four = nodes::network(4, |_, settings| settings);
    let [first, holder, reader, last] = <[Node; 4]>::try_from(four).unwrap();
    let id = add(&holder, 52, SIZE);
    assert!(cat(&reader, &id, 0, 20 * MIB).within(2 * LONG).done().ok().stdout == truth(52, 0, 20 * MIB));
    let who = reader.id();
    wait::until("who has read a part to be found", LONG, || {
        let found = first.ctl().json(&["providers", &id]);
        found.iter().any(|holder| holder["peer_id"] == who.as_str()).then_some(())
    });
    assert_eq!(holder.daemon.stop(LONG).code(), Some(0));
    let (offset, length) = (3 * MIB - 1, 2 * MIB + 2);
    assert!(cat(&last, &id, offset, length).done().ok().stdout == truth(52, offset, length));
    assert_eq!(stored(&last), 4);
}

/// Two holders lack the chunk of the range and others of its stripe, and neither could mend it alone. Between them they
/// have just as many of the stripe's chunks as it takes, parity among them.
#[test]
fn what_both_holders_have_lost_of_a_range_comes_of_its_stripe() {
    // What has rotted at a holder it asks of the other: it gets too little to be of use in this test.
    let slow = |number: usize, settings: Settings| match number {
        3 => settings,
        _ => settings.text("transfer.download", "1KiB"),
    };
    let [_first, one, other, reader] = <[Node; 4]>::try_from(nodes::network(4, slow)).unwrap();
    let size = 40 * MIB + 77;
    let file = one.home.path("file");
    let id = corpus::file(&file, 53, size);
    for (holder, parity) in [(&one, "16+4"), (&other, "none")] {
        let add = holder.ctl().run(&["-q", "add", "--wait-announced", "--parity", parity]).arg(&file);
        assert_eq!(add.done().ok().text(), id);
    }
    std::fs::remove_file(&file).unwrap();
    let chunks = one.ctl().data_chunks(&id);
    let rot = |holder: &Node, lost: &[usize]| {
        let lost: Vec<_> = lost.iter().map(|at| chunks[*at].clone()).collect();
        let is_one = |record: &segments::Record| record.kind == segments::DATA && lost.contains(&record.id);
        assert_eq!(segments::rot(&holder.home.state(), is_one), lost.len());
    };
    // Of the first stripe, 16 + 4, nobody has four chunks, and five are not where the parity is.
    rot(&one, &[0, 5, 6, 9, 15]);
    rot(&other, &[0, 5, 6, 9]);
    let (offset, length) = (5 * MIB + 1, MIB / 2);
    let got = cat(&reader, &id, offset, length).within(2 * LONG).done().ok().stdout;
    assert!(got == truth(53, offset, length));
    // The stripe's twelve that are left, and the one that was wanted; not the three that came out as well.
    assert_eq!(stored(&reader), 13);
}

/// Of an object of more than one page of chunk ids, 2 GiB, the other pages do not come either.
#[test]
fn a_range_of_a_long_object_comes_without_the_rest_of_its_list() {
    let nodes = nodes::network(2, |_, settings| settings.text("store.parity", "none"));
    let [holder, reader] = <[Node; 2]>::try_from(nodes).unwrap();
    let file = holder.home.path("file");
    let (page, data) = (2048 * MIB, corpus::bytes(54, 3_000_000));
    let at = page + 200 * MIB - 1_000_000;
    let id = corpus::sparse(&file, page + 300 * MIB, &[(at, &data)]);
    let add = holder.ctl().run(&["-q", "add", "--wait-announced"]).arg(&file);
    assert_eq!(add.within(5 * LONG).done().ok().text(), id);
    for _ in 0..2 {
        let got = cat(&reader, &id, at - 10, 3_000_020).done().ok().stdout;
        assert!(got == [&[0; 10], &data[..], &[0; 10]].concat());
        // The second time it is only its list that comes.
        assert_eq!(stored(&reader), 3);
        assert_eq!(reader.ctl().status()["store"]["manifest_bytes"], 0);
    }
    // What nobody here knows is nothing that others could be given.
    holder.ctl().run(&["providers", &id]).done().code(4);
}
