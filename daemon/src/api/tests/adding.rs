//! Streams of adds: what becomes an object, and what is refused.

use super::*;
use crate::content::MAX_OBJECT;

fn start() -> Part {
    Part::Start(v1::AddStart::default())
}

fn start_with(options: v1::AddOptions) -> Part {
    Part::Start(v1::AddStart { options: Some(options), ..v1::AddStart::default() })
}

fn data(data: impl Into<Bytes>) -> Part {
    Part::Data(v1::AddData { data: data.into() })
}

fn finish(length: u64) -> Part {
    Part::Finish(v1::AddFinish { length })
}

fn parity(text: &str) -> Part {
    start_with(v1::AddOptions { parity: Some(text.to_owned()), ..v1::AddOptions::default() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_stream_becomes_nothing() {
    bounded(async {
        let daemon = Daemon::start().await;
        let bytes = sample(1, 3 * CHUNK);
        let mut cut = vec![start()];
        cut.extend(in_chunks(&bytes).into_iter().map(data));
        assert_eq!(reason(daemon.send(cut).await), "NO_FINISH");
        assert_eq!(reason(daemon.send(vec![]).await), "NO_FINISH");
        assert_eq!(daemon.list("").await.unwrap(), []);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_out_of_order_or_out_of_range_is_refused_for_its_reason() {
    let named = |name: &str| Part::Start(v1::AddStart { name: name.to_owned(), ..v1::AddStart::default() });
    let long = |length| Part::Start(v1::AddStart { length: Some(length), ..v1::AddStart::default() });
    let expects = |id: String| Part::Start(v1::AddStart { expected_id: Some(id), ..v1::AddStart::default() });
    let publish = v1::AddOptions { publish: true, ..v1::AddOptions::default() };
    bounded(async {
        let daemon = Daemon::start().await;
        for (expected, messages) in [
            ("INVALID_STREAM", vec![data("a")]),
            ("INVALID_STREAM", vec![finish(0)]),
            ("INVALID_STREAM", vec![start(), start()]),
            ("INVALID_STREAM", vec![start(), data(""), finish(0)]),
            ("INVALID_STREAM", vec![start(), data(vec![1; CHUNK + 1]), finish(CHUNK as u64 + 1)]),
            ("LENGTH_MISMATCH", vec![start(), data("abc"), finish(4)]),
            ("LENGTH_MISMATCH", vec![long(2), data("abc"), finish(3)]),
            ("TOO_LARGE", vec![long(MAX_OBJECT + 1)]),
            ("ID_MISMATCH", vec![expects(id_of(b"abd")), data("abc"), finish(3)]),
            ("INVALID_ID", vec![expects("ABC".to_owned())]),
            ("INVALID_NAME", vec![named("../etc/passwd")]),
            ("INVALID_NAME", vec![named(&"x".repeat(256))]),
            ("INVALID_PARITY", vec![parity("16")]),
            ("INVALID_PARITY", vec![parity("129+1")]),
            ("INVALID_PARITY", vec![parity("16+65")]),
            ("INVALID_PARITY", vec![parity("")]),
            ("NOT_ANNOUNCING", vec![start_with(publish.clone())]),
        ] {
            let result = daemon.send(messages.clone()).await;
            assert_eq!(reason(result), expected, "{messages:.200?}");
        }
        assert_eq!(daemon.list("").await.unwrap(), []);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_over_the_limit_is_refused_before_it_is_read() {
    bounded(async {
        let daemon = Daemon::start().await;
        // This client has no limit of its own.
        let mut objects = ObjectsClient::new(daemon.channel.clone());
        let messages = [start(), data(vec![0; 3 << 20])].map(|part| v1::AddRequest { part: Some(part) });
        let status = objects.add(stream::iter(messages)).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::OutOfRange, "{status}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn options_decide_how_an_object_is_kept() {
    bounded(async {
        let daemon = Daemon::start().await;
        let options = v1::AddOptions {
            parity: Some("2+1".to_owned()),
            private: Some(true),
            pin: Some(false),
            ..v1::AddOptions::default()
        };
        let bytes = sample(2, 3 * CHUNK + 5);
        let mut messages = vec![start_with(options)];
        messages.extend(in_chunks(&bytes).into_iter().map(data));
        messages.push(finish(bytes.len() as u64));
        let added = daemon.send(messages).await.unwrap();
        let stat = daemon.objects().stat(v1::StatRequest { object: added.id.clone() }).await;
        let stat = stat.unwrap().into_inner();
        assert_eq!((stat.parity.as_str(), stat.parity_chunks, stat.local_parity_chunks), ("2+1", 2, 2));
        assert_eq!((stat.private, stat.pinned, stat.pinned_by_caller), (true, false, false));
        let lines =
            all(daemon.objects().chunks(v1::ChunksRequest { object: added.id }).await.unwrap().into_inner());
        let lines: Vec<_> = lines.await.unwrap().into_iter().flat_map(|page| page.chunks).collect();
        let places: Vec<_> = lines.iter().map(|line| (line.parity, line.index, line.local)).collect();
        let expected = [(false, 0), (false, 1), (false, 2), (false, 3), (true, 0), (true, 1)];
        assert_eq!(places, expected.map(|(parity, index)| (parity, index, true)));
    })
    .await;
}

fn batch(objects: impl IntoIterator<Item = Bytes>) -> v1::AddManyRequest {
    let small = |data| v1::SmallObject { name: String::new(), data };
    v1::AddManyRequest { options: None, objects: objects.into_iter().map(small).collect() }
}

async fn add_many(
    daemon: &Daemon,
    batches: Vec<v1::AddManyRequest>,
) -> Result<Vec<v1::AddManyResponse>, Status> {
    all(daemon.objects().add_many(stream::iter(batches)).await?.into_inner()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_objects_are_answered_in_order() {
    bounded(async {
        let daemon = Daemon::start().await;
        let object = |seed: u64| sample(seed, 1 + seed as usize % 700);
        let batches: Vec<_> = (0..9).map(|at| batch((at * 300..at * 300 + 300).map(object))).collect();
        let answers = add_many(&daemon, batches).await.unwrap();
        assert_eq!(answers.len(), 9);
        let added: Vec<_> = answers.into_iter().flat_map(|answer| answer.objects).collect();
        assert_eq!(added.len(), 2700);
        for (seed, added) in (0..).zip(&added) {
            assert_eq!((&added.id, added.created), (&id_of(&object(seed)), true));
        }
        assert_eq!(daemon.list("").await.unwrap().len(), 2700);
        // What is known is not new; a batch of exactly a MiB fits, and the empty object is none to store.
        let again = batch([object(7), sample(1, CHUNK - object(7).len()), Bytes::new()]);
        let answers = add_many(&daemon, vec![again]).await.unwrap();
        let created: Vec<_> = answers[0].objects.iter().map(|object| object.created).collect();
        assert_eq!(created, [false, true, false]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_batch_ends_the_stream_and_what_was_answered_stays() {
    bounded(async {
        let daemon = Daemon::start().await;
        let late = v1::AddManyRequest { options: Some(v1::AddOptions::default()), ..batch([]) };
        let slash = v1::SmallObject { name: "a/b".to_owned(), data: Bytes::from_static(b"x") };
        for (expected, bad) in [
            ("INVALID_STREAM", late),
            ("INVALID_STREAM", batch((0..1025).map(|_| Bytes::new()))),
            ("INVALID_STREAM", batch([sample(1, CHUNK), sample(2, 1)])),
            ("INVALID_NAME", v1::AddManyRequest { options: None, objects: vec![slash] }),
        ] {
            let batches = vec![batch([sample(1, 9)]), bad];
            let mut answers = daemon.objects().add_many(stream::iter(batches)).await.unwrap().into_inner();
            assert_eq!(answers.message().await.unwrap().unwrap().objects[0].id, id_of(&sample(1, 9)));
            assert_eq!(reason(answers.message().await), expected);
        }
        assert_eq!(daemon.list("").await.unwrap().len(), 1);
    })
    .await;
}
