//! `casctl limits`: how much may move at once, shown and changed.

use std::fmt::Write;

use casd_proto::v1::{LimitsRequest, LimitsResponse, SetLimitsRequest, SetLimitsResponse, TransferLimits};
use serde_json::{Value, json};

use super::{Session, broken};
use crate::args::Limits;
use crate::error::{Exit, Failure};
use crate::output::Line;
use crate::output::text::size;

/// What is told of a change.
const FLEETING: &str =
    "this holds until casd is restarted or reloads its settings; to keep it, write it there, in [transfer]";

/// Rates, by their keys.
const RATES: [&str; 7] = ["upload", "download", "upload_per_peer", "serve", "announce", "fetch", "repair"];

/// What a rate may end in, and how many bytes that is: as in the daemon's settings.
const UNITS: [(&str, u64); 9] = [
    ("", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// One limit that is to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// One of the rates, in bytes a second.
    Rate(&'static str, u64),
    /// `upload_slots`
    Slots(u32),
    /// `yielding`
    Yielding(bool),
}

/// Reads `KEY=VALUE`.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn change(text: &str) -> Result<Change, String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, such as upload=10MiB")?;
    match key {
        "upload_slots" => {
            let slots = value.parse::<u32>().ok().filter(|slots| (1..=4096).contains(slots));
            slots.map(Change::Slots).ok_or_else(|| "upload_slots is 1 to 4096".to_owned())
        }
        "yielding" => value.parse().map(Change::Yielding).map_err(|_| "yielding is true or false".to_owned()),
        _ => {
            let known = RATES.into_iter().find(|rate| *rate == key);
            let keys = || {
                format!("there is no such limit; there are {}, upload_slots and yielding", RATES.join(", "))
            };
            let key = known.ok_or_else(keys)?;
            let wrong = || format!("{key} is bytes a second, such as 10MiB or 500kB, or 0 for no limit");
            Ok(Change::Rate(key, rate(value).ok_or_else(wrong)?))
        }
    }
}

/// A whole number and a unit.
fn rate(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = UNITS.into_iter().find(|(name, _)| *name == unit.trim_start_matches(' '))?;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// Shows or changes; see [`Limits`].
pub(super) async fn run(session: &Session, args: Limits) -> Result<Exit, Failure> {
    let (now, configured) = if args.changes.is_empty() {
        let shown = session.node().limits(LimitsRequest {}).await?.into_inner();
        let LimitsResponse { now, configured } = shown;
        (now, configured)
    } else {
        let changed = session.node().set_limits(request(&args.changes)).await?.into_inner();
        let SetLimitsResponse { now, configured } = changed;
        (now, configured)
    };
    let (Some(now), Some(configured)) = (now, configured) else {
        return Err(broken("does not say what the limits are"));
    };
    session.output.result(&line(&now, &configured))?;
    if now != configured {
        session.output.note(FLEETING);
    }
    Ok(Exit::Done)
}

/// The last word counts where a key is named twice.
fn request(changes: &[Change]) -> SetLimitsRequest {
    let mut request = SetLimitsRequest::default();
    for change in changes {
        match *change {
            Change::Slots(slots) => request.upload_slots = Some(slots),
            Change::Yielding(yielding) => request.yielding = Some(yielding),
            Change::Rate(key, rate) => {
                let of_key = match key {
                    "upload" => &mut request.upload,
                    "download" => &mut request.download,
                    "upload_per_peer" => &mut request.upload_per_peer,
                    "serve" => &mut request.serve,
                    "announce" => &mut request.announce,
                    "fetch" => &mut request.fetch,
                    _ => &mut request.repair,
                };
                *of_key = Some(rate);
            }
        }
    }
    request
}

/// The rates, in the order of [`RATES`].
fn rates(limits: &TransferLimits) -> [u64; 7] {
    let TransferLimits { upload, download, upload_per_peer, serve, announce, fetch, repair, .. } = *limits;
    [upload, download, upload_per_peer, serve, announce, fetch, repair]
}

/// Each limit by its key: for people, and as it is typed.
fn all(limits: &TransferLimits) -> Vec<(&'static str, String, String)> {
    let words = |rate: u64| if rate == 0 { "no limit".to_owned() } else { format!("{}/s", size(rate)) };
    let rates = RATES.into_iter().zip(rates(limits));
    let mut all: Vec<_> = rates.map(|(key, rate)| (key, words(rate), rate.to_string())).collect();
    let (slots, yielding) = (limits.upload_slots.to_string(), limits.yielding.to_string());
    all.push(("upload_slots", slots.clone(), slots));
    all.push(("yielding", yielding.clone(), yielding));
    all
}

fn line(now: &TransferLimits, configured: &TransferLimits) -> Line {
    let (mut human, mut bare) = (Vec::new(), Vec::new());
    for ((key, words, typed), (_, before, _)) in all(now).into_iter().zip(all(configured)) {
        let mut row = format!("{key:<17}{words}");
        if words != before {
            // A String takes whatever is written.
            let _ = write!(row, "  (in the settings: {before})");
        }
        human.push(row);
        bare.push(format!("{key}={typed}"));
    }
    let mut json = object(now);
    json["configured"] = object(configured);
    Line { human: human.join("\n"), bare: bare.join("\n"), json }
}

fn object(limits: &TransferLimits) -> Value {
    let mut object = json!({ "upload_slots": limits.upload_slots, "yielding": limits.yielding });
    for (key, rate) in RATES.into_iter().zip(rates(limits)) {
        object[key] = rate.into();
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_keys_with_values() {
        assert_eq!(change("upload=10MiB"), Ok(Change::Rate("upload", 10 << 20)));
        assert_eq!(change("repair=500 kB"), Ok(Change::Rate("repair", 500_000)));
        assert_eq!(change("fetch=0"), Ok(Change::Rate("fetch", 0)));
        assert_eq!(change("upload_slots=4096"), Ok(Change::Slots(4096)));
        assert_eq!(change("yielding=true"), Ok(Change::Yielding(true)));
        for wrong in [
            "",
            "upload",
            "=1",
            "uplod=1",
            "upload=",
            "upload=-1",
            "upload=1.5MiB",
            "upload=fast",
            "upload=99999999TiB",
            "upload_slots=0",
            "upload_slots=4097",
            "yielding=yes",
        ] {
            assert!(change(wrong).is_err(), "{wrong}");
        }
        assert!(change("uplod=1").unwrap_err().contains("upload_per_peer"));
    }

    #[test]
    fn every_key_goes_where_it_belongs_and_is_shown() {
        let changes: Vec<_> =
            (1..).zip(RATES).map(|(number, key)| change(&format!("{key}={number}")).unwrap()).collect();
        let request = request(&[changes, vec![Change::Rate("upload", 9), Change::Slots(3)]].concat());
        let asked = [
            request.upload,
            request.download,
            request.upload_per_peer,
            request.serve,
            request.announce,
            request.fetch,
            request.repair,
        ];
        assert_eq!(asked, [9, 2, 3, 4, 5, 6, 7].map(Some));
        assert_eq!((request.upload_slots, request.yielding), (Some(3), None));
        let configured = TransferLimits { upload_slots: 32, ..TransferLimits::default() };
        let now = TransferLimits { upload: 10 << 20, repair: 2048, ..configured };
        let line = line(&now, &configured);
        assert!(
            line.human.contains("upload           10.0 MiB/s  (in the settings: no limit)"),
            "{}",
            line.human
        );
        assert!(line.human.contains("upload_slots     32\n"), "{}", line.human);
        assert!(line.bare.starts_with("upload=10485760\ndownload=0\n"), "{}", line.bare);
        // What is printed can be typed.
        assert!(line.bare.lines().all(|typed| change(typed).is_ok()));
        assert_eq!((&line.json["repair"], &line.json["configured"]["repair"]), (&json!(2048), &json!(0)));
    }
}
