//! Machines on one segment of a network: network namespaces with an interface each, joined by a cable or a switch.
//!
//! Owns: the namespaces, the cable and the switch. Refuses: any way out of them. They have no names and belong to
//! processes that wait for the test to end, so that nothing is left of them however it ends. Only root can make them.

use std::process::{Child, Command, Stdio};

use crate::wait::{self, LONG};

/// Machines that see each other and nobody else. Whatever runs on them must be gone before they are dropped.
#[derive(Debug)]
pub struct Machines {
    /// Each keeps a namespace; after those of the machines comes that of their switch, where they have one.
    keepers: Vec<Child>,
}

impl Machines {
    /// Two machines whose interfaces have these addresses, such as `10.0.0.1/24`, and no others. `None`: this user, or
    /// this machine, cannot.
    #[must_use]
    pub fn two(addresses: [&str; 2]) -> Option<Self> {
        let two = Self { keepers: vec![keeper()?, keeper()?] };
        let (one, other) = (two.id(0), two.id(1));
        let cable = ["link", "add", "name", "eth0", "netns", &one, "type", "veth", "peer", "name", "eth0"];
        let cable = Command::new("ip").args(cable).args(["netns", &other]).output();
        cable.is_ok_and(|done| done.status.success()).then_some(())?;
        for (number, address) in addresses.into_iter().enumerate() {
            two.begin(number, address);
        }
        Some(two)
    }

    /// As many machines as there are addresses, joined by a switch.
    #[must_use]
    pub fn many(addresses: &[String]) -> Option<Self> {
        let keepers = (0..=addresses.len()).map(|_| keeper()).collect::<Option<_>>()?;
        let (many, switch) = (Self { keepers }, addresses.len());
        let on = many.on(switch);
        let bridge = ["ip", "link", "add", "name", "br0", "type", "bridge"];
        let made = Command::new(&on[0]).args(&on[1..]).args(bridge).output();
        made.is_ok_and(|done| done.status.success()).then_some(())?;
        many.ip(switch, &["link", "set", "dev", "br0", "up"]);
        for (number, address) in addresses.iter().enumerate() {
            let (port, id) = (format!("port{number}"), many.id(number));
            let cable = ["link", "add", "name", &port, "type", "veth", "peer", "name", "eth0", "netns", &id];
            many.ip(switch, &cable);
            many.ip(switch, &["link", "set", "dev", &port, "master", "br0"]);
            many.ip(switch, &["link", "set", "dev", &port, "up"]);
            many.begin(number, address);
        }
        Some(many)
    }

    /// Gives a machine its address and sets its interfaces to work.
    fn begin(&self, number: usize, address: &str) {
        // Without addresses that the kernel makes itself, of IPv6.
        self.ip(number, &["link", "set", "dev", "eth0", "addrgenmode", "none"]);
        self.ip(number, &["link", "set", "dev", "lo", "up"]);
        let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
        self.ip(number, &[&["address", "add", address, "dev", "eth0"], nodad].concat());
        self.ip(number, &["link", "set", "dev", "eth0", "up"]);
    }

    fn id(&self, number: usize) -> String {
        self.keepers[number].id().to_string()
    }

    /// What a command must begin with to run on the machine of this number, from 0.
    #[must_use]
    pub fn on(&self, number: usize) -> Vec<String> {
        ["nsenter", "--target", &self.id(number), "--net", "--"].map(str::to_owned).to_vec()
    }

    /// Runs `ip` on a machine.
    #[track_caller]
    pub fn ip(&self, number: usize, args: &[&str]) {
        let on = self.on(number);
        let done = Command::new(&on[0]).args(&on[1..]).arg("ip").args(args).output().unwrap();
        assert!(done.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for keeper in &mut self.keepers {
            // Both do nothing when it has ended.
            let _ = keeper.kill();
            let _ = keeper.wait();
        }
    }
}

/// A process in a new network namespace that ends with this one, when nobody can write to it any more.
fn keeper() -> Option<Child> {
    let mut command = Command::new("unshare");
    command.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let space = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
    let (ours, theirs) = (space("self")?, child.id().to_string());
    let is_apart = wait::until("a network namespace", LONG, || {
        if child.try_wait().unwrap().is_some() {
            return Some(false);
        }
        space(&theirs).filter(|theirs| *theirs != ours).map(|_| true)
    });
    is_apart.then_some(child)
}
