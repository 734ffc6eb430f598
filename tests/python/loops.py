"""What `tests/carry` takes over loopback, and by calling the scripts that run casd beside its peers."""

import contextlib
import hashlib
import itertools
import os
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from daemons import Daemon
from figures import Figures, random_file, warm
from hosts import are_possible

MIB = 1 << 20
PEERS = ("rqbit", "libtorrent", "sendme")


# A network of its own for a command, so that nothing leaves the machine.
APART = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


def beside(args, script, *words, on=()):
    """Runs one of the scripts that know casd's peers. Gives its lines."""
    command = [*on, sys.executable, args.bench / script, "--casd", args.casd, "--peers", args.peers or "peers", *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()


def lacks(args, script):
    """Why one of these scripts cannot be run, if so."""
    if args.bench is None or not (args.bench / script).is_file():
        return f"{script} is not there (--bench)"
    return None if are_possible() else "only root can make network namespaces, with iproute2"


def known(args, names=PEERS):
    """The peers that are installed."""
    at = {"rqbit": "bin/rqbit", "sendme": "bin/sendme", "libtorrent": "venv/bin/python"}
    return [name for name in names if args.peers and (args.peers / at[name]).exists()]


def stages(args, folder):
    """What each stage costs by itself."""
    figures = Figures("stages, 1 GiB each")
    file = random_file(folder, 1024)
    with Daemon(args.casd, args.memory, "none") as daemon:
        object = daemon.ask("add", file)["id"]
        stores = ["--store", args.memory, "--store", args.disk]
        out = ["--socket", daemon.socket, "--object", object]
        command = [args.casd / "stages", "--runs", str(args.runs), *stores, *out]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                figures.say(line.rstrip())
        figures.held &= process.returncode == 0
    return figures.held


ONE = re.compile(
    r"(?P<name>\w+)\s+add\s+\S+\s+s\s+fetch\s+(?P<wall>\S+) s\s+\d+ MB/s\s+cpu\s+(?P<gave>\S+) \+\s+(?P<took>\S+) s\s+"
    r"peak\s+(?P<giver>\S+) \+\s+(?P<taker>\S+) MiB\s+same (?P<same>\w+)"
)


def one_to_one(args, folder):
    """From one node to another, beside peers."""
    held = True
    for where in (args.memory, args.disk):
        figures = Figures(f"1 GiB from one node to another on {where}, in pairs")
        if why := lacks(args, "one_to_one.py"):
            figures.skip(why)
            return held
        names = [*(["http"] if shutil.which("nginx") and shutil.which("curl") else []), *known(args), "casd"]
        if absent := [name for name in ("http", *PEERS) if name not in names]:
            figures.skip(f"{', '.join(absent)}: not installed (--peers)")
        with tempfile.TemporaryDirectory(prefix="casd-carry-", dir=where) as work:
            # The first one warms up.
            runs = [one_run(args, work, names) for _ in range(args.runs + 1)][1:]
        compare_one(figures, runs, names)
        held &= figures.held
    return held


def one_run(args, work, names):
    """What each of them took in one run."""
    lines = beside(args, "one_to_one.py", "--work", work, *names, on=APART)
    rows = {match["name"]: match for match in map(ONE.match, lines) if match}
    assert len(rows) == len(names) and all(row["same"] == "True" for row in rows.values()), lines
    figures = lambda row: {key: float(row[key]) for key in ("wall", "gave", "took", "giver", "taker")}
    return {name: figures(row) for name, row in rows.items()}


def compare_one(figures, runs, names):
    """Rows of one_to_one. A torrent client counts by the faster of two in each run."""
    for name in names:
        figures.row(name, [run[name]["wall"] for run in runs], "s")
    casd = [run["casd"] for run in runs]
    figures.row("casd, processor of both ends", [row["gave"] + row["took"] for row in casd], "s")
    figures.row("casd, giver at peak", [row["giver"] for row in casd], "MiB", most=100)
    # The taker's is that of the daemon and casctl together.
    figures.row("casd, taker at peak", [row["taker"] for row in casd], "MiB", most=100)
    times = lambda other: [other(run) / run["casd"]["wall"] for run in runs]
    if "http" in names:
        figures.row("as fast as http", times(lambda run: run["http"]["wall"]), "times", least=0.8)
    torrents = [name for name in names if name in ("rqbit", "libtorrent")]
    if torrents:
        faster = lambda run: min((run[name] for name in torrents), key=lambda row: row["wall"])
        figures.row(f"as fast as {' or '.join(torrents)}", times(lambda run: faster(run)["wall"]), "times", least=1.7)
        cpu = lambda row: row["gave"] + row["took"]
        shares = [100 * cpu(run["casd"]) / cpu(faster(run)) for run in runs]
        figures.row("processor, of the faster one's", shares, "%", most=60)
    if "sendme" in names:
        figures.row("as fast as sendme", times(lambda run: run["sendme"]["wall"]), "times", least=5)


def many_to_one(args, folder):
    """From four hosts to a fifth, beside peers."""
    held = True
    for case in ("even", "slow", "cut"):
        figures = Figures(f"256 MiB from four hosts of 100 Mbit/s to a fifth, {case}, in pairs")
        if why := lacks(args, "many_to_one.py"):
            figures.skip(why)
            return held
        names, runs = [*known(args, ("rqbit", "libtorrent")), "casd"], []
        for _ in range(args.runs):
            lines = beside(args, "many_to_one.py", "--work", folder / "many", "--case", case, *names)
            rows = [re.match(r"(\w+)\s+\w+:\s+(\S+) s, best possible (\S+) s, \d+ %, same True", line) for line in lines]
            runs.append({row[1]: 100 * float(row[3]) / float(row[2]) for row in rows if row})
            assert len(runs[-1]) == len(names), lines
        for name in names:
            least = 98 if name == "casd" else None
            figures.row(f"{name}, of what bare TCP carries", [run[name] for run in runs], "%", least=least)
        if "rqbit" in names:
            figures.row("ahead of rqbit", [run["casd"] - run["rqbit"] for run in runs], "points", least=0)
        held &= figures.held
    return held


def first_byte_of(taker, object):
    """Seconds from the start of `casctl cat` to the first byte that it gives."""
    command = [taker.ctl, "--socket", taker.socket, "cat", object]
    begun = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.read(1)
        seconds = time.monotonic() - begun
        process.kill()
    return seconds


def first_byte(args, folder):
    """The first byte of what is elsewhere."""
    figures = Figures("first byte of `cat`, objects of 16 MiB")
    near, far = [], []
    file = folder / "first"
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(Daemon(args.casd, args.memory))]
        join = [nodes[0].dht()]
        nodes += [stack.enter_context(Daemon(args.casd, args.memory, bootstrap=join)) for _ in range(19)]
        taker, givers = nodes[-1], itertools.cycle(nodes[1:-1])
        for run in range(args.runs):
            for seconds, is_near in ((near, True), (far, False)):
                giver = next(givers)
                file.write_bytes(os.urandom(16 * MIB))
                object = giver.ask("add", "--wait-announced", file)["id"]
                if is_near:
                    taker.ask("connect", giver.peer())
                seconds.append(first_byte_of(taker, object))
    figures.row("from a holder that is connected", [1000 * one for one in near], "ms", most=50)
    figures.row("by its id through the DHT of 20 nodes", [1000 * one for one in far], "ms", most=400)
    return figures.held


