//! Directories that a hostile daemon or peer would like to see restored: names that lead elsewhere, parts that are out
//! of order, lies about lengths. Each ends the fetch, and nothing around the target has changed.

use std::fs;
use std::os::unix::fs::symlink;

use casd_proto::v1::TreePart;
use tempfile::TempDir;

use crate::daemon::{self, ID, Script};
use crate::trees::{self, Event, begin, bytes, end, enter, everything, file, finished, honest, leave};
use crate::trees::{link, parts, started, zeros};
use crate::{folder, run, words};

/// A folder to fetch in, with everything around it and in it that a way out could lead to.
fn canary() -> TempDir {
    let around = folder();
    let work = around.path().join("one/two/work");
    fs::create_dir_all(work.join("sub")).unwrap();
    for place in ["", "one", "one/two", "one/two/work", "one/two/work/sub"] {
        for name in ["x", "a", "passwd", ".bashrc", "canary"] {
            fs::write(around.path().join(place).join(name), format!("{place} {name}")).unwrap();
        }
    }
    fs::create_dir_all(around.path().join("one/etc")).unwrap();
    fs::write(around.path().join("one/etc/passwd"), "root").unwrap();
    symlink(around.path(), work.join("around")).unwrap();
    symlink("../..", work.join("sub/up")).unwrap();
    around
}

/// Fetches what is sent, and makes sure that it fails, says why in a line or two, and has changed nothing.
async fn refused(events: Vec<Event>, about: &str) -> String {
    let around = canary();
    let trees = trees::Script { fetch: events.into(), ..trees::Script::default() };
    let (socket, _) = daemon::start(around.path(), Script { trees, ..Script::default() });
    let work = around.path().join("one/two/work");
    let watched = || {
        let mut all = everything(around.path());
        // Its times change when something is made beside the target and removed again.
        all.get_mut("one/two/work").unwrap().2 = [0; 4];
        all
    };
    let before = watched();
    let directory = format!("dir:{ID}");
    let args = ["--socket", socket.to_str().unwrap(), "fetch", &directory, "-o", "target", "--symlinks"];
    let (code, stdout, stderr) = words(&run(&work, &args).await);
    assert_eq!((code, stdout.as_str()), (1, ""), "{about}: {stderr}");
    assert!(stderr.lines().count() <= 2 && !stderr.contains("panicked"), "{about}: {stderr}");
    assert!(!stderr.chars().any(|c| c.is_control() && c != '\n'), "{about}: {stderr:?}");
    assert_eq!(watched(), before, "{about}");
    stderr
}

/// B33, B36: no name that leads elsewhere, drives a terminal or is too long, whatever it is the name of.
#[tokio::test]
async fn b33_b36_names_that_lead_elsewhere() {
    let long = "x".repeat(256);
    let path = "five/".repeat(1000);
    let names = [
        "",
        ".",
        "..",
        "../x",
        "../../x",
        "a/../../b",
        "/abs",
        "/etc/passwd",
        "a/b",
        "sub/x",
        "a/",
        "./x",
        "C:\\x",
        "..\\x",
        "\\\\host\\share",
        "a\0b",
        "a\nb",
        "a\u{1b}[2Jb",
        "\u{9b}2J",
        "\u{7f}",
        "\r",
        "\t",
        &long,
        &path,
    ];
    for name in names {
        let kinds: [Vec<TreePart>; 4] = [
            vec![file(name, b"pwned")],
            vec![begin(name, Some(5)), bytes(b"pwned"), end(5)],
            vec![enter(name), file("x", b"pwned"), leave()],
            vec![link(name, "x")],
        ];
        refused(honest("target", &kinds[0]), name).await;
        for kind in kinds {
            let about = format!("{name:?} in {kind:?}");
            let inside =
                [vec![file("good", b"1"), enter("sub"), file("x", b"2")], kind.clone(), vec![leave()]];
            for all in [kind, inside.concat()] {
                let stderr = refused(honest("target", &all), &about).await;
                assert!(stderr.contains("nothing was restored"), "{about}: {stderr}");
            }
        }
    }
}

/// B34: no two entries of one name, whichever they are; also when one of them is a link that is left out.
#[tokio::test]
async fn b34_two_of_one_name() {
    let kinds: [&[TreePart]; 5] = [
        &[file("a", b"1")],
        &[begin("a", None), bytes(b"1"), end(1)],
        &[enter("a"), leave()],
        &[link("a", "x")],
        &[link("a", "/etc")],
    ];
    for first in kinds {
        for second in kinds {
            let all = [&[file("x", b"0"), enter("sub")], first, second, &[leave()]].concat();
            let about = format!("{first:?} and {second:?}");
            let stderr = refused(honest("target", &all), &about).await;
            assert!(stderr.contains("two entries are called sub/a"), "{about}: {stderr}");
        }
    }
}

