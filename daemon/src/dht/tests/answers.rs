//! What hostile peers answer when they are asked what objects are called, and what they publish.

use std::slice::from_ref;

use futures::future::join_all;

use super::hostile::{is_well, judge};
use super::outsider::{Outsider, Says};
use super::{Node, QUIC, TCP, key, until};
use crate::content::SignedDescription;
use crate::dht::about::Said;
use crate::dht::command::{self, Command};
use crate::peer::{Catalogue, CataloguePage, Conduct, Keypair, PeerId, network_id};
use crate::support::unix_now;

/// A description with a signature that holds, byte by byte: its name need not be one that may be said.
fn description(publisher: &Keypair, network: &str, name: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1, 0];
    bytes.extend(key(1));
    bytes.extend(5u64.to_le_bytes());
    bytes.extend([0, 0]);
    bytes.extend(unix_now().to_le_bytes());
    bytes.push(u8::try_from(name.len()).unwrap());
    bytes.extend(name);
    bytes.extend(publisher.public().try_into_ed25519().unwrap().to_bytes());
    let signed = [b"casd description 1\n", &network_id(network)[..], &bytes].concat();
    bytes.extend(publisher.sign(&signed).unwrap());
    bytes
}

/// So many descriptions, as they are told behind `head`.
fn told(head: &[u8], said: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = [head, &[u8::try_from(said.len()).unwrap()]].concat();
    for one in said {
        bytes.extend(u16::try_from(one.len()).unwrap().to_le_bytes());
        bytes.extend(one);
    }
    bytes
}

/// Answers in no form of the protocol, and what is said of each. `head`: what stands before descriptions; `most`: how
/// many of them there may be.
fn lies(by: &Keypair, head: &[u8], most: usize) -> Vec<(&'static str, Says)> {
    let honest = description(by, "test", b"a name");
    let named = |name: &[u8]| Says::Whole(told(head, &[honest.clone(), description(by, "test", name)]));
    let unsigned = "a description that nobody signed";
    let mut changed = told(head, from_ref(&honest));
    *changed.last_mut().unwrap() ^= 1;
    vec![
        ("another version", Says::Whole(vec![0xff; 40])),
        ("longer than its limit", Says::Endless(vec![1; 1 << 16])),
        ("longer than its limit", Says::Whole(vec![1; 1 << 20])),
        ("more descriptions than are told", Says::Whole(told(head, &vec![honest.clone(); most + 1]))),
        ("more than belongs to it", Says::Whole([told(head, from_ref(&honest)), vec![0]].concat())),
        (unsigned, Says::Whole(changed)),
        (unsigned, Says::Whole(told(head, &[description(by, "other", b"a name")]))),
        (unsigned, Says::Whole(told(head, &[Vec::new()]))),
        (unsigned, named(b"\x1b[2J\x1b[31mred")),
        (unsigned, named(b"two\nlines")),
        (unsigned, named(b"../../etc/passwd")),
        (unsigned, named(b"\xff\xfe")),
        (unsigned, named(b"")),
    ]
}

/// What `peer` answers when it is asked what is said of an object.
async fn about(node: &Node, peer: PeerId) -> Option<Vec<SignedDescription>> {
    let to = command::Node { peer, addresses: Vec::new() };
    node.dht.0.ask(|done| Command::About { to, key: key(1), done }).await.map(Said::proved)
}

/// What `peer` answers when it is asked what it publishes.
async fn list(node: &Node, peer: PeerId) -> Result<CataloguePage, String> {
    node.dht.published_by(peer, String::new(), None).await
}

fn banned(conduct: &Conduct) -> Vec<PeerId> {
    conduct.bans(std::time::SystemTime::now()).iter().map(|ban| ban.peer).collect()
}

