//! Objects of the store: read, listed, described, kept and removed.

use super::*;
use v1::fetch_response::Event;

/// Two chunks and a bit, the second of zeros.
fn with_hole() -> Bytes {
    let mut bytes = sample(1, CHUNK).to_vec();
    bytes.resize(2 * CHUNK, 0);
    bytes.extend_from_slice(&sample(2, 1000));
    bytes.into()
}

fn object(text: &str) -> String {
    text.to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_comes_back_until_it_is_removed() {
    bounded(async {
        let daemon = Daemon::start().await;
        let bytes = with_hole();
        let added = daemon.add("hole.bin", in_chunks(&bytes)).await.unwrap();
        assert_eq!((added.id.clone(), added.size, added.created), (id_of(&bytes), bytes.len() as u64, true));
        assert!(!daemon.add("hole.bin", in_chunks(&bytes)).await.unwrap().created);

        let length = bytes.len() as u64;
        assert_eq!(daemon.cat("hole.bin", 0, None).await.unwrap(), bytes);
        assert_eq!(daemon.cat(&added.id, 5, Some(CHUNK as u64)).await.unwrap(), bytes[5..CHUNK + 5]);
        assert_eq!(daemon.cat(&added.id[..8], length, None).await.unwrap(), b"");
        assert_eq!(reason(daemon.cat(&added.id, length + 1, None).await), "OUT_OF_RANGE");
        assert_eq!(daemon.cat(&id_of(b""), 0, None).await.unwrap(), b"");
        assert_eq!(reason(daemon.cat(&id_of(b""), 1, None).await), "OUT_OF_RANGE");

        let listed = daemon.list("").await.unwrap();
        assert!(listed[0].used.is_some(), "it has been read");
        let expected = v1::ListedObject {
            id: added.id.clone(),
            name: "hole.bin".to_owned(),
            size: length,
            pinned: true,
            complete: true,
            kind: v1::ObjectKind::File.into(),
            used: listed[0].used,
            published: false,
        };
        assert_eq!(listed, std::slice::from_ref(&expected));
        assert_eq!(daemon.list("hole.bin").await.unwrap(), [expected]);

        let mut objects = daemon.objects();
        let stat = objects.stat(v1::StatRequest { object: object("hole.bin") }).await.unwrap().into_inner();
        assert_eq!((stat.chunks, stat.local_chunks, stat.parity.as_str()), (3, 3, "none"));
        assert_eq!((stat.kind(), stat.pinned_by_caller), (v1::ObjectKind::File, true));

        let removed =
            objects.remove(v1::RemoveRequest { object: added.id.clone(), force: false }).await.unwrap();
        let removed = removed.into_inner();
        assert!(removed.removed && removed.freed_bytes > CHUNK as u64, "{removed:?}");
        assert_eq!(daemon.list("").await.unwrap(), []);
        // It may be elsewhere, and nobody is there to be asked.
        assert_eq!(reason(daemon.cat(&added.id, 0, None).await), "NO_PEERS");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_of_what_is_here_gives_every_byte_once() {
    bounded(async {
        let daemon = Daemon::start().await;
        let bytes = with_hole();
        let added = daemon.add("hole.bin", in_chunks(&bytes)).await.unwrap();
        for accept_zeros in [false, true] {
            let request = v1::FetchRequest { id: added.id.clone(), accept_zeros, ..Default::default() };
            let messages = all(daemon.objects().fetch(request).await.unwrap().into_inner()).await.unwrap();
            let events: Vec<_> = messages.into_iter().filter_map(|message| message.event).collect();
            let Some(Event::Started(started)) = events.first() else { panic!("{events:?}") };
            assert_eq!(
                (&started.id, started.size, started.name.as_str()),
                (&added.id, added.size, "hole.bin")
            );
            let Some(Event::Finished(finished)) = events.last() else { panic!("{events:?}") };
            assert_eq!((finished.size, finished.local_bytes), (added.size, added.size));
            let (mut got, mut zeros) = (vec![1; bytes.len()], 0);
            for event in &events {
                if let Event::Data(part) = event {
                    let (at, hole) = (part.offset as usize, vec![0; part.zeros as usize]);
                    zeros += part.zeros;
                    got[at..at + hole.len()].copy_from_slice(&hole);
                    got[at..at + part.data.len()].copy_from_slice(&part.data);
                }
            }
            assert_eq!(got, bytes);
            assert_eq!(zeros, if accept_zeros { CHUNK as u64 } else { 0 });
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_named_wrongly_is_refused_for_its_reason() {
    bounded(async {
        let daemon = Daemon::start().await;
        for seed in [1, 2] {
            daemon.add("twin", vec![sample(seed, 10)]).await.unwrap();
        }
        let mut objects = daemon.objects();
        assert_eq!(reason(daemon.list("twin").await), "AMBIGUOUS");
        assert_eq!(reason(daemon.list("nobody").await), "NOT_FOUND");
        assert_eq!(reason(daemon.cat(&id_of(b"x"), 0, None).await), "NO_PEERS");
        assert_eq!(reason(daemon.cat(&id_of(b"x")[..63], 0, None).await), "NOT_FOUND");
        assert_eq!(reason(objects.stat(v1::StatRequest { object: object("twin") }).await), "AMBIGUOUS");
        assert_eq!(reason(objects.stat(v1::StatRequest { object: object("") }).await), "NOT_FOUND");
        assert_eq!(reason(objects.chunks(v1::ChunksRequest { object: object("x") }).await), "NOT_FOUND");
        assert_eq!(
            reason(objects.remove(v1::RemoveRequest { object: object("x"), force: false }).await),
            "NOT_FOUND"
        );
        assert_eq!(reason(objects.link(v1::LinkRequest { object: object("x") }).await), "NOT_FOUND");
        let publish = |id: String| v1::PublishRequest { id, name: String::new(), withdraw: false };
        assert_eq!(reason(objects.publish(publish(object("twin"))).await), "AMBIGUOUS");
        assert_eq!(reason(objects.publish(publish(id_of(b"x"))).await), "NOT_FOUND");
        // It announces nothing.
        assert_eq!(reason(objects.publish(publish(id_of(&sample(1, 10)))).await), "NOT_ANNOUNCING");
        assert_eq!(reason(objects.stat(v1::StatRequest { object: id_of(b"x") }).await), "NO_PEERS");
        let search = |text: &str, peer: &str| {
            let (text, peer) = (text.to_owned(), peer.to_owned());
            let request = v1::SearchRequest { text, peer, ..Default::default() };
            let mut network = daemon.network();
            async move { network.search(request).await }
        };
        assert_eq!(reason(search(&"x".repeat(129), "").await), "INVALID_NAME");
        assert_eq!(reason(search("", "nobody").await), "INVALID_ADDRESS");
        let nobody = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
        assert_eq!(reason(search("", nobody).await), "UNREACHABLE");
        let found = all(search("WIN", "").await.unwrap().into_inner()).await.unwrap();
        assert_eq!(found.iter().map(|page| page.objects.len()).sum::<usize>(), 2);

        let wanted = v1::FetchRequest { id: id_of(b"x"), ..Default::default() };
        let with_peers = |peers| v1::FetchRequest { peers, ..wanted.clone() };
        let peer = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN@127.0.0.1:1";
        for (expected, request) in [
            ("NO_PEERS", wanted.clone()),
            ("INVALID_ID", v1::FetchRequest { id: object("twin"), ..Default::default() }),
            ("INVALID_ADDRESS", with_peers(vec![object("127.0.0.1:9000")])),
            ("INVALID_ADDRESS", with_peers(vec![peer.to_owned(); 65])),
            ("NOT_BUILT", v1::FetchRequest { to_store_only: true, ..wanted.clone() }),
        ] {
            assert_eq!(reason(objects.fetch(request).await), expected);
        }
        // Nobody else is there: it is told at once what became of the one that is named.
        let fetch = objects.fetch(with_peers(vec![peer.to_owned()])).await.unwrap().into_inner();
        let failure = Failure::from(&all(fetch).await.unwrap_err());
        assert_eq!((failure.reason.as_str(), failure.retryable), ("NO_PROVIDERS", true));
        assert!(failure.message.contains("127.0.0.1:1 did not answer in time"), "{}", failure.message);
        assert!(failure.hint.contains("casctl status"), "{}", failure.hint);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pins_are_the_callers_and_collection_takes_the_rest() {
    bounded(async {
        let daemon = Daemon::start().await;
        daemon.add("kept", vec![sample(1, 10)]).await.unwrap();
        let mut objects = daemon.objects();
        let pin = || v1::PinRequest { object: object("kept") };
        let unpin = || v1::UnpinRequest { object: object("kept") };
        assert!(!objects.pin(pin()).await.unwrap().into_inner().changed);
        assert!(objects.unpin(unpin()).await.unwrap().into_inner().changed);
        assert!(!objects.unpin(unpin()).await.unwrap().into_inner().changed);
        assert!(objects.pin(pin()).await.unwrap().into_inner().changed);
        // Everything is younger than an hour.
        let collected = objects.collect(v1::CollectRequest { dry_run: false }).await.unwrap().into_inner();
        assert_eq!(collected.objects, 0);
        let link = objects.link(v1::LinkRequest { object: object("kept") }).await.unwrap().into_inner();
        assert!(link.link.starts_with(&format!("casd:{},name=kept,peer=", id_of(&sample(1, 10)))));
        assert!(!link.unreached, "it knows nobody who could not reach it");
    })
    .await;
}
