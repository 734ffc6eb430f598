//! What the doctor says of whether this node is alone, in words for people.

use super::Check;
use crate::peer::Company;
use crate::store::Level;

/// Configured addresses that are named at most.
const NAMED: usize = 4;

/// What to do where all that are known only ask: nodes behind routers, and clients.
const UNSERVED: &str = "nothing can be looked up or announced until one is known that keeps records for others; those \
    on this host's own networks are asked for some again and again. `casctl connect ADDR`, or network.bootstrap, names \
    one: `casctl status` on a node that others can connect to shows its addresses";

/// What is known, and what to do. `sessions`: those that are open at chunk ports, which make no company.
pub(super) fn check(company: &Company, sessions: usize) -> Check {
    let (level, what, advice) = if company.is_alone {
        let what = alone(company) + at_chunk_ports(sessions);
        (Level::Warn, what, if sessions > 0 && company.known == 0 { BY_DHT } else { advice(company) })
    } else if company.is_unserved {
        let what = format!("{}; this node is connected only to nodes that keep no records", counts(company));
        (Level::Warn, what, UNSERVED)
    } else {
        (Level::Ok, counts(company), "")
    };
    Check {
        name: "peers",
        level,
        what,
        advice: advice.to_owned(),
        numbers: vec![
            ("connected", company.connected as u64),
            ("known", company.known as u64),
            ("failed", company.failed.len() as u64),
        ],
    }
}

/// What is said of sessions at chunk ports of a node that is alone.
fn at_chunk_ports(sessions: usize) -> &'static str {
    if sessions == 0 {
        return "";
    }
    "; it is connected to chunk ports only, by which nobody is found and nothing is announced"
}

/// What to do where there are only those.
const BY_DHT: &str = "to join the network use one of the `dht at` addresses that `casctl status` shows on such a node: \
                      `casctl connect ADDR`";

fn counts(company: &Company) -> String {
    format!("{} connected, {} known", company.connected, company.known)
}

fn alone(company: &Company) -> String {
    let whom = match company.known {
        0 => "this node knows nobody".to_owned(),
        1 if company.refused.is_some() => {
            "this node is connected to nobody, and the one node that it knows is none to join by".to_owned()
        }
        1 => "this node is connected to nobody, and the one node that it knows does not answer".to_owned(),
        known => format!("this node is connected to nobody, and of {known} nodes that it knows none answers"),
    };
    let failed = match company.failed.len() {
        0 => company.refused.as_ref().map_or_else(String::new, |(peer, why)| format!("; {peer}: {why}")),
        1 => format!("; a bootstrap address failed: {}", named(company)),
        count => format!("; {count} bootstrap addresses failed: {}", named(company)),
    };
    let next =
        company.next_try.map_or_else(String::new, |wait| format!("; next try in {} s", wait.as_secs()));
    [whom, failed, next].concat()
}

fn named(company: &Company) -> String {
    let named = company.failed.iter().take(NAMED).map(|(address, why)| format!("{address}: {why}"));
    let mut named: Vec<_> = named.collect();
    if company.failed.len() > NAMED {
        named.push("…".to_owned());
    }
    named.join(", ")
}

fn advice(company: &Company) -> &'static str {
    let is_other = |(_, why): &(_, String)| why.contains("another node is ");
    match (company.known, company.configured) {
        _ if !company.failed.is_empty() && company.failed.iter().all(is_other) => {
            "the ids in network.bootstrap are not those of the nodes there; `casctl status` on a node shows both as \
             \"dht at\""
        }
        // Whoever refuses is there, and no firewall in between.
        _ if company.refused.is_some() => {
            "compare network.key_file and network.name of this node with those of the others: they must be the same, and \
             a change of them takes a restart; `casctl connect ADDR` tries an address at once"
        }
        (0, 0) => {
            "connect to a node of the network with `casctl connect ADDR`, or name some in network.bootstrap; `casctl \
             status` on such a node shows its addresses. Nodes on the same local network find each other by \
             themselves, unless network.lan_discovery is off or listen.dht names loopback only"
        }
        _ => {
            "see whether this host is online, whether casd runs there, and whether a firewall lets UDP and TCP through; \
             `casctl connect ADDR` tries an address at once"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::PeerId;
    use std::time::Duration;

    #[test]
    fn who_is_alone_is_told_why_and_who_is_idle_is_not() {
        let idle = check(&Company { known: 3, ..Company::default() }, 0);
        assert!(idle.level == Level::Ok && idle.what == "0 connected, 3 known", "{}", idle.what);
        let mut company = Company { is_alone: true, ..Company::default() };
        let nobody = check(&company, 0);
        assert!(nobody.level == Level::Warn && nobody.what == "this node knows nobody", "{}", nobody.what);
        assert!(nobody.advice.contains("casctl connect") && nobody.advice.contains("network.bootstrap"));
        let failed = ("/dns4/seed.example/tcp/8468".parse().unwrap(), "no such host".to_owned());
        company = Company {
            configured: 6,
            failed: vec![failed; 6],
            next_try: Some(Duration::from_secs(12)),
            ..company
        };
        let all = check(&company, 0);
        assert!(
            all.what.starts_with("this node knows nobody; 6 bootstrap addresses failed: /dns4/seed"),
            "{}",
            all.what
        );
        assert_eq!(all.what.matches("no such host").count(), NAMED);
        assert!(all.what.ends_with("…; next try in 12 s") && all.advice.contains("firewall"), "{}", all.what);
        let session = check(&Company { is_alone: true, ..Company::default() }, 1);
        let said = &session.what;
        assert!(said.starts_with("this node knows nobody; it is connected to chunk ports"), "{said}");
        assert!(session.level == Level::Warn && session.advice.contains("`dht at`"), "{}", session.advice);
        let other = ("/ip4/192.0.2.7/tcp/8468".parse().unwrap(), "another node is there: 12D4".to_owned());
        let only = Company { connected: 1, known: 1, is_unserved: true, ..Company::default() };
        let only = check(&only, 0);
        assert!(only.level == Level::Warn && only.advice.contains("network.bootstrap"), "{}", only.advice);
        let what = "1 connected, 1 known; this node is connected only to nodes that keep no records";
        assert_eq!(only.what, what);
        company.known = 5;
        assert!(check(&company, 0).what.contains("of 5 nodes that it knows none answers"));
        company.refused = Some((PeerId::random(), "it has another key".to_owned()));
        let keys = check(&company, 0);
        assert!(keys.advice.contains("key_file") && !keys.advice.contains("firewall"), "{}", keys.advice);
        (company.known, company.failed) = (1, Vec::new());
        let one = check(&company, 0).what;
        assert!(one.contains("is none to join by; ") && one.contains(": it has another key"), "{one}");
        company.failed = vec![other];
        let wrong = check(&company, 0);
        assert!(wrong.advice.starts_with("the ids in network.bootstrap"), "{}", wrong.advice);
    }
}
