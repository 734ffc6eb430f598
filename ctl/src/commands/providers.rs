//! `casctl providers`: asks the network who holds an object or a chunk.

use casd_proto::Reason;
use casd_proto::v1::{LinkRequest, ProvidersRequest, ProvidersResponse};
use serde_json::json;

use super::Session;
use crate::args::Providers;
use crate::error::{Exit, Failure};
use crate::output::Line;
use crate::output::text::escaped;

/// Asks; see [`Providers`]. Holders are printed as they are found.
pub(super) async fn run(session: &Session, args: Providers) -> Result<Exit, Failure> {
    let request = ProvidersRequest { id: args.id.as_str().to_owned(), timeout_ms: 0 };
    let mut found = session.network().providers(request).await?.into_inner();
    let mut any = false;
    while let Some(provider) = found.message().await? {
        any = true;
        session.output.result(&line(&provider))?;
    }
    if any {
        return Ok(Exit::Done);
    }
    let here = if is_here(session, args.id.as_str()).await { "; this node holds it" } else { "" };
    let message = format!("{}: nobody else in the network says to hold it{here}", args.id.as_str());
    Err(Failure::known(Reason::NoProviders, message))
}

/// Whether it is in this node's store. A link is made of what is there, and without asking anybody.
async fn is_here(session: &Session, id: &str) -> bool {
    session.objects().link(LinkRequest { object: id.to_owned() }).await.is_ok()
}

fn line(provider: &ProvidersResponse) -> Line {
    let id = escaped(&provider.peer_id);
    Line {
        human: format!("{id}  {}", escaped(&provider.addresses.join(" "))).trim_end().to_owned(),
        bare: id,
        json: json!({ "peer_id": provider.peer_id, "addresses": provider.addresses }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_its_documented_keys() {
        let provider =
            ProvidersResponse { peer_id: "12D3".into(), addresses: vec!["a".into(), "b\n".into()] };
        assert_eq!(line(&provider).json, json!({ "peer_id": "12D3", "addresses": ["a", "b\n"] }));
        assert_eq!(line(&provider).human, "12D3  a b\\n");
    }
}
