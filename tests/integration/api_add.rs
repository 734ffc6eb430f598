//! The Add stream as a careless or hostile program sends it: what is not finished becomes nothing, and what a
//! vanished caller held comes back.

use std::time::Duration;

use casd_proto::v1::add_request::Part;
use casd_proto::v1::{AddData, AddFinish, AddOptions, AddRequest, AddStart, AddedObject};
use casd_proto::{Failure, client};
use casd_tests::corpus;
use casd_tests::wait::LONG;
use casd_tests::{Daemon, Home};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

fn start(start: AddStart) -> AddRequest {
    AddRequest { part: Some(Part::Start(start)) }
}

fn named(name: &str) -> AddStart {
    AddStart { name: name.to_owned(), ..AddStart::default() }
}

fn data(bytes: Vec<u8>) -> AddRequest {
    AddRequest { part: Some(Part::Data(AddData { data: bytes.into() })) }
}

fn finish(length: u64) -> AddRequest {
    AddRequest { part: Some(Part::Finish(AddFinish { length })) }
}

/// Sends these messages and gives the answer.
async fn add(daemon: &Daemon, messages: Vec<AddRequest>) -> Result<AddedObject, Status> {
    let channel = client::connect(daemon.ctl().socket()).await.unwrap();
    let mut objects = client::objects(channel);
    let answer = objects.add(tokio_stream::iter(messages));
    let answer = tokio::time::timeout(LONG, answer).await.expect("an answer")?;
    Ok(answer.into_inner().object.expect("an answer has its object"))
}

#[tokio::test]
async fn whatever_is_no_whole_stream_is_refused_and_stores_nothing() {
    let home = Home::new();
    let daemon = home.start();
    let mib = 1 << 20;
    let none = "0".repeat(64);
    let expecting = AddStart { expected_id: Some(none), ..named("x") };
    let long = AddStart { length: Some(5), ..named("x") };
    let parity = |parity: &str| AddStart {
        options: Some(AddOptions { parity: Some(parity.to_owned()), ..AddOptions::default() }),
        ..named("x")
    };
    let cases = [
        ("a cut stream", vec![start(named("x")), data(vec![1; mib]), data(vec![2; mib])], "NO_FINISH"),
        ("only a start", vec![start(named("x"))], "NO_FINISH"),
        ("nothing", vec![], "NO_FINISH"),
        ("no start", vec![data(vec![1]), finish(1)], "INVALID_STREAM"),
        ("two starts", vec![start(named("x")), start(named("x")), finish(0)], "INVALID_STREAM"),
        ("an empty message", vec![start(named("x")), AddRequest { part: None }, finish(0)], "INVALID_STREAM"),
        ("too much at once", vec![start(named("x")), data(vec![1; mib + 1]), finish(1)], "INVALID_STREAM"),
        ("more after the end", vec![start(named("x")), finish(0), data(vec![1])], "INVALID_STREAM"),
        ("another length", vec![start(named("x")), data(vec![1; 7]), finish(8)], "LENGTH_MISMATCH"),
        ("less than announced", vec![start(long.clone()), data(vec![1; 4]), finish(4)], "LENGTH_MISMATCH"),
        ("more than announced", vec![start(long), data(vec![1; 6]), finish(6)], "LENGTH_MISMATCH"),
        ("another id", vec![start(expecting), data(vec![1]), finish(1)], "ID_MISMATCH"),
        ("a path for a name", vec![start(named("../x")), data(vec![1]), finish(1)], "INVALID_NAME"),
        ("a long name", vec![start(named(&"n".repeat(256))), data(vec![1]), finish(1)], "INVALID_NAME"),
        ("bad parity", vec![start(parity("0+1")), data(vec![1]), finish(1)], "INVALID_PARITY"),
        (
            "over 4 TiB",
            vec![start(AddStart { length: Some((4 << 40) + 1), ..named("x") }), finish(0)],
            "TOO_LARGE",
        ),
    ];
    for (what, messages, reason) in cases {
        let status = add(&daemon, messages).await.expect_err(what);
        let failure = Failure::from(&status);
        assert_eq!(failure.reason, reason, "{what}: {status}");
        assert!(!failure.message.is_empty(), "{what}");
    }
    // Over the limit of a message altogether, from a client that has no limit of its own.
    let channel = client::connect(daemon.ctl().socket()).await.unwrap();
    let mut careless = casd_proto::v1::objects_client::ObjectsClient::new(channel);
    let messages = vec![start(named("x")), data(vec![0; 5 << 20])];
    let huge =
        tokio::time::timeout(LONG, careless.add(tokio_stream::iter(messages))).await.expect("an answer");
    let huge = huge.expect_err("it is too long");
    assert!([Code::OutOfRange, Code::ResourceExhausted].contains(&huge.code()), "{huge}");
    assert!(daemon.ctl().json(&["ls"]).is_empty());

    // The daemon is none the worse for it.
    let added = add(&daemon, vec![start(named("x")), data(vec![7; 10]), finish(10)]).await.unwrap();
    assert_eq!((added.id, added.size, added.created), (corpus::id(&[7; 10]), 10, true));
}

#[tokio::test]
async fn what_a_vanished_caller_reserved_comes_back() {
    let home = Home::with(|settings| settings.text("store.quota", "24MiB").text("store.parity", "none"));
    let daemon = home.start();
    let length = 12 << 20;
    // Announces 12 MiB, sends 3 and is gone.
    let reserving = AddStart { length: Some(length), ..named("gone") };
    let channel = client::connect(daemon.ctl().socket()).await.unwrap();
    let (send, messages) = tokio::sync::mpsc::channel(1);
    let mut objects = client::objects(channel);
    let mut call = Box::pin(objects.add(ReceiverStream::new(messages)));
    let speak = async {
        send.send(start(reserving)).await.unwrap();
        for seed in 0..3 {
            send.send(data(corpus::bytes(seed, 1 << 20))).await.unwrap();
        }
        // Taken from this side is not arrived on that one: wait until it is stored.
        while corpus::disk_usage(&home.state()).unwrap() < 2 << 20 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        answer = &mut call => panic!("answered too early: {answer:?}"),
        () = speak => {}
    }
    // What is announced and not yet there counts: one more of that size does not fit beside it (2 x 12 and headers).
    let whole = |seed: u64| {
        let mut messages = vec![start(AddStart { length: Some(length), ..named("whole") })];
        messages.extend((0..12).map(|part| data(corpus::bytes(1000 * seed + part, 1 << 20))));
        messages.push(finish(length));
        messages
    };
    let early = add(&daemon, whole(1)).await.expect_err("the room is promised to another");
    assert_eq!(Failure::from(&early).reason, "QUOTA", "{early}");
    drop(call);
    drop(objects);
    // What was stored still counts (3 + 12 < 24).
    let begun = std::time::Instant::now();
    loop {
        match add(&daemon, whole(1)).await {
            Ok(added) => break assert!(added.created),
            Err(status) => assert_eq!(Failure::from(&status).reason, "QUOTA", "{status}"),
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "the reservation comes back within 5 s");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(daemon.ctl().json(&["ls"]).len(), 1);
    let full = add(&daemon, whole(2)).await.expect_err("12 + 12 + 3 MiB are over the quota");
    assert_eq!(
        (full.code(), Failure::from(&full).reason.as_str()),
        (Code::ResourceExhausted, "QUOTA"),
        "{full}"
    );
}
