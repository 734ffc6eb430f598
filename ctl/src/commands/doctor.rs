//! `casctl doctor`: says what is wrong with the daemon's state folder and disk; without a daemon, what can be seen from
//! outside.

use std::path::Path;

use casd_proto::client;
use casd_proto::v1::{Check, CheckLevel, DoctorRequest};
use serde_json::json;

use crate::args::Doctor;
use crate::error::{Exit, Failure};
use crate::output::text::escaped;
use crate::output::{Line, Output};
use crate::{folder, socket};

/// Looks; see [`Doctor`].
pub(super) async fn run(output: Output, socket: Option<&Path>, args: &Doctor) -> Result<Exit, Failure> {
    let checks = match socket::connect(socket).await {
        Ok((channel, _)) => {
            let mut checks = vec![check("daemon", CheckLevel::Ok, "it answers", "")];
            let found = client::node(channel).doctor(DoctorRequest {}).await?.into_inner();
            checks.extend(found.checks);
            checks
        }
        Err(failure) if failure.exit == Exit::NoDaemon => {
            let (what, advice) = failure.words();
            let mut checks = vec![check("daemon", CheckLevel::Fail, what, advice)];
            checks.extend(folder::look(args.state_dir.as_deref()));
            checks
        }
        Err(failure) => return Err(failure),
    };
    let lines: Vec<Line> = checks.iter().map(line).collect();
    output.results(&lines)?;
    let fails = checks.iter().any(|check| check.level() == CheckLevel::Fail);
    Ok(if fails { Exit::Damage } else { Exit::Done })
}

/// A check that casctl does itself.
pub(crate) fn check(
    name: &str,
    level: CheckLevel,
    what: impl Into<String>,
    advice: impl Into<String>,
) -> Check {
    let (what, advice) = (what.into(), advice.into());
    Check { name: name.to_owned(), level: level.into(), what, advice, ..Check::default() }
}

fn line(check: &Check) -> Line {
    let level = match check.level() {
        CheckLevel::Ok => "ok",
        // What a later daemon says and this casctl does not know is worth a look.
        CheckLevel::Warn | CheckLevel::Unspecified => "warn",
        CheckLevel::Fail => "fail",
    };
    let advice =
        if check.advice.is_empty() { String::new() } else { format!("; {}", escaped(&check.advice)) };
    let name = escaped(&check.name);
    Line {
        human: format!("{level:4}  {name:10}  {}{advice}", escaped(&check.what)),
        bare: if level == "ok" { String::new() } else { format!("{level} {name}") },
        json: json!({
            "check": check.name,
            "level": level,
            "what": check.what,
            "advice": (!check.advice.is_empty()).then_some(&check.advice),
            "numbers": (!check.numbers.is_empty()).then_some(&check.numbers),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_a_line_with_its_documented_keys() {
        let mut bad = check("holes", CheckLevel::Fail, "none\u{1b}", "use ext4");
        bad.numbers.insert("free_bytes".to_owned(), 5);
        let bad = line(&bad);
        assert_eq!(bad.human, "fail  holes       none\\u{1b}; use ext4");
        let expected = json!({
            "check": "holes", "level": "fail", "what": "none\u{1b}", "advice": "use ext4",
            "numbers": { "free_bytes": 5 },
        });
        assert_eq!((bad.json, bad.bare.as_str()), (expected, "fail holes"));
        let good = line(&check("sync", CheckLevel::Ok, "it works", ""));
        assert_eq!((good.human.as_str(), good.bare.as_str()), ("ok    sync        it works", ""));
        assert!(good.json["advice"].is_null() && good.json["numbers"].is_null());
    }
}
