//! Files that callers pass to the daemon to be written into.

use std::fs::{File, Permissions};
use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use casd_proto::passing::{GREETING, REFUSED, TAKEN, TOKEN, socket_beside};
use casd_proto::v1::fetch_response::Event;
use casd_proto::v1::{FetchFinished, FetchRequest};
use casd_proto::{Bytes, Failure, client};
use casd_tests::corpus::{self, MIB};
use casd_tests::disk::Mounted;
use casd_tests::wait::{self, LONG};
use casd_tests::{Daemon, Home, Node, nodes, skip};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::thread::{Uid, set_thread_res_uid};

/// A user that is not root, by id.
const OTHER: u32 = 65_534;

/// A file that waits, and its token; or why it is not taken.
fn pass(daemon: &Daemon, file: impl AsFd) -> Result<(UnixStream, [u8; TOKEN]), String> {
    let mut stream = UnixStream::connect(socket_beside(daemon.ctl().socket())).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let descriptors = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    sendmsg(&stream, &[IoSlice::new(&GREETING)], &mut control, SendFlags::empty()).unwrap();
    let mut first = [0];
    stream.read_exact(&mut first).unwrap();
    if first == [TAKEN] {
        let mut token = [0; TOKEN];
        stream.read_exact(&mut token).unwrap();
        return Ok((stream, token));
    }
    assert_eq!(first, [REFUSED]);
    let mut words = Vec::new();
    stream.read_to_end(&mut words).unwrap();
    assert_eq!(words.len(), 1 + usize::from(words[0]));
    Err(String::from_utf8(words.split_off(1)).unwrap())
}

/// Fetches into what was passed. On this thread alone, and so as whoever it is.
fn fetch_into(socket: &Path, id: &str, token: &[u8]) -> Result<FetchFinished, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let work = async {
        let channel = client::connect(socket).await.unwrap();
        let into_file = Bytes::copy_from_slice(token);
        let request = FetchRequest { id: id.to_owned(), into_file, ..FetchRequest::default() };
        let mut events = client::objects(channel).fetch(request).await?.into_inner();
        loop {
            match events.message().await?.and_then(|message| message.event) {
                Some(Event::Finished(finished)) => return Ok::<_, tonic::Status>(finished),
                Some(Event::Data(_)) => panic!("bytes were sent that were to be written"),
                Some(_) => {}
                None => panic!("it ended early"),
            }
        }
    };
    let ended = runtime.block_on(async { tokio::time::timeout(LONG, work).await.expect("it ends") });
    ended.map_err(|status| Failure::from(&status))
}

/// Whether the daemon has a file open whose path has this in it.
fn has_open(daemon: &Daemon, part: &str) -> bool {
    let open = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().flatten();
    let names = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    names.into_iter().any(|path| path.to_string_lossy().contains(part))
}

#[test]
fn what_casctl_passes_the_daemon_writes_and_without_the_socket_casctl_does() {
    let nodes = nodes::network(2, |number, settings| match number {
        0 => settings.text("transfer.upload", "16MiB").text("store.parity", "none"),
        _ => settings,
    });
    let [giver, taker] = <[Node; 2]>::try_from(nodes).unwrap();
    let file = giver.home.path("file");
    let id = corpus::file(&file, 71, 24 * MIB + 5);
    giver.ctl().add(&file);
    let at = giver.daemon.chunk_address();
    let out = taker.home.path("out");
    let run = taker.ctl().run(&["--json", "fetch", &id, "--peer", &at, "-o"]).arg(&out);
    let fetch = run.within(2 * LONG).start();
    wait::until("the daemon to have the file", LONG, || has_open(&taker.daemon, "/.out.casd-").then_some(()));
    let result = fetch.done().ok().json().pop().unwrap();
    assert_eq!(result["size"], 24 * MIB + 5);
    assert_eq!(corpus::id_of_file(&out), id);
    let path = out.display().to_string();
    wait::until("the daemon to close it", LONG, || (!has_open(&taker.daemon, &path)).then_some(()));

    // Once more, from the store, with nowhere to pass it.
    std::fs::remove_file(socket_beside(taker.ctl().socket())).unwrap();
    let second = taker.home.path("second");
    taker.ctl().run(&["fetch", &id, "-o"]).arg(&second).done().ok();
    assert_eq!(corpus::id_of_file(&second), id);
    // And to standard output, into which the daemon never writes.
    assert!(corpus::id(&taker.ctl().run(&["fetch", &id, "-o", "-"]).done().ok().stdout) == id);
}

