//! Limits as messages.

use casd_proto::v1;

use crate::node::{LimitsView, Rates};

/// The most peers that can be given chunks at once.
const MAX_SLOTS: u32 = 4096;

/// How much may move now, and as the settings have it.
pub(super) fn both(view: LimitsView) -> (Option<v1::TransferLimits>, Option<v1::TransferLimits>) {
    (Some(message(view.now)), Some(message(view.configured)))
}

fn message(rates: Rates) -> v1::TransferLimits {
    let Rates { upload, download, upload_per_peer, serve, announce, .. } = rates;
    let Rates { fetch, repair, upload_slots, yielding, .. } = rates;
    v1::TransferLimits {
        upload,
        download,
        upload_per_peer,
        serve,
        announce,
        fetch,
        repair,
        upload_slots,
        yielding,
    }
}

/// What a request leaves out stays as it is.
pub(super) fn change(rates: &mut Rates, to: v1::SetLimitsRequest) {
    rates.upload = to.upload.unwrap_or(rates.upload);
    rates.download = to.download.unwrap_or(rates.download);
    rates.upload_per_peer = to.upload_per_peer.unwrap_or(rates.upload_per_peer);
    rates.serve = to.serve.unwrap_or(rates.serve);
    rates.announce = to.announce.unwrap_or(rates.announce);
    rates.fetch = to.fetch.unwrap_or(rates.fetch);
    rates.repair = to.repair.unwrap_or(rates.repair);
    rates.upload_slots = to.upload_slots.map_or(rates.upload_slots, |slots| slots.clamp(1, MAX_SLOTS));
    rates.yielding = to.yielding.unwrap_or(rates.yielding);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_stays_and_the_rest_changes() {
        let mut rates = Rates { upload: 1, fetch: 2, ..Rates::default() };
        change(&mut rates, v1::SetLimitsRequest::default());
        assert_eq!(rates, Rates { upload: 1, fetch: 2, ..Rates::default() });
        let to = v1::SetLimitsRequest {
            upload: Some(0),
            download: Some(3),
            upload_per_peer: Some(4),
            serve: Some(5),
            announce: Some(6),
            repair: Some(7),
            upload_slots: Some(0),
            yielding: Some(true),
            ..v1::SetLimitsRequest::default()
        };
        change(&mut rates, to);
        let (upload, download, upload_per_peer) = (0, 3, 4);
        let (serve, announce, fetch, repair, upload_slots, yielding) = (5, 6, 2, 7, 1, true);
        let wanted = Rates {
            upload,
            download,
            upload_per_peer,
            serve,
            announce,
            fetch,
            repair,
            upload_slots,
            yielding,
        };
        assert_eq!(rates, wanted);
        let message = message(rates);
        assert_eq!((message.announce, message.upload_slots, message.yielding), (6, 1, true));
    }
}
