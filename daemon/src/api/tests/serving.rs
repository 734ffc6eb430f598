//! The server as such: node and network, health, reflection, stopping.

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_tells_of_itself_and_that_it_is_alone() {
    bounded(async {
        let daemon = Daemon::start().await;
        daemon.add("one", vec![sample(1, 10)]).await.unwrap();
        let status = client::node(daemon.channel.clone()).status(v1::StatusRequest {}).await.unwrap();
        let status = status.into_inner();
        assert_eq!((status.name.as_str(), status.network.as_str()), ("alice", "test"));
        assert_eq!((status.objects, status.peers, status.ready), (1, 0, true));
        assert_eq!(status.listen_chunk, ["127.0.0.1:9000"]);
        assert_eq!(status.reachable(), v1::Reachability::Unknown);
        assert_eq!((status.known_peers, status.alone, status.next_try_ms), (0, true, None));

        let mut network = client::network(daemon.channel.clone());
        let peers = network.peers(v1::PeersRequest::default()).await.unwrap().into_inner();
        assert_eq!((peers.peers, peers.known), (vec![], 0));
        let providers = |id: &str| v1::ProvidersRequest { id: id.to_owned(), timeout_ms: 1000 };
        assert_eq!(reason(network.providers(providers(&id_of(b"x"))).await), "NO_PEERS");
        assert_eq!(reason(network.providers(providers("one")).await), "INVALID_ID");
        let connect = |address: &str| v1::ConnectRequest { address: address.to_owned() };
        assert_eq!(reason(network.connect(connect("localhost")).await), "INVALID_ADDRESS");
        let nobody = format!("{}@127.0.0.1:1", status.peer_id);
        assert_eq!(reason(network.connect(connect(&nobody)).await), "UNREACHABLE");
        let own = v1::SearchRequest { peer: status.peer_id.clone(), ..Default::default() };
        let refused = network.search(own).await.err().unwrap();
        assert!(refused.message().contains("is this node itself"), "{refused}");
        let told = network.announce_status(v1::AnnounceStatusRequest {}).await.unwrap().into_inner();
        assert_eq!((told.done, told.overdue), (0, 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_reflection_are_served() {
    bounded(async {
        let daemon = Daemon::start().await;
        let mut health = HealthClient::new(daemon.channel.clone());
        for service in ["", "casd.v1.Objects", "casd.v1.Network", "casd.v1.Jobs", "casd.v1.Node"] {
            let request = HealthCheckRequest { service: service.to_owned() };
            let answer = health.check(request).await.unwrap().into_inner();
            assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
        }
        let mut reflection = ServerReflectionClient::new(daemon.channel.clone());
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let answers = reflection.server_reflection_info(stream::iter([request])).await.unwrap();
        let answer = answers.into_inner().message().await.unwrap().unwrap();
        let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
            panic!("{answer:?}");
        };
        let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
        for name in ["casd.v1.Objects", "casd.v1.Network", "casd.v1.Node", "grpc.health.v1.Health"] {
            assert!(names.iter().any(|found| found == name), "{name} is not in {names:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_does_not_end_is_ended_when_the_daemon_stops() {
    bounded(async {
        let mut daemon = Daemon::start().await;
        let (parts, messages) = mpsc::channel(4);
        let part = Some(Part::Start(v1::AddStart::default()));
        parts.send(v1::AddRequest { part }).await.unwrap();
        let mut objects = daemon.objects();
        let stuck = objects.add(tokio_stream::wrappers::ReceiverStream::new(messages));
        let stop = async {
            // Once the daemon has taken the start, the add is under way.
            while parts.capacity() < parts.max_capacity() {
                tokio::task::yield_now().await;
            }
            daemon.list("").await.unwrap();
            daemon.tasks.stop();
        };
        let (ended, ()) = futures::join!(stuck, stop);
        assert_eq!(reason(ended), "STOPPING");
        assert!(matches!((&mut daemon.api).await, Ok(Some(Ok(())))));
        drop(parts);
    })
    .await;
}

#[tokio::test]
async fn a_caller_who_falls_silent_in_an_add_is_told() {
    let ending = tokio_util::sync::CancellationToken::new();
    let silence = Duration::from_secs(1);
    let nothing = std::future::pending::<Result<Option<()>, Status>>;
    let began = Instant::now();
    let status = super::super::hear(nothing(), silence, &ending).await.unwrap_err();
    assert!(began.elapsed() >= silence);
    assert_eq!(status.message(), "nothing came for 1 s in the middle of an add; nothing was stored");
    assert_eq!(Failure::from(&status).reason, "SILENT");
    let heard = super::super::hear(std::future::ready(Ok(Some(7))), silence, &ending).await;
    assert_eq!(heard.unwrap(), Some(7));
    ending.cancel();
    assert_eq!(reason(super::super::hear(nothing(), Duration::MAX, &ending).await), "STOPPING");
}
