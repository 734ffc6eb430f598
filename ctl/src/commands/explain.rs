//! `casctl explain`: says why an object is here or not, and whom those who bring it have asked.

use casd_proto::v1::{AskedPeer, Bringing, ExplainRequest, ExplainResponse};
use serde_json::{Value, json};

use super::{Session, jobs};
use crate::args::Explain;
use crate::error::{Exit, Failure};
use crate::output::Line;
use crate::output::text::{count, escaped, size};

/// Explains; see [`Explain`].
pub(super) async fn run(session: &Session, args: Explain) -> Result<Exit, Failure> {
    let request = ExplainRequest { object: args.object };
    let explained = session.jobs().explain(request).await?.into_inner();
    session.output.result(&line(&explained))?;
    Ok(Exit::Done)
}

fn line(explained: &ExplainResponse) -> Line {
    let id = escaped(&explained.id);
    let mut lines = vec![format!("{id}  {}", here(explained))];
    if explained.bringing.is_empty() && !explained.complete {
        lines.push(
            "nobody fetches it here; `casctl fetch ID` does, `--detach` without waiting for it".to_owned(),
        );
    }
    lines.extend(explained.bringing.iter().flat_map(of_one));
    Line { human: lines.join("\n"), bare: id, json: json(explained) }
}

/// How much of it is here.
fn here(explained: &ExplainResponse) -> String {
    let ExplainResponse { complete, local_chunks, chunks, size: length, bringing, .. } = explained;
    let mut jobs = bringing.iter().filter_map(|bringing| bringing.job.as_ref());
    if let Some(job) = jobs.find(|job| job.files > 0) {
        // What else is known of a directory is its list.
        return format!("{} of {} are here", job.local_files, count(job.files, "file"));
    }
    match *chunks {
        _ if *complete => format!("all of it is here, {}", size(*length)),
        0 => "nothing of it is here".to_owned(),
        chunks => format!("{local_chunks} of {} are here", count(chunks, "chunk")),
    }
}

/// Who brings it, whom that one asked, and what those said.
fn of_one(bringing: &Bringing) -> Vec<String> {
    let what = match &bringing.job {
        Some(job) => format!("job {}: {}", job.number, jobs::words(job)),
        None => format!("a fetch of uid {}, whose caller waits", bringing.uid),
    };
    let mut lines = vec![escaped(&what)];
    let error = bringing.job.as_ref().map(|job| &job.error).filter(|error| !error.is_empty());
    lines.extend(error.map(|error| format!("  {}", escaped(error))));
    if bringing.missing_chunks > 0 {
        let unit = bringing.job.as_ref().map_or("chunk", jobs::unit);
        let (missing, unheld) = (count(bringing.missing_chunks, unit), bringing.unheld_chunks);
        let held =
            if unheld == 0 { String::new() } else { format!(", {unheld} of them held by nobody asked") };
        lines.push(format!("  missing: {missing}{held}"));
    }
    if bringing.asked.is_empty() {
        lines.push("  nobody has been found to ask".to_owned());
    }
    lines.extend(bringing.asked.iter().map(asked));
    lines
}

fn asked(peer: &AskedPeer) -> String {
    let gave = if peer.bytes == 0 { String::new() } else { format!("; gave {}", size(peer.bytes)) };
    format!("  {}: {}{gave}", escaped(&peer.peer_id), escaped(&peer.said))
}

fn json(explained: &ExplainResponse) -> Value {
    let known = explained.chunks > 0;
    let bringing: Vec<_> = explained.bringing.iter().map(json_of_one).collect();
    json!({
        "id": explained.id,
        "complete": explained.complete,
        "size": known.then_some(explained.size),
        "chunks": known.then_some(explained.chunks),
        "local_chunks": explained.local_chunks,
        "bringing": bringing,
    })
}

fn json_of_one(bringing: &Bringing) -> Value {
    let asked = |peer: &AskedPeer| {
        json!({
            "peer_id": peer.peer_id,
            "connected": peer.connected,
            "bytes": peer.bytes,
            "chunks": peer.chunks,
            "said": peer.said,
        })
    };
    json!({
        "uid": bringing.uid,
        "job": bringing.job.as_ref().map(jobs::json),
        "missing_chunks": bringing.missing_chunks,
        "unheld_chunks": bringing.unheld_chunks,
        "asked": bringing.asked.iter().map(asked).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use casd_proto::v1::{Job, JobState};

    #[test]
    fn who_was_asked_and_what_they_said_is_told() {
        let peer = |id: &str, bytes, said: &str| AskedPeer {
            peer_id: id.to_owned(),
            bytes,
            said: said.to_owned(),
            ..AskedPeer::default()
        };
        let job = Job {
            number: 3,
            state: JobState::Waiting.into(),
            why: "no holder of 3 chunks".to_owned(),
            error: "nothing arrived for 60 s\n".to_owned(),
            ..Job::default()
        };
        let bringing = Bringing {
            uid: 0,
            job: Some(job),
            missing_chunks: 5,
            unheld_chunks: 3,
            asked: vec![peer("12D3", 5 << 20, "it has 7 of 12 chunks"), peer("12D4", 0, "refused\u{1b}")],
        };
        let explained = ExplainResponse {
            id: "ab".to_owned(),
            size: 12 << 20,
            chunks: 12,
            local_chunks: 7,
            bringing: vec![bringing],
            ..ExplainResponse::default()
        };
        let told = line(&explained);
        let expected = [
            "ab  7 of 12 chunks are here",
            "job 3: waiting: no holder of 3 chunks",
            "  nothing arrived for 60 s\\n",
            "  missing: 5 chunks, 3 of them held by nobody asked",
            "  12D3: it has 7 of 12 chunks; gave 5.0 MiB",
            "  12D4: refused\\u{1b}",
        ];
        assert_eq!(told.human, expected.join("\n"));
        assert_eq!(told.json["bringing"][0]["asked"][1]["said"], "refused\u{1b}");
        assert_eq!((&told.json["size"], &told.json["complete"]), (&json!(12 << 20), &json!(false)));
        let nobody = line(&ExplainResponse { id: "ab".to_owned(), ..ExplainResponse::default() });
        assert!(
            nobody.human.starts_with("ab  nothing of it is here\nnobody fetches it here"),
            "{}",
            nobody.human
        );
        assert_eq!(nobody.json["size"], Value::Null);
        let job = Job { directory: true, files: 9, local_files: 5, ..Job::default() };
        let bringing = vec![Bringing { job: Some(job), missing_chunks: 4, ..Bringing::default() }];
        let folder = line(&ExplainResponse { id: "ab".to_owned(), bringing, ..ExplainResponse::default() });
        assert!(folder.human.starts_with("ab  5 of 9 files are here\n"), "{}", folder.human);
        assert!(folder.human.contains("  missing: 4 files\n"), "{}", folder.human);
    }
}
