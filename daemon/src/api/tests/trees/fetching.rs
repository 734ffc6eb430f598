//! Fetching directories over the API, from a node that has them; that they come from others is tested in `fetch`.

use super::*;

impl Daemon {
    async fn fetch_tree(&self, wanted: v1::FetchTreeRequest) -> Result<Vec<v1::FetchTreeResponse>, Status> {
        all(client::trees(self.channel.clone()).fetch(wanted).await?.into_inner()).await
    }
}

fn wanted(object: impl Into<String>) -> v1::FetchTreeRequest {
    v1::FetchTreeRequest { object: object.into(), stall_timeout_ms: 500, ..v1::FetchTreeRequest::default() }
}

fn pieces(messages: &[v1::FetchTreeResponse]) -> Vec<Piece> {
    messages.iter().flat_map(|message| &message.parts).filter_map(|part| part.part.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_is_fetched_in_the_order_of_a_walk() {
    bounded(async {
        let daemon = Daemon::start().await;
        let mut large = sample(1, 3 * CHUNK).to_vec();
        large[CHUNK..2 * CHUNK].fill(0);
        let mut parts =
            vec![file("z.sh", "echo"), enter("sub"), link("l", "../z.sh"), file("k", "kk"), leave()];
        parts.extend([start("big", None)]);
        let mut messages = vec![message(Some(named("tree")), parts)];
        messages.extend(large.chunks(CHUNK).map(|chunk| message(None, vec![data(chunk.to_vec())])));
        messages.push(message(None, vec![end(large.len() as u64), finish(5)]));
        let added = daemon.add_tree(messages).await.unwrap().pop().unwrap().tree.unwrap();

        let came = daemon.fetch_tree(wanted(format!("dir:{}", added.id))).await.unwrap();
        let started = came[0].started.clone().unwrap();
        assert_eq!((started.id.as_str(), started.kind()), (added.id.as_str(), v1::ObjectKind::Directory));
        assert_eq!((started.name.as_str(), started.size, started.entries), ("tree", added.size, 5));
        let finished = came.last().unwrap().finished.clone().unwrap();
        assert_eq!((finished.size, finished.local_bytes, finished.peers.len()), (added.size, added.size, 0));
        let head = vec![
            Piece::Start(v1::TreeStart {
                name: "big".to_owned(),
                executable: false,
                length: Some(large.len() as u64),
            }),
            data(large[..CHUNK].to_vec()),
        ];
        let tail = vec![
            data(large[2 * CHUNK..].to_vec()),
            end(large.len() as u64),
            enter("sub"),
            file("k", "kk"),
            link("l", "../z.sh"),
            leave(),
            file("z.sh", "echo"),
        ];
        let with = |middle: Piece| [head.clone(), vec![middle], tail.clone()].concat();
        assert_eq!(pieces(&came), with(data(vec![0; CHUNK])));
        let sparse = v1::FetchTreeRequest { accept_zeros: true, ..wanted(added.id.clone()) };
        let hole = Piece::Data(v1::TreeData { data: Bytes::new(), zeros: CHUNK as u64 });
        assert_eq!(pieces(&daemon.fetch_tree(sparse).await.unwrap()), with(hole));

        let inner = daemon.fetch_tree(wanted(format!("{}/sub", added.id))).await.unwrap();
        assert_eq!(pieces(&inner), [file("k", "kk"), link("l", "../z.sh")]);
        assert_eq!(inner[0].started.as_ref().unwrap().name, "sub");
        let one = daemon.fetch_tree(wanted(format!("dir:{}/z.sh", added.id))).await.unwrap();
        assert_eq!(pieces(&one), [file("z.sh", "echo")]);
        let started = one[0].started.as_ref().unwrap();
        assert_eq!((started.kind(), started.size), (v1::ObjectKind::File, 4));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_fetched_as_a_directory_says_why() {
    bounded(async {
        let daemon = Daemon::start().await;
        let added = daemon.add("plain", vec![Bytes::from_static(b"no list")]).await.unwrap();
        let tree =
            daemon.add_tree(vec![message(Some(named("d")), vec![file("f", "x"), finish(1)])]).await.unwrap();
        let tree = tree[0].tree.clone().unwrap().id;
        let unknown = id_of(b"?");
        let peers = vec!["not an address".to_owned()];
        for (expected, wanted) in [
            ("BAD_TREE", wanted(added.id.clone())),
            ("NO_SUCH_PATH", wanted(format!("dir:{tree}/g"))),
            ("NO_SUCH_PATH", wanted(format!("dir:{tree}/f/g"))),
            ("NO_PEERS", wanted(format!("dir:{unknown}"))),
            ("INVALID_ID", wanted("dir:12")),
            ("INVALID_ID", wanted("tree")),
            ("INVALID_ID", wanted("")),
            ("INVALID_ADDRESS", v1::FetchTreeRequest { peers: peers.clone(), ..wanted(tree.clone()) }),
            (
                "INVALID_ADDRESS",
                v1::FetchTreeRequest { peers: vec![String::new(); 65], ..wanted(tree.clone()) },
            ),
        ] {
            let object = wanted.object.clone();
            assert_eq!(reason(daemon.fetch_tree(wanted).await), expected, "{object}");
        }
        let as_file = v1::FetchRequest { id: tree.clone(), ..v1::FetchRequest::default() };
        let status = daemon.objects().fetch(as_file).await.unwrap_err();
        let failure = Failure::from(&status);
        assert_eq!(failure.reason, "IS_DIRECTORY");
        assert!(failure.message.contains(&tree) && failure.hint.contains("casctl fetch dir:"), "{failure:?}");
    })
    .await;
}