def growth(args, folder):
    """Time and memory by the length of an object."""
    figures = Figures("objects fetched with `cat` into a hash, parity none, on a disk")
    rows = []
    for gib in args.sizes:
        # Both nodes have all of it.
        if shutil.disk_usage(args.disk).free < (2 * gib + 4) << 30:
            figures.skip(f"{gib} GiB: {args.disk} has no room for it twice")
            continue
        walls, givers, takers = [], [], []
        for _ in range(args.runs):
            with Daemon(args.casd, args.disk, "none") as giver:
                object, digest = add_stream(giver, gib)
                with Daemon(args.casd, args.disk, "none", bootstrap=[giver.dht()]) as taker:
                    wall, got = hash_stream(taker, object)
                    assert got == digest, "other bytes came"
                    walls.append(wall)
                    givers.append(giver.peak())
                    takers.append(taker.peak())
        figures.row(f"{gib} GiB", walls, "s")
        figures.row(f"{gib} GiB, taker at peak", takers, "MiB")
        figures.row(f"{gib} GiB, giver at peak", givers, "MiB")
        rows.append((gib, *(statistics.median(one) for one in (walls, takers))))
    if len(rows) > 1:
        (least, wall, peak), (most, long, high) = rows[0], rows[-1]
        figures.row("time for a GiB, the longest to the shortest", [long / most / (wall / least)], "times", most=1.25)
        figures.row("memory of the taker, the same", [high / peak], "times", most=1.25)
    return figures.held