#[test]
fn only_an_empty_file_that_is_open_for_writing_is_written_into() {
    let home = Home::new();
    let daemon = home.start();
    let id = daemon.ctl().add_bytes(b"something");
    let path = home.path("target");
    let file = File::create(&path).unwrap();
    let (_reader, writer) = std::io::pipe().unwrap();
    for (refused, word) in [
        (pass(&daemon, File::open(&path).unwrap()), "not for writing"),
        (pass(&daemon, File::open(home.path("")).unwrap()), "directory"),
        (pass(&daemon, writer), "pipe"),
        (pass(&daemon, File::options().append(true).open(&path).unwrap()), "appending"),
        (pass(&daemon, File::options().read(true).write(true).open(&path).unwrap()), "reading as well"),
        (pass(&daemon, File::options().write(true).open(home.config()).unwrap()), "not empty"),
    ] {
        let why = refused.unwrap_err();
        assert!(why.contains(word), "{word}: {why}");
    }
    let (_waiting, token) = pass(&daemon, &file).unwrap();
    let finished = fetch_into(daemon.ctl().socket(), &id, &token).unwrap();
    assert_eq!((finished.size, finished.written_bytes), (9, 9));
    assert_eq!(std::fs::read(&path).unwrap(), b"something");
    assert_eq!(fetch_into(daemon.ctl().socket(), &id, &token).unwrap_err().reason, "NOT_PASSED");
    let files = socket_beside(daemon.ctl().socket());
    assert!(files.exists());
    assert_eq!(daemon.stop(LONG).code(), Some(0));
    assert!(!files.exists());
}

#[test]
fn what_one_user_passed_no_other_has_written_into() {
    if !rustix::process::geteuid().is_root() {
        return skip("only root can be two users");
    }
    let home = Home::new();
    let daemon = home.start();
    let (api, files) = (daemon.ctl().socket().to_owned(), socket_beside(daemon.ctl().socket()));
    // By default it is as closed as the other.
    for socket in [&api, &files] {
        assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(socket, Permissions::from_mode(0o666)).unwrap();
    }
    std::fs::set_permissions(home.path(""), Permissions::from_mode(0o711)).unwrap();
    let id = daemon.ctl().add_bytes(b"something");
    let path = home.path("target");
    let (_waiting, token) = pass(&daemon, File::create(&path).unwrap()).unwrap();
    let theirs = File::create(home.path("theirs")).unwrap();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let other = Uid::from_raw(OTHER);
            set_thread_res_uid(other, other, other).unwrap();
            assert_eq!(fetch_into(&api, &id, &token).unwrap_err().reason, "NOT_PASSED");
            // A daemon of root would write past their quota.
            assert!(pass(&daemon, &theirs).unwrap_err().contains("root"));
        });
        other.join().unwrap();
    });
    assert_eq!(fetch_into(&api, &id, &token).unwrap().written_bytes, 9);
    assert_eq!(std::fs::read(&path).unwrap(), b"something");
}

#[test]
fn that_there_is_no_space_for_the_callers_file_is_said_so() {
    let home = Home::new();
    let Some(small) = Mounted::tmpfs(&home.path("small"), 2) else {
        return skip("only root can mount a file system");
    };
    let daemon = home.start();
    let file = home.path("file");
    let id = corpus::file(&file, 72, 5 * MIB);
    daemon.ctl().add(&file);
    let done = daemon.ctl().run(&["fetch", &id, "-o"]).arg(small.folder().join("out")).done();
    done.refused(&[6], "where the caller's file is");
    assert_eq!(small.folder().read_dir().unwrap().count(), 0, "nothing half is left");
    // The store has taken no harm.
    assert_eq!(corpus::id(&daemon.ctl().cat(&id)), id);
}
