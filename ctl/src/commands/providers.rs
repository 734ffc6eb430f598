//! `casctl providers`: asks the network who holds an object or a chunk.

use std::time::SystemTime;

use casd_proto::Reason;
use casd_proto::v1::{LinkRequest, ProvidersRequest, ProvidersResponse};
use serde_json::json;

use super::Session;
use crate::args::Providers;
use crate::error::{Exit, Failure};
use crate::output::Line;
use crate::output::text::{escaped, span};

/// Those that were not reached and are told of in an error: more make it no clearer.
const TOLD: usize = 3;

/// What is told of one that answers through a relay only.
const RELAYED: &str = "it answers through a relay, which carries no files: a fetch has to connect to it directly, and \
                       what helps where that fails is `casctl connect ID@HOST:PORT` with a chunk port of it that this \
                       host can reach";

/// Asks; see [`Providers`]. Holders are printed as they are found; those that are only said to be some, and were not
/// reached, are told of beside them or, where there are no others, in the error.
pub(super) async fn run(session: &Session, args: Providers) -> Result<Exit, Failure> {
    let request = ProvidersRequest { id: args.id.as_str().to_owned(), timeout_ms: 0 };
    let mut found = session.network().providers(request).await?.into_inner();
    let (mut any, mut missed) = (false, Vec::new());
    while let Some(provider) = found.message().await? {
        if !provider.missed.is_empty() {
            missed.push(provider);
            continue;
        }
        any = true;
        session.output.result(&line(&provider))?;
        if is_relayed(&provider) {
            session.output.note(&format!("{}: {RELAYED}", escaped(&provider.peer_id)));
        }
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if any {
        missed.iter().for_each(|one| session.output.note(&format!("not reached: {}", words(one, now))));
        return Ok(Exit::Done);
    }
    let id = args.id.as_str();
    Err(nobody(id, &missed, is_here(session, id).await, now))
}

/// Whether nothing of a holder is known but a relay, and addresses at which it has not answered: who answers directly
/// has a chunk port, `ID@HOST:PORT`, wherever it gives something.
fn is_relayed(provider: &ProvidersResponse) -> bool {
    let addresses = &provider.addresses;
    addresses.iter().any(|at| at.contains("/p2p-circuit")) && !addresses.iter().any(|at| at.contains('@'))
}

/// Nobody else has it, as far as is known; `missed`: those that are said to, and were not reached.
fn nobody(id: &str, missed: &[ProvidersResponse], is_here: bool, now: u64) -> Failure {
    let here = if is_here { "; this node holds it" } else { "" };
    let Some(first) = missed.first() else {
        let message = format!("{id}: nobody else in the network says to hold it{here}");
        let failure = Failure::known(Reason::NoProviders, message);
        return if is_here { failure } else { failure.hint("check the id, or try again later") };
    };
    let told: Vec<_> = missed.iter().take(TOLD).map(|one| words(one, now)).collect();
    let more = match missed.len().saturating_sub(TOLD) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let count = match missed.len() {
        1 => "1 holder is known and was not reached".to_owned(),
        count => format!("{count} holders are known and none was reached"),
    };
    let message = format!("{id}: {count}{here}: {}{more}", told.join("; "));
    Failure::known(Reason::NoProviders, message).hint(first.advice.clone())
}

/// One that was not reached: whose word it is that it holds the object, where it is its own, and why.
fn words(missed: &ProvidersResponse, now: u64) -> String {
    let age = || span(now.saturating_sub(missed.described).saturating_mul(1_000));
    let word =
        if missed.described == 0 { String::new() } else { format!(" (by its own word of {} ago)", age()) };
    format!("{}{word}: {}", missed.peer_id, missed.missed)
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
        let addresses = vec!["a".into(), "b\n".into()];
        let provider =
            ProvidersResponse { peer_id: "12D3".into(), addresses, ..ProvidersResponse::default() };
        assert_eq!(line(&provider).json, json!({ "peer_id": "12D3", "addresses": ["a", "b\n"] }));
        assert_eq!(line(&provider).human, "12D3  a b\\n");
    }

    #[test]
    fn who_answers_through_a_relay_only_is_told_apart() {
        let at = |addresses: &[&str]| ProvidersResponse {
            addresses: addresses.iter().map(|at| (*at).to_owned()).collect(),
            ..ProvidersResponse::default()
        };
        let (relay, home) =
            ("/ip4/10.0.0.1/tcp/1/p2p/12D3/p2p-circuit/p2p/12D4", "/ip4/10.77.2.3/tcp/8468/p2p/12D4");
        assert!(is_relayed(&at(&[relay])) && is_relayed(&at(&[home, relay])));
        assert!(!is_relayed(&at(&["12D4@203.0.113.9:9000", relay])) && !is_relayed(&at(&[home])));
    }

    #[test]
    fn who_is_only_said_to_hold_it_is_told_of_with_why_and_what_to_do() {
        let missed = |peer: &str, described| ProvidersResponse {
            peer_id: peer.into(),
            missed: "refused".into(),
            advice: "try again later".into(),
            described,
            ..ProvidersResponse::default()
        };
        let now = 3 * 3_600 + 7;
        let text = |missed: &[ProvidersResponse], is_here| nobody("ab", missed, is_here, now).to_string();
        let only_here = "casctl: ab: nobody else in the network says to hold it; this node holds it";
        assert_eq!(text(&[], true), only_here);
        assert!(text(&[], false).ends_with("to hold it\n  check the id, or try again later"));
        let one = text(&[missed("12D3", 7)], false);
        let expected = "casctl: ab: 1 holder is known and was not reached: 12D3 (by its own word of 3 h 0 min ago): \
                        refused\n  try again later";
        assert_eq!(one, expected);
        let many: Vec<_> = (0..9).map(|number| missed(&format!("12D{number}"), 0)).collect();
        let many = text(&many, false);
        let expected = ": 9 holders are known and none was reached: 12D0: refused; 12D1: refused";
        assert!(many.contains(expected) && many.contains("; and 6 more\n"), "{many}");
        assert_eq!(nobody("ab", &[], false, 0).exit, Exit::NotFound);
    }
}