/// B35: nothing is made through a link.
#[tokio::test]
async fn b35_a_file_through_a_link() {
    for target in ["/etc", "..", "../..", "sub/up", "around", "sub", "."] {
        for through in [vec![file("l/x", b"pwned")], vec![enter("l"), file("x", b"pwned"), leave()]] {
            let all = [vec![enter("sub"), leave(), link("l", target)], through].concat();
            refused(honest("target", &all), target).await;
        }
    }
}

/// B36: nested deeper than 64, or with more entries than it says.
#[tokio::test]
async fn b36_too_deep_and_too_many() {
    let deep: Vec<TreePart> = (0..64).map(|_| enter("d")).chain((0..64).map(|_| leave())).collect();
    let stderr = refused(honest("target", &deep), "depth 65").await;
    assert!(stderr.contains("64 deep"), "{stderr}");
    let many: Vec<TreePart> = (0..100).map(|number| file(&number.to_string(), b"")).collect();
    let events = vec![started("target", 0, 99), parts(&many), finished(0)];
    let stderr = refused(events, "more entries").await;
    assert!(stderr.contains("more entries than it says"), "{stderr}");
}

/// Parts that are out of order, and lies about lengths.
#[tokio::test]
async fn parts_that_do_not_belong_there() {
    let finish = || TreePart {
        part: Some(casd_proto::v1::tree_part::Part::Finish(casd_proto::v1::TreeFinish { entries: 1 })),
    };
    let cases: Vec<(&str, Vec<TreePart>)> = vec![
        ("a leave too many", vec![leave()]),
        ("another leave too many", vec![enter("a"), leave(), leave()]),
        ("no leave", vec![enter("a"), file("x", b"")]),
        ("data outside of a file", vec![bytes(b"pwned")]),
        ("zeros outside of a file", vec![zeros(1)]),
        ("data after a whole file", vec![file("a", b"1"), bytes(b"pwned")]),
        ("an end outside of a file", vec![end(0)]),
        ("a file in a file", vec![begin("a", None), file("b", b""), end(0)]),
        ("a start in a file", vec![begin("a", None), begin("b", None), end(0), end(0)]),
        ("a directory in a file", vec![begin("a", None), enter("b"), end(0), leave()]),
        ("a leave in a file", vec![enter("a"), begin("b", None), leave(), end(0)]),
        ("a link in a file", vec![begin("a", None), link("b", "x"), end(0)]),
        ("no end", vec![begin("a", None), bytes(b"1")]),
        ("less than its length", vec![begin("a", Some(2)), bytes(b"1"), end(1)]),
        ("more than its length", vec![begin("a", Some(1)), bytes(b"12"), end(2)]),
        ("more zeros than its length", vec![begin("a", Some(1)), zeros(2), end(2)]),
        ("another length at its end", vec![begin("a", None), bytes(b"1"), end(2)]),
        ("nothing in a part", vec![begin("a", None), bytes(b""), end(0)]),
        ("too much in a part", vec![file("a", &vec![1; (1 << 20) + 1])]),
        ("too much in a piece", vec![begin("a", None), bytes(&vec![1; (1 << 20) + 1]), end((1 << 20) + 1)]),
        ("a link to nothing", vec![link("a", "")]),
        ("a link with a NUL", vec![link("a", "x\0y")]),
        ("a link to too much", vec![link("a", &"x".repeat(4096))]),
        ("a finish", vec![file("a", b""), finish()]),
        ("no part", vec![TreePart { part: None }]),
    ];
    for (about, all) in cases {
        let good = vec![file("good", b"1"), enter("sub"), file("x", b"2"), leave()];
        let stderr = refused(honest("target", &[good, all].concat()), about).await;
        assert!(stderr.contains("nothing was restored"), "{about}: {stderr}");
    }
}

/// B37: counts that are not true; a hole of 1 EiB, which is more than it was to be.
#[tokio::test]
async fn b37_lies_about_what_is_coming() {
    let holes = [begin("a", None), zeros(1 << 60), end(1 << 60)];
    for (about, size, entries, all) in [
        ("more bytes", 3, 1, &[file("a", b"1234")][..]),
        ("fewer bytes", 5, 1, &[file("a", b"1234")]),
        ("fewer entries", 4, 2, &[file("a", b"1234")]),
        ("a hole of 1 EiB", 5, 1, &holes),
        ("holes that overflow", 5, 2, &[begin("a", None), zeros(5), zeros(u64::MAX), end(4)]),
    ] {
        let events = vec![started("target", size, entries), parts(all), finished(size)];
        refused(events, about).await;
    }
    // Said to be as large as it is, it does not fit, and nothing is made.
    let around = canary();
    let trees = trees::Script { fetch: honest("target", &holes).into(), ..trees::Script::default() };
    let (socket, _) = daemon::start(around.path(), Script { trees, ..Script::default() });
    let work = around.path().join("one/two/work");
    let before = everything(around.path());
    let args = ["--socket", socket.to_str().unwrap(), "fetch", &format!("dir:{ID}")];
    let (code, _, stderr) = words(&run(&work, &args).await);
    assert_eq!((code, everything(around.path())), (6, before), "{stderr}");
}
