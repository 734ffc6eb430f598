//! What objects are called: said here, kept there, read and proved elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Node, QUIC, TCP, key, network, options, until, within};
use crate::content::{Description, ObjectId, SignedDescription};
use crate::dht::Options;
use crate::dht::batch::{Answer, Draft, Taken};
use crate::dht::command::{self, Command};
use crate::peer::{Announce, Catalogue, Key, Keypair, Kind, PeerId, network_id};
use crate::support::unix_now;

fn said(object: Key, name: &str) -> Description {
    let (object, name) = (ObjectId::from_bytes(object), name.to_owned());
    Description { object, is_directory: false, length: 5 << 20, parity: Some((16, 4)), name, time: 0 }
}

/// Publishes an object and announces it.
async fn publish(node: &Node, object: Key, name: &str) {
    assert_eq!(node.dht.publish(vec![said(object, name)], true), 0);
    let placed = within("it is placed", node.dht.place(object)).await;
    assert!(placed.keys == 1 && placed.receivers > 0, "{placed:?}");
}

/// Names by publisher, as others tell this node.
async fn told(node: &Node, object: Key) -> BTreeMap<PeerId, String> {
    let told = within("it is told", node.dht.about(object)).await;
    told.into_iter().map(|told| (told.said.publisher(), told.said.description().name.clone())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_told_side_by_side_and_taken_back() {
    let nodes = network(QUIC, 5).await;
    let (one, two, seeker) = (&nodes[1], &nodes[2], &nodes[4]);
    let (first, second) = (one.dht.0.local, two.dht.0.local);
    publish(one, key(1), "one's name").await;
    let about = within("it is told", seeker.dht.about(key(1))).await;
    assert_eq!(about.len(), 1);
    let description = about[0].said.description();
    assert_eq!(Description { time: 0, ..description.clone() }, said(key(1), "one's name"));
    assert!(about[0].told_by >= 2, "the publisher and those that keep it: {}", about[0].told_by);

    publish(two, key(1), "two's name").await;
    let both = [(first, "one's name".to_owned()), (second, "two's name".to_owned())];
    assert_eq!(told(seeker, key(1)).await, both.clone().into());

    // Announced without a word, it has no name.
    within("it is placed", one.dht.place(key(2))).await;
    assert!(told(seeker, key(2)).await.is_empty());
    // Another name, then none, then no object.
    assert_eq!(one.dht.publish(vec![said(key(1), "another")], true), 0);
    until("it is called otherwise", || async {
        told(seeker, key(1)).await.get(&first).is_some_and(|name| name == "another")
    })
    .await;
    one.dht.withdraw(&[key(1)]);
    until("it is taken back", || async { told(seeker, key(1)).await == BTreeMap::from([both[1].clone()]) })
        .await;
    assert_eq!(seeker.find(key(1)).await.len(), 2, "both still hold it");
    two.dht.release(&[key(1)]);
    until("it goes with its object", || async { told(seeker, key(1)).await.is_empty() }).await;
    until("nobody keeps any of it", || async { nodes.iter().all(|node| node.dht.0.described.len() == 0) })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_announced_already_gets_its_name_at_once() {
    let nodes = network(TCP, 3).await;
    within("it is placed", nodes[0].dht.place(key(1))).await;
    assert!(told(&nodes[2], key(1)).await.is_empty());
    assert_eq!(nodes[0].dht.publish(vec![said(key(1), "late")], true), 0);
    until("it has a name", || async { told(&nodes[2], key(1)).await.len() == 1 }).await;
    // What is not held is not told of, whatever was said.
    assert_eq!(nodes[0].dht.publish(vec![said(key(2), "not held")], true), 0);
    assert!(told(&nodes[2], key(2)).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_names_go_in_several_messages_and_are_listed_page_by_page() {
    let nodes = network(TCP, 3).await;
    let keys: Vec<Key> = (0..400).map(key).collect();
    let all = keys.iter().enumerate().map(|(at, key)| said(*key, &format!("Object {at}"))).collect();
    assert_eq!(nodes[0].dht.publish(all, true), 0);
    assert_eq!(nodes[0].dht.hold(&keys, Kind::Object), 0);
    until("all are kept by both others", || async {
        nodes[1..].iter().all(|node| node.dht.0.described.len() == 400)
    })
    .await;
    // What is kept here of others.
    let (mut kept, mut after) = (0, None);
    loop {
        let page = nodes[1].dht.kept("", after);
        kept += page.said.len();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(kept, 400);
    assert_eq!(nodes[1].dht.kept("object 399", None).said.len(), 1);
    // What a peer publishes.
    let publisher = nodes[0].dht.0.local;
    let ask = async |text: &str, after| {
        let page = nodes[2].dht.published_by(publisher, text.to_owned(), after);
        within("it is listed", page).await.unwrap()
    };
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = ask("", after).await;
        assert!(page.said.len() <= 64);
        listed.extend(page.said.iter().map(|said| *said.description().object.as_bytes()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let mut keys = keys;
    keys.sort_unstable();
    assert_eq!(listed, keys);
    assert_eq!(ask("OBJECT 7", None).await.said.len(), 11, "7, and 70 to 79");
    let gone = nodes[2].dht.published_by(PeerId::random(), String::new(), None);
    assert!(within("who cannot be asked tells nothing", gone).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_again_knows_what_others_said() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Some(folder.path().join("cache/keys"));
    let publisher = Node::server(TCP, &[]).await;
    let (keypair, with) = (Keypair::generate_ed25519(), Options { journal, ..options(TCP, &[&publisher]) });
    let keeper = Node::of(with.clone(), keypair.clone()).await;
    publisher.knows(1).await;
    publish(&publisher, key(1), "a name").await;
    assert_eq!(keeper.dht.0.described.len(), 1);
    keeper.stop().await;
    publisher.stop().await;
    let keeper = Node::of(Options { bootstrap: Vec::new(), ..with }, keypair).await;
    within("it has read its journal", keeper.dht.0.journal.read()).await;
    assert_eq!(keeper.dht.kept("NAME", None).said.len(), 1);
    assert_eq!(told(&keeper, key(1)).await.len(), 1, "it tells itself");
}

/// Metadata of the wrong time, and of what is not its publisher's to describe.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lies_are_not_kept() {
    let nodes = network(TCP, 2).await;
    let (sender, receiver) = (&nodes[0].dht.0, &nodes[1]);
    let send = async |sequence, descriptions| {
        let (keys, removals, lifetime) = (vec![key(1)], vec![], Duration::from_secs(60));
        let draft =
            Draft { receiver: receiver.dht.0.local, sequence, lifetime, keys, removals, descriptions };
        let batch = draft.sign("test", &sender.keypair, &[]).unwrap();
        let to = command::Node { peer: receiver.dht.0.local, addresses: vec![receiver.address()] };
        let send = sender.ask(|done| Command::Send { to, batch, on_way: Default::default(), done });
        within("it is answered", send).await.unwrap().unwrap()
    };
    let described = |answer: Answer| match answer {
        Answer::Taken(Taken { described, taken, .. }) if taken == [true] => Some(described),
        _ => None,
    };
    let sign = |time, key_of: &Keypair| {
        let said = Description { time, ..said(key(1), "x") };
        vec![SignedDescription::sign(said, &network_id("test"), key_of).unwrap().encode()]
    };
    let now = unix_now();
    for (sequence, time, kept) in [(1, now - 4 * 86_400, 0), (2, now + 2 * 86_400, 0), (3, 0, 0), (4, now, 1)]
    {
        let answer = send(sequence, sign(time, &sender.keypair)).await;
        assert_eq!(described(answer), Some(kept), "{sequence}");
        assert_eq!(receiver.dht.0.described.len(), kept as usize);
    }
    let stolen = send(5, sign(now, &Keypair::generate_ed25519())).await;
    assert_eq!(described(stolen), None, "the whole batch is refused");
    // An older word does not take a newer one's place.
    assert_eq!(described(send(6, sign(now - 9, &sender.keypair)).await), Some(0));
    assert_eq!(receiver.dht.kept("", None).said[0].description().time, now);
}
