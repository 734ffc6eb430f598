//! Another's Kademlia: py-libp2p joins casd's network under its protocol name, finds and is found.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use casd_tests::corpus;
use casd_tests::nodes::network;
use casd_tests::skip;
use casd_tests::wait::{self, LONG};

/// How to get what the client needs, from the top of the repository.
const CURE: &str =
    "python3 -m venv target/kademlia && target/kademlia/bin/pip install -r tests/python/kademlia.txt";

/// Ends with the test, however that ends.
struct Client(Child);

impl Drop for Client {
    fn drop(&mut self) {
        // Both do nothing when it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn another_kademlia_finds_what_casd_provides_and_provides_what_casd_finds() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = here.join("../target/kademlia/bin/python");
    let able = Command::new(&python).args(["-c", "import libp2p.kad_dht"]).output();
    if !able.is_ok_and(|done| done.status.success()) {
        return skip(&format!("no Python with py-libp2p; get one: {CURE}"));
    }
    let name = format!("test-{:016x}", rand::random::<u64>());
    let nodes = network(3, |_, settings| settings.text("network.name", &name));
    let file = nodes[2].home.path("file");
    let object = corpus::file(&file, 9, 100_000);
    nodes[2].ctl().run(&["add", "-q", "--wait-announced"]).arg(&file).done().ok();
    let key = blake3::hash(b"nobody has this, whoever says so").to_string();

    let mut begun = Command::new(python);
    begun.arg(here.join("python/kademlia.py")).args([&name, &object, &key]);
    begun.args(nodes[0].daemon.dht_addresses().into_iter().filter(|at| at.contains("/tcp/")));
    let log = std::fs::File::create(nodes[0].home.path("python.log")).unwrap();
    let begun = begun.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn();
    let mut client = Client(begun.unwrap());
    let said: Vec<String> = BufReader::new(client.0.stdout.take().expect("it is piped"))
        .lines()
        .map(|line| line.expect("text"))
        .take(2)
        .collect();
    let told = || std::fs::read_to_string(nodes[0].home.path("python.log")).unwrap_or_default();
    assert_eq!(said.len(), 2, "{said:?}: {}", told());
    assert_eq!(said[0], format!("provider {}", nodes[2].id()));
    let provider = said[1].strip_prefix("provides ").expect("its id");
    for node in &nodes {
        wait::until("the other's key to be found", LONG, || {
            let found = node.ctl().run(&["--json", "providers", &key]).done();
            found.text().contains(provider).then_some(())
        });
    }
}
