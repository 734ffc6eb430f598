//! Holders that others name and that are not reached: every verb says who they are and why, and none that nobody has
//! it.

use casd_tests::wait::{self, LONG};
use casd_tests::{Node, corpus, nodes};

#[test]
fn a_holder_that_has_stopped_is_named_by_all_verbs_with_why_it_is_not_reached() {
    let nodes = nodes::network(3, |_, settings| settings);
    let [_first, holder, asker] = <[Node; 3]>::try_from(nodes).unwrap();
    let file = holder.home.path("film.bin");
    let id = corpus::file(&file, 3, 100_000);
    holder.ctl().run(&["-q", "add", "--publish", "--wait-announced"]).arg(&file).done().ok();
    let (who, link) = (holder.id(), holder.ctl().text(&["link", &id]));
    assert_eq!(holder.daemon.stop(LONG).code(), Some(0));
    wait::until("it to be gone", LONG, || {
        asker.ctl().json(&["peers"]).iter().all(|peer| peer["peer_id"] != who.as_str()).then_some(())
    });

    // Others keep its word, and what it holds.
    assert!(asker.ctl().text(&["stat", &id]).contains(&who));
    assert!(asker.ctl().text(&["search", "film"]).contains(&who));
    let done = asker.ctl().run(&["providers", &id]).done();
    done.refused(&[4], &who);
    let said = &done.stderr;
    let known = "1 holder is known and was not reached";
    assert!(said.contains(known) && said.contains("by its own word"), "{said}");
    assert!(said.contains("refused") || said.contains("no answer"), "{said}");
    // Also when whoever asks names it, by its link.
    for (source, stall) in [(&id, "1s"), (&id, "20s"), (&link, "10s")] {
        let fetch = asker.ctl().run(&["fetch", source, "--stall", stall, "-o"]);
        let fetch = fetch.arg(asker.home.path("out")).done();
        fetch.refused(&[4], &who);
        let said = &fetch.stderr;
        assert!(said.contains("1 holder of") && said.contains("none could be reached"), "{said}");
    }
    // A program is told the same.
    let done = asker.ctl().run(&["--json", "providers", &id]).done();
    done.refused(&[4], "\"reason\":\"NO_PROVIDERS\"");
    assert!(done.stderr.contains(&who), "{}", done.stderr);
}

#[test]
fn who_fetches_a_chunk_by_its_id_is_told_that_it_may_be_one() {
    let nodes = nodes::network(2, |_, settings| settings);
    let (holder, asker) = (&nodes[0], &nodes[1]);
    let file = holder.home.path("film.bin");
    let id = corpus::file(&file, 4, 3 * corpus::MIB);
    holder.ctl().run(&["-q", "add", "--wait-announced"]).arg(&file).done().ok();
    let chunk = holder.ctl().data_chunks(&id).remove(1);
    wait::until("the chunk to be announced", LONG, || {
        asker.ctl().run(&["providers", &chunk]).done().status.success().then_some(())
    });
    let fetch = asker.ctl().run(&["fetch", &chunk, "--stall", "10s", "-o"]);
    fetch.arg(asker.home.path("out")).done().refused(&[4], "it may be the id of a chunk");
}

#[test]
fn who_may_have_mistyped_an_id_is_told_to_check_it() {
    let nodes = nodes::network(2, |_, settings| settings);
    let (ctl, nowhere) = (nodes[1].ctl(), corpus::id(b"nobody has this"));
    let fetch = ctl.run(&["fetch", &nowhere, "--stall", "2s", "-o"]).arg(nodes[1].home.path("out"));
    fetch.done().refused(&[4], "check the id");
    ctl.run(&["providers", &nowhere]).done().refused(&[4], "check the id");
}