/// A peer says it three times, and is not spoken to any more.
async fn is_banned_for<T>(
    node: &Node,
    conduct: &Conduct,
    says: Says,
    ask: impl AsyncFn(PeerId) -> T,
) -> Vec<T> {
    let (mut hostile, mut told) = (Outsider::new("test"), Vec::new());
    let id = hostile.id();
    for _ in 0..3 {
        assert!(!banned(conduct).contains(&id));
        hostile.meet(node).await.unwrap();
        told.push(hostile.answer(&says, ask(id)).await);
        hostile.is_let_go("it lies").await;
    }
    assert!(banned(conduct).contains(&id), "{says:?}");
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_tells_of_objects_in_no_form_is_not_heard_and_three_times_is_a_ban() {
    let (by, (node, conduct)) = (Keypair::generate_ed25519(), judge(QUIC).await);
    let lies = lies(&by, &[1], 5);
    let (node, conduct) = (&node, &conduct);
    let all = lies.into_iter().map(async |(_, says)| {
        let told = is_banned_for(node, conduct, says, async |peer| about(node, peer).await).await;
        assert!(told.iter().all(Option::is_none));
    });
    join_all(all).await;
    is_well(node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lists_in_no_form_is_told_why_and_three_times_is_a_ban() {
    let (by, (node, conduct)) = (Keypair::generate_ed25519(), judge(TCP).await);
    let mut lies = lies(&by, &[1, 1], 64);
    lies.push(("an answer of another form", Says::Whole(vec![1, 3, 0])));
    lies.push(("more than belongs to it", Says::Whole(vec![1, 0, 0])));
    let (node, conduct) = (&node, &conduct);
    let all = lies.into_iter().map(async |(expected, says)| {
        for told in is_banned_for(node, conduct, says, async |peer| list(node, peer).await).await {
            let why = told.unwrap_err();
            assert!(why.contains(expected) && !why.contains(char::is_control), "{why:?} for {expected}");
        }
    });
    join_all(all).await;
    is_well(node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_end_too_early_are_nobodys_fault() {
    let (node, conduct) = judge(TCP).await;
    let mut slow = Outsider::new("test");
    let (id, said) = (slow.id(), description(&slow.keypair, "test", b"a name"));
    slow.meet(&node).await.unwrap();
    let (told_of, listed) = (told(&[1], from_ref(&said)), told(&[1, 1], from_ref(&said)));
    for length in [0, 1, 2, 3, 9, told_of.len() - 1] {
        let says = Says::Whole(told_of[..length].to_vec());
        assert!(slow.answer(&says, about(&node, id)).await.is_none(), "{length} bytes");
    }
    for length in [0, 1, 2, 3, 9, listed.len() - 1] {
        let says = Says::Whole(listed[..length].to_vec());
        let why = slow.answer(&says, list(&node, id)).await.unwrap_err();
        assert!(!why.is_empty(), "{length} bytes");
    }
    // They are given up on when they take too long.
    let asked = async { tokio::join!(about(&node, id), list(&node, id)) };
    let (about_it, its_list) = slow.answer(&Says::Half(vec![1]), asked).await;
    assert!(about_it.is_none() && its_list.is_err());
    // "Later" for ever, too.
    let why = slow.answer(&Says::Whole(vec![1, 0]), list(&node, id)).await.unwrap_err();
    assert!(why.contains("asked too much"), "{why}");
    assert_eq!(slow.answer(&Says::Whole(told_of), about(&node, id)).await.unwrap().len(), 1);
    assert_eq!(slow.answer(&Says::Whole(listed), list(&node, id)).await.unwrap().said.len(), 1);
    assert_eq!(banned(&conduct), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_of_whoever_tells_it_and_of_nobody_else() {
    let (node, _) = judge(TCP).await;
    let mut thief = Outsider::new("test");
    let (id, other) = (thief.id(), Keypair::generate_ed25519());
    thief.meet(&node).await.unwrap();
    let own = description(&thief.keypair, "test", b"its own");
    let stolen = description(&other, "test", b"another's");
    let says = Says::Whole(told(&[1, 1], &[stolen.clone(), own, stolen]));
    let page = thief.answer(&says, list(&node, id)).await.unwrap();
    let names: Vec<_> = page.said.iter().map(|said| said.description().name.as_str()).collect();
    assert_eq!(names, ["its own"]);
    until("it is still connected", || async { node.dht.status().await.connected == 1 }).await;
}