def add_stream(daemon, gib):
    """Adds so many GiB of bytes that do not repeat. Gives the id and another digest."""
    digest, block = hashlib.sha256(), bytearray(os.urandom(MIB))
    command = [daemon.ctl, "--socket", daemon.socket, "-q", "add", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        for number in range(gib << 10):
            block[:8] = number.to_bytes(8, "little")
            digest.update(block)
            process.stdin.write(block)
        process.stdin.close()
        object = process.stdout.read().decode().strip()
    assert process.returncode == 0
    return object, digest.hexdigest()


def hash_stream(daemon, object):
    """Reads an object to its end. Gives the seconds and its digest."""
    digest, begun = hashlib.sha256(), time.monotonic()
    command = [daemon.ctl, "--socket", daemon.socket, "cat", object]
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as process:
        while piece := process.stdout.read(MIB):
            digest.update(piece)
    assert process.returncode == 0
    return time.monotonic() - begun, digest.hexdigest()


def idle(args, folder):
    """A daemon among twenty that does nothing for a minute."""
    figures = Figures("an idle daemon with 20 peers, for a minute")
    with contextlib.ExitStack() as stack:
        one = stack.enter_context(Daemon(args.casd, args.memory))
        join = [one.dht()]
        _others = [stack.enter_context(Daemon(args.casd, args.memory, bootstrap=join)) for _ in range(20)]
        end = time.monotonic() + 60
        while one.status()["peers"] < 20 and time.monotonic() < end:
            time.sleep(0.1)
        # Who has just come has much to say.
        time.sleep(20)
        before, lines, cpu = one.status()["peers"], one.lines(), one.cpu()
        begun = time.monotonic()
        time.sleep(60)
        share = 100 * (one.cpu() - cpu) / (time.monotonic() - begun)
        logged, memory, after = one.lines() - lines, one.memory(), one.status()["peers"]
    figures.row("peers at the beginning", [before], "", least=20)
    figures.row("peers at the end", [after], "")
    figures.row("processor, of a core", [share], "%", most=0.5)
    figures.row("memory", [memory], "MiB", most=40)
    figures.row("lines in the log", [logged], "", most=0)
    return figures.held


class Loris:
    """Two thousand connections from another address of this host that say next to nothing; those that are closed are
    opened anew, at most a thousand a second."""

    COUNT, A_ROUND, ROUND = 2000, 100, 0.1

    def __init__(self, at):
        self.at, self.open, self.made = at, [], 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def run(self):
        while not self.over.wait(self.ROUND):
            self.open = [one for one in self.open if self.lives(one)]
            for _ in range(min(self.A_ROUND, self.COUNT - len(self.open))):
                self.connect()
        for one in self.open:
            one.close()

    def connect(self):
        one = socket.socket()
        try:
            one.settimeout(1)
            one.bind(("127.0.0.2", 0))
            one.connect(self.at)
            # The beginning of a handshake: a record is to come that never does.
            one.sendall(b"\x16\x03\x01\x02")
            one.setblocking(False)
        except OSError:
            one.close()
            return
        self.open.append(one)
        self.made += 1

    def lives(self, one):
        try:
            lives = one.recv(1) != b""
        except BlockingIOError:
            lives = True
        except OSError:
            lives = False
        if not lives:
            one.close()
        return lives


def loris(args, folder):
    """An honest fetch beside two thousand sockets that say next to nothing."""
    figures = Figures("256 MiB beside 2,000 slow-loris sockets for a minute, over loopback")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8192)), hard))
    file = random_file(folder, 256)
    warm(args.memory, 1024)

    def fetches(peer, object):
        with Daemon(args.casd, args.memory, "none") as taker:
            return taker.fetch(object, peer)[0]

    with Daemon(args.casd, args.memory, "none") as giver:
        object, peer = giver.ask("add", file)["id"], giver.peer()
        host, port = peer.split("@")[1].rsplit(":", 1)
        fetches(peer, object)
        quiet = [fetches(peer, object) for _ in range(args.runs)]
        giver.rest()
        descriptors, lines = giver.descriptors(), giver.lines()
        with Loris((host, int(port))) as strangers:
            end, among, most = time.monotonic() + 60, [], 0
            while time.monotonic() < end:
                among.append(fetches(peer, object))
                most = max(most, giver.descriptors())
        end = time.monotonic() + 30
        while (left := giver.descriptors()) > descriptors and time.monotonic() < end:
            time.sleep(0.2)
        logged = giver.lines() - lines
    figures.row("without them", quiet, "s")
    figures.row("beside them", among, "s")
    speed = 100 * statistics.median(quiet) / statistics.median(among)
    figures.row("of its speed", [speed], "%", least=90)
    figures.row("connections that came", [strangers.made], "")
    figures.row("open files at most", [most], "")
    figures.row("open files more than before, afterwards", [left - descriptors], "", most=0)
    figures.row("lines in the log", [logged], "")
    return figures.held
