//! Files that callers pass.

use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

use casd_proto::passing::{GREETING, REFUSED, TAKEN, TOKEN};
use casd_proto::v1::fetch_response::Event;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::UnixStream;

use super::*;

/// The token, or why there is none, with the connection.
type Answer = (UnixStream, Result<[u8; TOKEN], String>);

impl Daemon {
    /// Says a greeting with descriptors.
    async fn pass(&self, greeting: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<Answer> {
        let at = socket_beside(&self.folder.path().join("casd.sock"));
        let mut stream = UnixStream::connect(at).await?;
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() {
                assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
            }
            let said = [IoSlice::new(greeting)];
            sendmsg(&stream, &said, &mut control, SendFlags::NOSIGNAL).map_err(io::Error::from)
        };
        stream.async_io(Interest::WRITABLE, send).await?;
        let answer = match stream.read_u8().await? {
            TAKEN => {
                let mut token = [0; TOKEN];
                stream.read_exact(&mut token).await?;
                Ok(token)
            }
            REFUSED => {
                let mut words = vec![0; usize::from(stream.read_u8().await?)];
                stream.read_exact(&mut words).await?;
                Err(String::from_utf8(words).unwrap())
            }
            other => panic!("an answer that begins with {other}"),
        };
        Ok((stream, answer))
    }

    /// Why a descriptor is not taken.
    async fn refuses(&self, descriptor: impl AsFd) -> String {
        self.pass(&GREETING, &[descriptor.as_fd()]).await.unwrap().1.unwrap_err()
    }

    /// Fetches into what was passed under a token.
    async fn fetch_into(&self, id: &str, token: &[u8]) -> Result<Vec<Event>, Status> {
        let into_file = Bytes::copy_from_slice(token);
        let request = v1::FetchRequest { id: id.to_owned(), into_file, ..Default::default() };
        let messages = all(self.objects().fetch(request).await?.into_inner()).await?;
        Ok(messages.into_iter().filter_map(|message| message.event).collect())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_passed_has_every_byte_and_no_message_has_any() {
    bounded(async {
        let daemon = Daemon::start().await;
        let bytes = sample(9, 3 * CHUNK + 17);
        let added = daemon.add("file", in_chunks(&bytes)).await.unwrap();
        let path = daemon.folder.path().join("out");
        let file = File::create(&path).unwrap();
        let (_stream, token) = daemon.pass(&GREETING, &[file.as_fd()]).await.unwrap();
        let token = token.unwrap();
        let events = daemon.fetch_into(&added.id, &token).await.unwrap();
        assert!(!events.iter().any(|event| matches!(event, Event::Data(_))));
        let Some(Event::Finished(finished)) = events.last() else { panic!("{events:?}") };
        assert_eq!((finished.size, finished.written_bytes), (added.size, added.size));
        assert!(std::fs::read(&path).unwrap() == bytes);
        // Once, and no other.
        assert_eq!(reason(daemon.fetch_into(&added.id, &token).await), "NOT_PASSED");
        assert_eq!(reason(daemon.fetch_into(&added.id, b"short").await), "NOT_PASSED");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_file_to_write_into_is_refused_by_its_name() {
    bounded(async {
        let daemon = Daemon::start().await;
        let path = daemon.folder.path().join("out");
        let file = File::create(&path).unwrap();
        let (_reader, writer) = io::pipe().unwrap();
        assert!(daemon.refuses(&writer).await.contains("pipe"));
        assert!(daemon.refuses(File::open(&path).unwrap()).await.contains("not for writing"));
        assert!(daemon.refuses(File::open(daemon.folder.path()).unwrap()).await.contains("directory"));
        for (greeting, descriptors) in [
            (&GREETING[..], vec![]),
            (&GREETING[..], vec![file.as_fd(), file.as_fd()]),
            (&b"casd-fd0"[..], vec![file.as_fd()]),
        ] {
            let (_, answer) = daemon.pass(greeting, &descriptors).await.unwrap();
            assert!(answer.unwrap_err().contains("one descriptor"));
        }
        // The rest of the greeting, which could bring more, is not waited for.
        let both = [file.as_fd(), file.as_fd()];
        let twice = daemon.pass(&GREETING[..1], &both);
        let (_, answer) = tokio::time::timeout(Duration::from_secs(3), twice).await.unwrap().unwrap();
        assert!(answer.unwrap_err().contains("one descriptor"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_many_files_wait_and_they_go_with_their_connections() {
    bounded(async {
        let daemon = Daemon::start().await;
        let pass = async |name: String| {
            let file = File::create(daemon.folder.path().join(name)).unwrap();
            daemon.pass(&GREETING, &[file.as_fd()]).await
        };
        let mut waiting = Vec::new();
        for number in 0..64 {
            let (stream, answer) = pass(format!("{number}")).await.unwrap();
            assert!(answer.is_ok());
            waiting.push(stream);
        }
        assert!(pass("over".to_owned()).await.is_err(), "the connection is closed");
        waiting.pop();
        while pass("over".to_owned()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}
