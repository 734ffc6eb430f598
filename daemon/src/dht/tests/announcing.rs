//! Many keys, few messages, found again.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::{Node, QUIC, TCP, key, network, options, until, within};
use crate::dht::announcer::{Announcer, Purpose};
use crate::dht::batch::{Answer, Draft, Refusal};
use crate::dht::command::{self, Command};
use crate::dht::journal::Entry;
use crate::dht::position::Position;
use crate::dht::{Limits, Mode, Options};
use crate::peer::{Announce, Announcing, Holder, Key, Keypair, Kind, PeerId};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_holders_of_six_are_found_and_withdrawn() {
    let nodes = network(QUIC, 6).await;
    for holder in &nodes[..4] {
        let announced = within("the key is placed", holder.announce(vec![key(7)], 20)).await;
        assert_eq!((announced.keys, announced.receivers), (1, 5));
    }
    let holders: HashSet<_> = nodes[..4].iter().map(|node| node.dht.0.local).collect();
    for seeker in &nodes[4..] {
        let found: HashSet<_> = seeker.find(key(7)).await.into_iter().map(|p| p.peer).collect();
        assert_eq!(found, holders);
    }
    nodes[0].dht.release(&[key(7)]);
    let gone = nodes[0].dht.0.local;
    until("the key is taken back", || async {
        let found: HashSet<_> = nodes[5].find(key(7)).await.into_iter().map(|p| p.peer).collect();
        !found.contains(&gone) && found.len() == 3
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_keys_reach_ten_nodes_in_few_messages() {
    let nodes = network(QUIC, 10).await;
    let keys: Vec<Key> = (0..20_000).map(key).collect();
    let announced = within("all keys are placed", nodes[3].announce(keys.clone(), 20)).await;
    assert_eq!((announced.keys, announced.receivers, announced.refused), (20_000, 9, 0));
    assert!(announced.messages <= 9 * 5, "{announced:?}");
    for (number, node) in nodes.iter().enumerate() {
        let status = node.dht.status().await;
        let (records, batches) = if number == 3 { (0, 0) } else { (20_000, 5) };
        assert_eq!((status.other_records, status.batches_taken), (records, batches));
    }
    for sample in keys.iter().step_by(997) {
        let found = nodes[8].find(*sample).await;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].peer, nodes[3].dht.0.local);
    }
    // More than go together.
    nodes[3].dht.release(&keys);
    for node in &nodes {
        until("all are taken back", || async { node.dht.status().await.other_records == 0 }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_not_reached_is_worth_trying_when_it_comes_and_when_it_announces() {
    let (node, keypair) = (Node::server(QUIC, &[]).await, Keypair::generate_ed25519());
    let (conduct, holder, now) = (&node.conduct, keypair.public().to_peer_id(), SystemTime::now());
    let put_off = || {
        conduct.failed(holder, now + Duration::from_secs(3600));
        assert!(!conduct.is_worth_trying(&holder, now));
    };
    put_off();
    let other = Node::of(options(QUIC, &[&node]), keypair).await;
    until("it has come", || async { conduct.is_worth_trying(&holder, now) }).await;
    node.knows(1).await;
    other.knows(1).await;
    put_off();
    let announced = within("the key is placed", other.announce(vec![key(7)], 20)).await;
    assert_eq!(announced.receivers, 1);
    assert!(conduct.is_worth_trying(&holder, now));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_copies_go_to_the_nearest_and_are_found_by_all() {
    let nodes = network(TCP, 8).await;
    let keys: Vec<Key> = (0..400).map(key).collect();
    let announced = within("all keys are placed", nodes[0].announce(keys.clone(), 2)).await;
    assert!(announced.keys > 300, "own placements are not counted: {announced:?}");
    let mut records = 0;
    for node in &nodes[1..] {
        records += node.dht.status().await.other_records;
    }
    // Of the two nearest nodes of each key those that are not the announcer.
    let own = nodes[0].dht.0.local;
    let placed = keys.iter().flat_map(|key| {
        let mut all: Vec<_> = nodes.iter().map(|node| node.dht.0.local).collect();
        all.sort_by_key(|peer| Position::of_peer(peer).distance(Position::of_key(key)));
        all.into_iter().take(2)
    });
    assert_eq!(records, placed.filter(|peer| *peer != own).count());
    for sample in keys.iter().step_by(41) {
        assert_eq!(nodes[5].find(*sample).await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_object_takes_one_look_up_though_not_all_near_it_is_known() {
    let nodes = network(TCP, 26).await;
    let announced = within("the key is placed", nodes[0].announce(vec![key(1)], 20)).await;
    assert_eq!((announced.keys, announced.look_ups), (1, 1), "{announced:?}");
    // This node may be one of the twenty nearest itself.
    assert!((19..=20).contains(&announced.receivers), "{announced:?}");
    assert_eq!(nodes[25].find(key(1)).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_is_replaced_by_the_next_nearest() {
    let mut nodes = network(TCP, 5).await;
    nodes.pop().unwrap().stop().await;
    let keys: Vec<Key> = (0..200).map(key).collect();
    let announced = within("all keys are placed", nodes[0].announce(keys, 2)).await;
    assert_eq!(announced.keys, 200, "{announced:?}");
    until("the dead are noticed", || async { nodes[0].dht.status().await.connected == 3 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_took_and_two_did_not_counts_as_announced_to_few() {
    let mut nodes = network(TCP, 4).await;
    let all = within("the key is placed", nodes[0].announce(vec![key(1)], 20)).await;
    assert_eq!((all.keys, all.receivers), (1, 3));
    for gone in nodes.drain(2..) {
        gone.stop().await;
    }
    let again = Announcer::new(Arc::clone(&nodes[0].dht.0), Purpose::Put, &[key(1)]);
    let outcome = within("one takes it", again.run(20)).await;
    assert_eq!((outcome.announced.keys, outcome.announced.receivers), (1, 1));
    // By those that failed, or by a look-up that they did not answer.
    assert!(!(outcome.is_sound && outcome.doubted.is_empty()) && outcome.missed.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn look_ups_in_crowds_all_end() {
    let nodes = network(QUIC, 3).await;
    within("keys are placed", nodes[0].announce((0..300).map(key).collect(), 20)).await;
    let looks = (0..600).map(|number| nodes[1].find(key(number)));
    let found = within("all look-ups end", futures::future::join_all(looks)).await;
    assert!(found[..300].iter().all(|found| found.len() == 1));
    assert!(found[300..].iter().all(Vec::is_empty));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_isolated_node_places_nothing_and_says_so() {
    let node = Node::server(TCP, &[]).await;
    let announced = within("it ends", node.announce(vec![key(1)], 20)).await;
    assert_eq!((announced.keys, announced.receivers, announced.messages), (0, 0, 0));
    assert_eq!(node.dht.announcing().keys, 1);
    assert!(node.find(key(1)).await.is_empty());
    let placed = within("it is told that there is nobody", node.dht.place(key(2))).await;
    assert_eq!((placed.keys, placed.receivers), (0, 0));
    assert_eq!((node.dht.announcing().keys, node.dht.announcing().queued), (2, 1));
    node.dht.release(&[key(1), key(2)]);
    assert_eq!(node.dht.announcing().keys, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_is_announced_and_what_is_not_said_again_is_taken_back() {
    let nodes = network(TCP, 3).await;
    let (holder, seeker) = (&nodes[1], &nodes[2]);
    let chunks: Vec<Key> = (100..3_000).map(key).collect();
    assert_eq!(holder.dht.hold(&chunks, Kind::Chunk), 0);
    let placed = within("an object is placed beside them", holder.dht.place(key(1))).await;
    assert_eq!((placed.keys, placed.receivers), (1, 2));
    assert_eq!(holder.dht.hold(&[key(2)], Kind::Object), 0);
    // Keys are not queued any more just before they are counted.
    let all = |told: Announcing| told.queued == 0 && told.placed >= 2_902;
    until("all are announced", || async { all(holder.dht.announcing()) }).await;
    let told = holder.dht.announcing();
    assert_eq!((told.keys, told.placed, told.overdue, told.receivers), (2_902, 2_902, 0, 2));
    for sample in [key(1), key(2), key(100), key(2_999)] {
        assert_eq!(seeker.find(sample).await.len(), 1);
    }
    holder.dht.begin_count();
    holder.dht.hold(&[key(2), key(100)], Kind::Object);
    holder.dht.end_count();
    until("others have dropped the rest", || async { nodes[0].dht.status().await.other_records == 2 }).await;
    // The others hear of it after that one.
    until("nobody is found any more", || async { seeker.find(key(1)).await.is_empty() }).await;
    // What was a chunk's key is an object's now, and was announced as one.
    assert_eq!(seeker.find(key(100)).await.len(), 1);
    until("both are announced", || async { holder.dht.announcing().queued == 0 }).await;
    assert_eq!(holder.dht.announcing().keys, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_takes_is_tried_again_only_after_a_while() {
    let limits = Limits { other_bytes: 0, ..Limits::default() };
    let full = Node::with(Options { limits, ..options(TCP, &[]) }).await;
    let holder = Node::server(TCP, &[&full]).await;
    holder.knows(1).await;
    let refused = async |times| {
        until("it is refused", || async { holder.dht.announcing().refused >= times }).await;
        Instant::now()
    };
    holder.dht.hold(&[key(1)], Kind::Chunk);
    let first = refused(1).await;
    // That rings the lane once more; from then on it waits.
    holder.dht.hold(&[key(2)], Kind::Chunk);
    let last = refused(5).await;
    assert!(last - first >= Duration::from_secs(2), "{:?}", last - first);
    assert_eq!((holder.dht.announcing().placed, holder.dht.announcing().queued), (0, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_alone_is_announced_when_somebody_comes() {
    let holder = Node::server(QUIC, &[]).await;
    holder.dht.hold(&(0..500).map(key).collect::<Vec<_>>(), Kind::Object);
    holder.dht.hold(&(500..1_000).map(key).collect::<Vec<_>>(), Kind::Chunk);
    let seeker = Node::server(QUIC, &[&holder]).await;
    until("all are announced", || async { holder.dht.announcing().queued == 0 }).await;
    assert_eq!(seeker.dht.status().await.other_records, 1_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_few_were_told_more_are_told_when_there_are_more() {
    let holder = Node::server(TCP, &[]).await;
    holder.dht.hold(&(0..1_000).map(key).collect::<Vec<_>>(), Kind::Object);
    let first = Node::server(TCP, &[&holder]).await;
    until("all are announced", || async { holder.dht.announcing().queued == 0 }).await;
    assert_eq!(first.dht.status().await.other_records, 1_000);
    // From one to two, and from two to four.
    let mut others = Vec::new();
    for more in [1, 2] {
        for _ in 0..more {
            others.push(Node::server(TCP, &[&holder]).await);
        }
        for other in &others {
            until("it is told as well", || async { other.dht.status().await.other_records == 1_000 }).await;
        }
    }
    // They count as announced all the while.
    assert_eq!((holder.dht.announcing().keys, holder.dht.announcing().queued), (1_000, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_announced_is_known_after_a_restart_and_not_announced_again() {
    let folder = tempfile::tempdir().unwrap();
    let journal = |name: &str| Some(folder.path().join(name).join("keys"));
    let first = Node::with(Options { journal: journal("first"), ..options(TCP, &[]) }).await;
    let with_journal = Options { journal: journal("second"), ..options(TCP, &[&first]) };
    let keypair = Keypair::generate_ed25519();
    let second = Node::of(with_journal.clone(), keypair.clone()).await;
    second.dht.hold(&(0..3_000).map(key).collect::<Vec<_>>(), Kind::Chunk);
    until("all are announced", || async { second.dht.announcing().queued == 0 }).await;
    assert_eq!(first.dht.status().await.other_records, 3_000);
    let peer = second.dht.0.local;
    second.stop().await;
    let second = Node::of(with_journal, keypair).await;
    second.knows(1).await;
    until("its keys are known again", || async { second.dht.announcing().keys == 3_000 }).await;
    assert_eq!(second.dht.announcing().queued, 0);
    // One is new, one is gone, and the others keep their turn.
    second.dht.begin_count();
    second.dht.hold(&(1..3_001).map(key).collect::<Vec<_>>(), Kind::Chunk);
    second.dht.end_count();
    until("the one that is gone is taken back", || async { second.dht.announcing().keys == 3_000 }).await;
    until("the new one is announced", || async { second.dht.announcing().queued == 0 }).await;
    assert_eq!(second.dht.announcing().placed, 1);
    until("others know it", || async { first.dht.status().await.other_records == 3_000 }).await;

    // Whom others told keeps it as well.
    first.stop().await;
    let first = Node::with(Options { journal: journal("first"), ..options(TCP, &[]) }).await;
    until("its records are known again", || async { first.dht.status().await.other_records == 3_000 }).await;
    let records = first.dht.0.ask(|done| Command::Page { from: None, most: 10, done }).await.unwrap().0;
    assert!(
        matches!(&records[0], Entry::Located { peer: whose, addresses } if *whose == peer && !addresses.is_empty())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_can_be_asked_who_holds_a_key() {
    let nodes = network(QUIC, 3).await;
    within("the key is placed", nodes[0].announce(vec![key(1)], 20)).await;
    let ask = async |of: &Node, key: Key| {
        let to = command::Node { peer: of.dht.0.local, addresses: Vec::new() };
        let asked = nodes[2].dht.0.ask(|done| Command::Find { to, key, done });
        within("it answers", asked).await.unwrap_or_default()
    };
    for node in &nodes[..2] {
        let holders = ask(node, key(1)).await;
        assert_eq!(holders.len(), 1);
        assert_eq!(holders[0].0, nodes[0].dht.0.local);
        assert!(!holders[0].1.is_empty(), "it says where the holder is");
    }
    assert!(ask(&nodes[1], key(2)).await.is_empty());
    let gone = Node::server(QUIC, &[]).await;
    assert!(ask(&gone, key(1)).await.is_empty(), "who cannot be reached names nobody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stolen_repeated_and_misplaced_batches_are_refused() {
    let nodes = network(TCP, 2).await;
    let (sender, receiver) = (&nodes[0].dht.0, &nodes[1].dht);
    let send = async |batch: Vec<u8>, to: &Node| {
        let to = command::Node { peer: to.dht.0.local, addresses: vec![to.address()] };
        let sent = sender.ask(|done| Command::Send { to, batch, on_way: Default::default(), done });
        within("the batch is answered", sent).await.unwrap().unwrap()
    };
    let draft = |to: &Node, sequence| Draft {
        receiver: to.dht.0.local,
        sequence,
        lifetime: Duration::from_secs(60),
        keys: vec![key(1)],
        removals: vec![],
        descriptions: vec![],
    };
    let good = draft(&nodes[1], 5).sign("test", &sender.keypair, &[]).unwrap();
    assert!(matches!(send(good.clone(), &nodes[1]).await, Answer::Taken(_)));
    assert_eq!(send(good, &nodes[1]).await, Answer::Refused(Refusal::Sequence, 5));
    let misplaced = draft(&nodes[0], 6).sign("test", &sender.keypair, &[]).unwrap();
    assert_eq!(send(misplaced, &nodes[1]).await, Answer::Refused(Refusal::Receiver, 0));
    assert_eq!(receiver.status().await.other_records, 1);
    // For this one the connection ends.
    let stolen = draft(&nodes[1], 5).sign("test", &Keypair::generate_ed25519(), &[]).unwrap();
    assert_eq!(send(stolen, &nodes[1]).await, Answer::Refused(Refusal::Signature, 0));
    assert_eq!(receiver.status().await.other_records, 1);
    let client = Options { mode: Mode::Client, ..options(TCP, &[]) };
    let client = Node::with(client).await;
    let to_client = draft(&client, 7).sign("test", &sender.keypair, &[]).unwrap();
    assert_eq!(send(to_client, &client).await, Answer::Refused(Refusal::Client, 0));
}

#[tokio::test]
async fn a_holder_that_tells_no_chunk_port_is_found_wide_as_well() {
    let first = Node::server(QUIC, &[]).await;
    let holder = Node::with(Options { chunk: Vec::new(), ..options(QUIC, &[&first]) }).await;
    let seeker = Node::server(QUIC, &[&first]).await;
    for node in [&first, &holder, &seeker] {
        node.knows(2).await;
    }
    assert_eq!(holder.announce(vec![key(1)], 20).await.keys, 1);
    let (found, mut told) = tokio::sync::mpsc::channel(8);
    within("a wide look-up ends", seeker.dht.look_wider(key(1), found)).await;
    let asked = told.recv().await;
    assert_eq!(asked, Some(Holder::Missed(holder.dht.0.local, None)), "it is told at once who is asked");
    let Some(Holder::Found(provider)) = told.recv().await else { panic!("it answers") };
    assert_eq!(provider.peer, holder.dht.0.local);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_nodes_than_there_are_connections_are_all_told() {
    let nodes = futures::future::join_all((0..12).map(|_| Node::server(TCP, &[]))).await;
    let limits = Limits { outbound: 8, ..Limits::default() };
    let few = Options { limits, idle: Duration::from_secs(1), ..options(TCP, &[]) };
    let holder = Node::with(few).await;
    holder.dht.hold(&[key(1)], Kind::Object);
    let send = async |node: &Node| {
        let to = command::Node { peer: node.dht.0.local, addresses: vec![node.address()] };
        let keys = [key(1)];
        within("the batch is answered", holder.dht.0.send(to, Purpose::Put, &keys, &[])).await.0
    };
    for answer in futures::future::join_all(nodes.iter().map(send)).await {
        assert!(matches!(answer, Ok(Answer::Taken(_))), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dials_that_nobody_answers_hold_no_batch_up() {
    // It takes connections, and never says a word.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let limits = Limits { outbound: 8, ..Limits::default() };
    let holder = Node::with(Options { limits, ..options(TCP, &[]) }).await;
    let other = Node::server(TCP, &[]).await;
    holder.dht.hold(&[key(1)], Kind::Object);
    let dials = (0..32).map(|_| {
        let at = format!("/ip4/127.0.0.1/tcp/{port}/p2p/{}", PeerId::random());
        holder.dht.connect(at.parse().unwrap())
    });
    let (to, keys) = (command::Node { peer: other.dht.0.local, addresses: vec![other.address()] }, [key(1)]);
    tokio::select! {
        biased;
        _ = futures::future::join_all(dials) => panic!("it waits until they have failed"),
        (answer, _) = holder.dht.0.send(to, Purpose::Put, &keys, &[]) => {
            assert!(matches!(answer, Ok(Answer::Taken(_))), "{answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_have_much_for_each_other_take_all_of_it() {
    let nodes = network(TCP, 2).await;
    let send = async |from: &Node, to: &Node, number| {
        let keys = [key(number)];
        from.dht.0.holdings().hold(&keys[0], Kind::Object);
        let to = command::Node { peer: to.dht.0.local, addresses: vec![to.address()] };
        within("the batch is answered", from.dht.0.send(to, Purpose::Put, &keys, &[])).await.0
    };
    let all = (0..80).map(|number| send(&nodes[number % 2], &nodes[1 - number % 2], number));
    for answer in futures::future::join_all(all).await {
        assert!(matches!(answer, Ok(Answer::Taken(_))), "{answer:?}");
    }
}
