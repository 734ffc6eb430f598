//! The systemd units, as far as they can be judged without installing anything.

use std::process::Command;

use crate::top;

/// Room for the full sandbox, which arrives later; the score may only fall. 10 is the worst. The score is times ten.
const WORST_EXPOSURE: &str = "20";

fn unit(name: &str) -> String {
    std::fs::read_to_string(top().join("systemd").join(name)).unwrap()
}

fn values<'t>(unit: &'t str, key: &str) -> Vec<&'t str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

#[test]
fn the_service_is_what_the_design_says() {
    let (service, socket) = (unit("casd.service"), unit("casd.socket"));
    for (key, value) in [
        ("Type", "notify"),
        ("User", "casd"),
        ("StateDirectory", "casd"),
        ("RuntimeDirectory", "casd"),
        ("RuntimeDirectoryPreserve", "yes"),
        ("ExecReload", "/bin/kill -HUP $MAINPID"),
        ("RestartPreventExitStatus", "78 65 64"),
    ] {
        assert_eq!(values(&service, key), [value], "{key}");
    }
    assert_eq!(values(&socket, "ListenStream"), ["/run/casd/casd.sock"]);
    assert_eq!(values(&socket, "FileDescriptorName"), ["api"]);
}

#[test]
fn every_setting_has_its_reason_above_it() {
    for name in ["casd.service", "casd.socket"] {
        let text = unit(name);
        let mut reasoned = false;
        for (at, line) in text.lines().enumerate() {
            if line.starts_with('#') {
                reasoned = true;
            } else if line.is_empty() {
                reasoned = false;
            } else if let Some((key, _)) = line.split_once('=') {
                // What every unit has needs no reason.
                let plain = ["Description", "ExecStart", "WantedBy", "Also"].contains(&key);
                assert!(reasoned || plain, "{name}:{}: {key}: say why, in a line above", at + 1);
            }
        }
    }
}

#[test]
fn systemd_finds_nothing_wrong() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("skipped: there is no systemd-analyze on this machine");
        return;
    }
    // The program that a unit names must exist to be verified; casd is not installed here.
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("casd.service"), unit("casd.service").replace("/usr/bin/casd", "/bin/true")).unwrap();
    std::fs::write(at("casd.socket"), unit("casd.socket")).unwrap();
    let verify = Command::new("systemd-analyze")
        .arg("verify")
        .args([at("casd.service"), at("casd.socket")])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&verify.stderr);
    assert!(verify.status.success() && said.is_empty(), "{said}");

    let threshold = format!("--threshold={WORST_EXPOSURE}");
    let security = Command::new("systemd-analyze")
        .args(["security", "--no-pager", "--offline=true", &threshold])
        .arg(at("casd.service"))
        .output()
        .unwrap();
    assert!(security.status.success(), "{}", String::from_utf8_lossy(&security.stdout));
}
