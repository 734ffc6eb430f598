//! Every call of the proto files has a role, and its handler begins by asking for it.

use prost::Message;

use super::super::Role;

/// Who may do what. A call that is missing here fails the test below.
const ROLES: &[(&str, Role)] = &[
    ("Objects.Add", Role::Write),
    ("Objects.AddMany", Role::Write),
    ("Objects.Fetch", Role::Write),
    ("Objects.Cat", Role::Read),
    ("Objects.List", Role::Read),
    ("Objects.Stat", Role::Read),
    ("Objects.Chunks", Role::Read),
    ("Objects.Remove", Role::Write),
    ("Objects.Pin", Role::Write),
    ("Objects.Unpin", Role::Write),
    ("Objects.Link", Role::Read),
    ("Objects.Publish", Role::Write),
    ("Objects.Collect", Role::Admin),
    ("Trees.Add", Role::Write),
    ("Trees.Fetch", Role::Write),
    ("Trees.List", Role::Read),
    ("Network.Providers", Role::Read),
    ("Network.Peers", Role::Read),
    ("Network.Connect", Role::Admin),
    ("Network.Search", Role::Read),
    ("Network.AnnounceStatus", Role::Read),
    ("Jobs.Begin", Role::Write),
    ("Jobs.List", Role::Read),
    ("Jobs.Cancel", Role::Write),
    ("Jobs.SetPriority", Role::Write),
    ("Jobs.Explain", Role::Read),
    ("Node.Status", Role::Read),
    ("Node.Verify", Role::Admin),
    ("Node.SetScrub", Role::Admin),
    ("Node.Limits", Role::Read),
    ("Node.SetLimits", Role::Admin),
    ("Node.Doctor", Role::Read),
];

/// The services' sources.
const SOURCES: &[(&str, &str)] = &[
    ("Objects", include_str!("../objects.rs")),
    ("Trees", include_str!("../trees.rs")),
    ("Network", include_str!("../network.rs")),
    ("Jobs", include_str!("../jobs.rs")),
    ("Node", include_str!("../node.rs")),
];

// As much of `google/protobuf/descriptor.proto` as is needed here.

#[derive(Clone, PartialEq, Message)]
struct FileSet {
    #[prost(message, repeated, tag = "1")]
    files: Vec<File>,
}

#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(message, repeated, tag = "6")]
    services: Vec<Service>,
    #[prost(message, optional, tag = "9")]
    source: Option<Source>,
}

#[derive(Clone, PartialEq, Message)]
struct Service {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    methods: Vec<Method>,
}

#[derive(Clone, PartialEq, Message)]
struct Method {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct Source {
    #[prost(message, repeated, tag = "1")]
    locations: Vec<Location>,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(int32, repeated, tag = "1")]
    path: Vec<i32>,
    #[prost(string, tag = "3")]
    comment: String,
}

/// Each call as `Service.Call`, with its comment on one line.
fn calls() -> Vec<(String, String)> {
    let mut calls = Vec::new();
    for file in FileSet::decode(casd_proto::FILE_DESCRIPTOR_SET).unwrap().files {
        let locations = file.source.unwrap_or_default().locations;
        for (at, service) in (0..).zip(&file.services) {
            for (number, method) in (0..).zip(&service.methods) {
                let here = locations.iter().find(|location| location.path == [6, at, 2, number]);
                let comment = here.map(|location| location.comment.clone()).unwrap_or_default();
                let words: Vec<_> = comment.split_whitespace().collect();
                calls.push((format!("{}.{}", service.name, method.name), words.join(" ")));
            }
        }
    }
    calls
}

/// The first line of the handler of a call.
fn first_line(call: &str) -> String {
    let (service, call) = call.split_once('.').unwrap();
    let (_, source) = SOURCES.iter().find(|(name, _)| *name == service).unwrap();
    let mut name = String::new();
    for c in call.chars() {
        if c.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_lowercase());
    }
    let (_, handler) = source.split_once(&format!("async fn {name}(")).unwrap();
    let (_, body) = handler.split_once("Status> {\n").unwrap();
    body.lines().next().unwrap().trim().to_owned()
}

#[test]
fn every_call_has_its_role_in_the_table_the_proto_file_and_the_handler() {
    let calls = calls();
    assert_eq!(calls.len(), ROLES.len(), "a call without a role, or a role without a call");
    for (call, comment) in calls {
        let role = ROLES.iter().find(|(name, _)| *name == call).map(|(_, role)| role);
        let Some(role) = role else { panic!("{call} has no role: put it into the table") };
        let said = format!("Role: {}.", format!("{role:?}").to_lowercase());
        assert!(comment.contains(&said), "the comment of {call} does not say {said:?}: {comment}");
        let asks = format!("self.0.access.admit(&request, Role::{role:?})?;");
        let line = first_line(&call);
        assert!(line.ends_with(&asks), "{call} does not begin with {asks}: {line}");
    }
}
