"""Hosts on a network of their own, shaped, for the scripts that take figures. Root only, with iproute2.

They are network namespaces without names, which belong to processes that end with this one: nothing of them is left
however it ends, and there is no way out of them."""

import os
import pathlib
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
RATE = "100mbit"


def are_possible():
    """Whether hosts can be made here: only root can, and needs iproute2 and util-linux."""
    return os.geteuid() == 0 and all(shutil.which(tool) for tool in ("ip", "tc", "unshare", "nsenter"))


def ip(on, *words):
    subprocess.run([*on, "ip", *words], check=True, capture_output=True)


class Space:
    """A network namespace, and what a command must begin with to run in it."""

    def __init__(self):
        self.keeper = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        self.file = f"/proc/{self.keeper.pid}/ns/net"
        end = time.monotonic() + 10
        while not self.is_apart():
            if self.keeper.poll() is not None or time.monotonic() > end:
                sys.exit("network namespaces cannot be made here; only root can")
            time.sleep(0.005)
        self.on = ["nsenter", f"--net={self.file}", "--"]
        ip(self.on, "link", "set", "lo", "up")

    def is_apart(self):
        try:
            return os.readlink(self.file) != os.readlink("/proc/self/ns/net")
        except OSError:
            return False

    def close(self):
        self.keeper.stdin.close()
        self.keeper.wait(10)


class Hosts:
    """Hosts 1 to `count` at 10.77.0.N, joined by a switch. Each but those of `free` sends at 100 Mbit/s."""

    def __init__(self, count, free=()):
        self.switch, self.spaces = Space(), {}
        ip(self.switch.on, "link", "add", "br0", "type", "bridge")
        ip(self.switch.on, "link", "set", "br0", "up")
        for host in range(1, count + 1):
            space = self.spaces[host] = Space()
            there = ["netns", str(self.switch.keeper.pid)]
            cable = ["link", "add", "eth0", "type", "veth", "peer", "name", f"port{host}", *there]
            ip(space.on, *cable)
            ip(space.on, "addr", "add", f"{self.at(host)}/24", "dev", "eth0")
            ip(space.on, "link", "set", "eth0", "up")
            ip(self.switch.on, "link", "set", f"port{host}", "master", "br0", "up")
            if host not in free:
                self.shape(host, RATE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for space in [*self.spaces.values(), self.switch]:
            space.close()

    def at(self, host):
        return f"10.77.0.{host}"

    def on(self, host):
        return self.spaces[host].on

    def shape(self, host, rate):
        """Lets a host send at this rate."""
        # A slow one's queue is short in bytes and long in time.
        burst = ["burst", "256kb", "latency", "50ms"] if rate == RATE else ["burst", "32kb", "latency", "400ms"]
        tbf = ["tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", rate, *burst]
        subprocess.run([*self.on(host), *tbf], check=True)

    def plug(self, host, is_in):
        """Plugs a host's cable in, or out."""
        ip(self.switch.on, "link", "set", f"port{host}", "up" if is_in else "down")


class Far:
    """Two hosts, 1 at 10.78.1.1 and 2 at 10.78.2.1, with a router between them that delays what passes by half of `trip`
    milliseconds each way, at `rate` Mbit/s. It ends with this, and after ten minutes."""

    def __init__(self, rate, trip):
        self.spaces = {1: Space(), 2: Space()}
        files = [self.spaces[host].file for host in (1, 2)]
        command = [sys.executable, HERE / "router.py", str(rate), str(trip / 2), *files]
        self.router = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.router.stdout.readline() != "ready\n":
            sys.exit("the router does not run: is there no /dev/net/tun?")
        for host, other in ((1, 2), (2, 1)):
            on = self.on(host)
            ip(on, "addr", "add", f"{self.at(host)}/24", "dev", "tun0")
            ip(on, "link", "set", "tun0", "mtu", "1500", "up")
            ip(on, "route", "add", f"10.78.{other}.0/24", "dev", "tun0")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.router.stdin.close()
        self.router.wait(10)
        for space in self.spaces.values():
            space.close()

    def at(self, host):
        return f"10.78.{host}.1"

    def on(self, host):
        return self.spaces[host].on


def bare(network, givers, taker, size):
    """Seconds that bare TCP takes for `size` bytes, in equal parts from the givers at once."""
    script = [sys.executable, HERE / "bare.py"]
    part, sends = size // len(givers), []
    try:
        for host in givers:
            command = [*network.on(host), *script, "give", network.at(host), str(part)]
            sends.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        ports = [send.stdout.readline().strip() for send in sends]
        ends = [f"{network.at(host)}:{port}" for host, port in zip(givers, ports)]
        command = [*network.on(taker), *script, "take", str(part), *ends]
        return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    finally:
        for send in sends:
            send.kill()
            send.wait()
