"""Daemons and costs, for the scripts that take figures."""

import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time


# What all of them are nodes of.
NETWORK = "bench"


class Cost:
    """Wall and CPU seconds, and the daemon's peak in MiB where there is one."""

    def __init__(self, wall, cpu, peak=None):
        self.wall, self.cpu, self.peak = wall, cpu, peak


def timed(*command):
    """Runs a command. Gives its cost and what it printed."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    wall, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime), printed


class Daemon:
    """A casd of its own in a folder that it gets whole, and that is gone when it ends. A `state` that is named stays,
    and nothing is proved there in the background. It listens at `host`, where commands run that begin with `on`, joins by
    the addresses `bootstrap`, and has `more` sections of settings."""

    def __init__(self, binaries, where, parity="16+4", state=None, host="127.0.0.1", on=(), bootstrap=(), more=""):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="casd-bench-", dir=where))
        self.socket, self.ctl = self.folder / "casd.sock", binaries / "casctl"
        config = self.folder / "casd.toml"
        config.write_text(f"""
[node]
state_dir = "{state or self.folder / 'state'}"
[api]
socket = "{self.socket}"
[listen]
chunk = ["{host}:0"]
dht = ["/ip4/{host}/udp/0/quic-v1"]
[network]
name = "{NETWORK}"
lan_discovery = false
bootstrap = {json.dumps(list(bootstrap))}
[store]
parity = "{parity}"
reserve = "0"
{'scrub = "0"' if state else ''}
{more}
""")
        self.log = open(self.folder / "log", "w+")
        command = [*on, binaries / "casd", "--config", config]
        self.begun = time.monotonic()
        self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def __enter__(self):
        """Waits for an answer."""
        end = self.begun + 30
        while subprocess.run([self.ctl, "--socket", self.socket, "-q", "status"], capture_output=True).returncode:
            if self.child.poll() is not None or time.monotonic() > end:
                sys.exit(f"casd did not start:\n{(self.folder / 'log').read_text()}")
            time.sleep(0.01)
        return self

    def __exit__(self, *_):
        self.child.send_signal(signal.SIGTERM)
        self.child.wait(60)
        shutil.rmtree(self.folder)

    def cpu(self):
        fields = pathlib.Path(f"/proc/{self.child.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak(self):
        return self.memory("VmHWM")

    def memory(self, name="VmRSS"):
        """MiB that are in memory now; with `VmHWM` at most."""
        lines = pathlib.Path(f"/proc/{self.child.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))

    def cost(self, *command):
        """What a client's command costs both ends."""
        before = self.cpu()
        cost, printed = timed(*command)
        # What the daemon does behind the answer belongs to it as well.
        cost.own, cost.cpu = cost.cpu, cost.cpu + self.rest() - before
        cost.peak = self.peak()
        return cost, printed

    def rest(self):
        """Waits until it uses no processor. Gives the seconds that it has used."""
        spent = self.cpu()
        while (now := (time.sleep(0.1), self.cpu())[1]) != spent:
            spent = now
        return spent

    def status(self):
        return self.ask("status")

    def ask(self, *words):
        """The last of what casctl prints as JSON."""
        return json.loads(timed(self.ctl, "--socket", self.socket, "--json", *words)[1].splitlines()[-1])

    def peer(self):
        """Where it gives chunks, as `--peer` takes it."""
        status = self.status()
        return f"{status['peer_id']}@{status['listen']['chunk'][0]}"

    def dht(self):
        """Where others join by it."""
        return self.status()["listen"]["dht"][0]

    def fetch(self, object, *peers):
        """Fetches an object to a file. Gives the seconds, the file and what casctl says of it."""
        out = self.folder / "fetched"
        named = [word for peer in peers for word in ("--peer", peer)]
        cost, printed = timed(self.ctl, "--socket", self.socket, "--json", "fetch", object, "--force", "-o", out, *named)
        return cost.wall, out, json.loads(printed)

    def descriptors(self):
        """How many files it has open."""
        return len(os.listdir(f"/proc/{self.child.pid}/fd"))

    def lines(self):
        """How many lines it has logged."""
        return len((self.folder / "log").read_text().splitlines())
