//! `casctl link`: prints the link by which others fetch an object.

use casd_proto::v1::{LinkRequest, LinkResponse, StatRequest};
use serde_json::json;

use super::{Session, keeps_to_itself};
use crate::args::Object;
use crate::error::{Exit, Failure};
use crate::output::Line;
use crate::output::text::escaped;

/// What is told where nobody is known to reach this node.
const UNREACHED: &str = "nobody from beyond its own network is known to reach this node where the link says that it is, so \
                         the link may be of no use elsewhere; `casctl doctor` says what to do";

/// What is told where a link says nowhere to fetch it from.
const NOWHERE: &str = "this machine has no address that others could use, so the link names none and finds only what \
                       others hold as well; make it anew once there is a network";

/// Prints; see [`Object`].
pub(super) async fn run(session: &Session, args: Object) -> Result<Exit, Failure> {
    let request = LinkRequest { object: args.object.clone() };
    let LinkResponse { link, unreached } = session.objects().link(request).await?.into_inner();
    let shown = escaped(&link);
    let json = json!({ "link": link, "unreached": unreached });
    session.output.result(&Line { human: shown.clone(), bare: shown, json })?;
    let is_nowhere = !link.contains(",peer=");
    let said = is_nowhere.then_some(NOWHERE).or(unreached.then_some(UNREACHED));
    if let Some(words) = useless(session, args.object).await.or(said) {
        session.output.note(words);
    }
    Ok(Exit::Done)
}

/// Why nobody could fetch from this node by the link. Where that cannot be learnt nothing is told: the link is made.
async fn useless(session: &Session, object: String) -> Option<&'static str> {
    if keeps_to_itself(session).await {
        return Some(
            "nobody can fetch it from this node: the daemon is a client, which gives and announces nothing \
             (network.mode); whoever has the link finds it where others hold it",
        );
    }
    let stat = session.objects().stat(StatRequest { object }).await;
    stat.is_ok_and(|stat| stat.get_ref().private).then_some(
        "nobody can fetch it from this node: it is private, which is never announced or given to others; to share it, \
         `casctl rm` it and add it without --private",
    )
}
