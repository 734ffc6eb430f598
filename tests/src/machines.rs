//! Machines on a network of their own: network namespaces with interfaces, joined by cables or a switch.
//!
//! Owns: the namespaces, the cables and the switch, and the rules of routers among them. Refuses: any way out of them.
//! They have no names and belong to processes that wait for the test to end, so that nothing is left of them however it
//! ends. Only root can make them.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use crate::wait::{self, LONG};

/// Machines that see each other and nobody else. Whatever runs on them must be gone before they are dropped.
#[derive(Debug)]
pub struct Machines {
    /// Each keeps a namespace; after those of the machines come those of a switch or routers.
    keepers: Vec<Child>,
}

/// What is between the machines of [`Machines::behind_routers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    /// Routers that show one address of IPv4 for all inside, and let through what belongs to what went out.
    Nat,
    /// The same, and no datagram of UDP passes from one network to another.
    NatWithoutUdp,
    /// IPv6 and firewalls, which let through what belongs to what went out.
    Firewalls,
}

/// The addresses of one version of IP in [`Machines::behind_routers`].
struct Plan {
    /// Of the two at home.
    inside: [&'static str; 2],
    /// Of their routers, inside…
    lan: [&'static str; 2],
    /// …and outside.
    wan: [&'static str; 2],
    /// Of the machine in the middle, towards the routers…
    middle: [&'static str; 2],
    /// …and towards the public machine.
    hub: &'static str,
    /// Of the public machine.
    public: &'static str,
}

/// Both homes have the same network, as homes do.
const IPV4: Plan = Plan {
    inside: ["192.168.0.2/24", "192.168.0.3/24"],
    lan: ["192.168.0.1/24", "192.168.0.1/24"],
    wan: ["198.51.100.2/24", "203.0.113.2/24"],
    middle: ["198.51.100.1/24", "203.0.113.1/24"],
    hub: "192.0.2.1/24",
    public: "192.0.2.2/24",
};

const IPV6: Plan = Plan {
    inside: ["2001:db8:1::2/64", "2001:db8:2::2/64"],
    lan: ["2001:db8:1::1/64", "2001:db8:2::1/64"],
    wan: ["2001:db8:11::2/64", "2001:db8:12::2/64"],
    middle: ["2001:db8:11::1/64", "2001:db8:12::1/64"],
    hub: "2001:db8::1/64",
    public: "2001:db8::2/64",
};

/// An address without the length of its network.
fn host(address: &str) -> &str {
    address.split('/').next().unwrap_or(address)
}

/// What a home's router does: it shows its own address for those inside, and lets in what belongs to what went out.
const ROUTER: &str = r#"
table ip nat {
    chain out { type nat hook postrouting priority 100; oifname "wan" masquerade; }
}
table inet filter {
    chain input {
        type filter hook input priority 0; policy drop;
        ct state established,related accept
        meta l4proto ipv6-icmp accept
        iifname { "lan", "lo" } accept
    }
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        iifname "lan" accept
    }
}
"#;

/// A network on which there is no UDP.
const NO_UDP: &str = r"
table inet filter {
    chain forward { type filter hook forward priority 0; meta l4proto udp drop; }
}
";

impl Machines {
    /// Two machines whose interfaces have these addresses, such as `10.0.0.1/24`, and no others. `None`: this user, or
    /// this machine, cannot.
    #[must_use]
    pub fn two(addresses: [&str; 2]) -> Option<Self> {
        let two = Self::new(2)?;
        two.cable((0, "eth0"), (1, "eth0"))?;
        for (number, address) in addresses.into_iter().enumerate() {
            two.open(number, "eth0", address);
        }
        Some(two)
    }

    /// As many machines as there are addresses, joined by a switch.
    #[must_use]
    pub fn many(addresses: &[String]) -> Option<Self> {
        let (all, switch) = (Self::new(addresses.len() + 1)?, addresses.len());
        let on = all.on(switch);
        let bridge = ["ip", "link", "add", "name", "br0", "type", "bridge"];
        let made = Command::new(&on[0]).args(&on[1..]).args(bridge).output();
        made.is_ok_and(|done| done.status.success()).then_some(())?;
        all.ip(switch, &["link", "set", "dev", "br0", "up"]);
        for (number, address) in addresses.iter().enumerate() {
            let port = format!("port{number}");
            all.cable((number, "eth0"), (switch, &port))?;
            all.ip(switch, &["link", "set", "dev", &port, "master", "br0"]);
            all.ip(switch, &["link", "set", "dev", &port, "up"]);
            all.open(number, "eth0", address);
        }
        Some(all)
    }

    /// Two machines, 0 and 1, at home behind a router each, and a third, 2, that all can reach, at 192.0.2.2 or
    /// 2001:db8::2. `None`: this user, or this machine, cannot, or has no nftables.
    #[must_use]
    pub fn behind_routers(between: Between) -> Option<Self> {
        const PUBLIC: usize = 2;
        const MIDDLE: usize = 5;
        Command::new("nft").arg("--version").output().is_ok_and(|done| done.status.success()).then_some(())?;
        let plan = if between == Between::Firewalls { IPV6 } else { IPV4 };
        let all = Self::new(6)?;
        for (inside, router, wan) in [(0, 3, "wan0"), (1, 4, "wan1")] {
            all.cable((inside, "eth0"), (router, "lan"))?;
            all.cable((router, "wan"), (MIDDLE, wan))?;
            all.open(inside, "eth0", plan.inside[inside]);
            all.open(router, "lan", plan.lan[inside]);
            all.open(router, "wan", plan.wan[inside]);
            all.open(MIDDLE, wan, plan.middle[inside]);
            all.ip(inside, &["route", "add", "default", "via", host(plan.lan[inside])]);
            all.ip(router, &["route", "add", "default", "via", host(plan.middle[inside])]);
            if between == Between::Firewalls {
                let home = format!("2001:db8:{}::/64", inside + 1);
                all.ip(MIDDLE, &["route", "add", &home, "via", host(plan.wan[inside])]);
                // Whoever forwards asks for neighbours from an address of this kind.
                let near = [
                    (router, "lan", "fe80::1:1/64"),
                    (router, "wan", "fe80::1:2/64"),
                    (MIDDLE, wan, "fe80::1:3/64"),
                ];
                for (number, name, address) in near {
                    all.ip(number, &["address", "add", address, "dev", name, "nodad"]);
                }
            }
            all.forwards(router, ROUTER);
        }
        all.cable((PUBLIC, "eth0"), (MIDDLE, "lan"))?;
        all.open(PUBLIC, "eth0", plan.public);
        all.open(MIDDLE, "lan", plan.hub);
        if between == Between::Firewalls {
            all.ip(MIDDLE, &["address", "add", "fe80::1:3/64", "dev", "lan", "nodad"]);
        }
        all.ip(PUBLIC, &["route", "add", "default", "via", host(plan.hub)]);
        all.forwards(MIDDLE, if between == Between::NatWithoutUdp { NO_UDP } else { "" });
        Some(all)
    }

    /// Two machines, 0 and 1, at 10.77.1.1 and 10.77.1.2, and a third, 2, at 10.77.2.3, with a router between the two
    /// private networks. `None`: this user, or this machine, cannot.
    #[must_use]
    pub fn two_subnets() -> Option<Self> {
        const ROUTER: usize = 3;
        const NEAR: &str = "10.77.1.254/24";
        const FAR: &str = "10.77.2.254/24";
        let all = Self::new(4)?;
        all.cable((0, "eth0"), (ROUTER, "port0"))?;
        all.cable((1, "eth0"), (ROUTER, "port1"))?;
        all.cable((2, "eth0"), (ROUTER, "far"))?;
        all.ip(ROUTER, &["link", "add", "name", "near", "type", "bridge"]);
        for port in ["port0", "port1"] {
            all.ip(ROUTER, &["link", "set", "dev", port, "master", "near"]);
            all.ip(ROUTER, &["link", "set", "dev", port, "up"]);
        }
        all.open(ROUTER, "near", NEAR);
        all.open(ROUTER, "far", FAR);
        let homes = [(0, "10.77.1.1/24", NEAR), (1, "10.77.1.2/24", NEAR), (2, "10.77.2.3/24", FAR)];
        for (number, address, router) in homes {
            all.open(number, "eth0", address);
            all.ip(number, &["route", "add", "default", "via", host(router)]);
        }
        all.run(ROUTER, &["sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"], "");
        Some(all)
    }

    fn new(count: usize) -> Option<Self> {
        let mut all = Self { keepers: Vec::new() };
        for _ in 0..count {
            all.keepers.push(keeper()?);
        }
        Some(all)
    }

    /// Joins two machines by interfaces of these names.
    fn cable(&self, one: (usize, &str), other: (usize, &str)) -> Option<()> {
        let id = |number: usize| self.keepers[number].id().to_string();
        let cable =
            ["link", "add", "name", one.1, "netns", &id(one.0), "type", "veth", "peer", "name", other.1];
        let cable = Command::new("ip").args(cable).args(["netns", &id(other.0)]).output();
        cable.is_ok_and(|done| done.status.success()).then_some(())
    }

    /// Gives an interface its address and switches it on.
    #[track_caller]
    fn open(&self, number: usize, name: &str, address: &str) {
        // Without addresses that the kernel makes itself, of IPv6.
        self.ip(number, &["link", "set", "dev", name, "addrgenmode", "none"]);
        self.ip(number, &["link", "set", "dev", "lo", "up"]);
        let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
        self.ip(number, &[&["address", "add", address, "dev", name], nodad].concat());
        self.ip(number, &["link", "set", "dev", name, "up"]);
    }

    /// Makes a router of a machine, with these rules for nftables.
    #[track_caller]
    fn forwards(&self, number: usize, rules: &str) {
        self.run(
            number,
            &[
                "sh",
                "-c",
                &["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"]
                    .map(|at| format!("echo 1 >{at}"))
                    .join(" && "),
            ],
            "",
        );
        self.run(number, &["nft", "-f", "-"], rules);
    }

    /// What a command must begin with to run on the machine of this number.
    #[must_use]
    pub fn on(&self, number: usize) -> Vec<String> {
        let id = self.keepers[number].id().to_string();
        ["nsenter", "--target", &id, "--net", "--"].map(str::to_owned).to_vec()
    }

    /// Runs `ip` on a machine.
    #[track_caller]
    pub fn ip(&self, number: usize, args: &[&str]) {
        self.run(number, &[&["ip"], args].concat(), "");
    }

    #[track_caller]
    fn run(&self, number: usize, command: &[&str], input: &str) {
        let on = self.on(number);
        let mut child = Command::new(&on[0]);
        child.args(&on[1..]).args(command);
        let child = child.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let done = child.wait_with_output().unwrap();
        assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
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
