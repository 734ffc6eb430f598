"""What `tests/carry` takes over hosts on a network of their own."""

import concurrent.futures
import contextlib
import filecmp
import pathlib
import random
import subprocess
import sys
import time

from daemons import NETWORK, Daemon
from figures import Figures, random_file
from hosts import Far, Hosts, are_possible, bare

MIB = 1 << 20
NONE = "only root can make network namespaces, with iproute2"


def holders(stack, args, network, hosts, file, parity="none", **more):
    """Daemons on hosts that have a file. Gives them and its id."""
    daemons = [stack.enter_context(daemon(args, network, host, parity, **more)) for host in hosts]
    ids = {one.ask("add", file)["id"] for one in daemons}
    assert len(ids) == 1, ids
    return daemons, ids.pop()


def daemon(args, network, host, parity="none", **more):
    return Daemon(args.casd, args.memory, parity, host=network.at(host), on=network.on(host), **more)


def fetched(args, network, host, object, file, peers, **more):
    """A new daemon on a host fetches an object. Gives the seconds, and what casctl says of it."""
    with daemon(args, network, host, **more) as taker:
        wall, out, said = taker.fetch(object, *peers)
        assert filecmp.cmp(out, file, shallow=False), f"{out} differs"
        return wall, said


def read(taker, object, first, count):
    """Reads so many MiB of an object by `cat`, from MiB `first` on. Gives the seconds."""
    words = ["cat", object, "--offset", str(first * MIB), "--length", str(count * MIB)]
    begun = time.monotonic()
    subprocess.run([taker.ctl, "--socket", taker.socket, *words], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begun


@contextlib.contextmanager
def strangers(args, network, host, count, how, file):
    """Givers that are no good, on one host. Gives where they are."""
    command = [args.casd / "strangers", NETWORK, network.at(host), str(count), how, file]
    process = subprocess.Popen(
        [*network.on(host), *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        lines = []
        while (line := process.stdout.readline().strip()) != "ready":
            if not line:
                sys.exit("the strangers did not come")
            lines.append(line)
        yield lines
    finally:
        process.stdin.close()
        process.wait(30)


def liars(args, folder):
    """Two of six givers send bad chunks."""
    figures = Figures("two liars that send bad chunks beside four honest hosts of 100 Mbit/s, 256 MiB")
    if not are_possible():
        return figures.skip(NONE) or True
    file, shares = random_file(folder, 256), []
    with Hosts(7, free=(7,)) as network, contextlib.ExitStack() as stack:
        honest, object = holders(stack, args, network, (1, 2, 3, 4), file)
        peers = [one.peer() for one in honest]
        for host in (5, 6):
            peers += stack.enter_context(strangers(args, network, host, 1, "bad", file))
        for _ in range(args.runs):
            best = bare(network, (1, 2, 3, 4), 7, 256 * MIB)
            wall, _ = fetched(args, network, 7, object, file, peers)
            shares.append(100 * best / wall)
    figures.row("of what bare TCP carries from the honest", shares, "%", least=95)
    return figures.held


def partial(args, folder):
    """Five hosts have each chunk twice between them; one of them is dead."""
    figures = Figures("five hosts of 100 Mbit/s that have each chunk of 250 MiB twice between them")
    if not are_possible():
        return figures.skip(NONE) or True
    size, part, file = 250, 50, random_file(folder, 250)
    rows = []
    with Hosts(7, free=(6, 7)) as network, contextlib.ExitStack() as stack:
        five = []
        with daemon(args, network, 6) as source:
            object = source.ask("add", file)["id"]
            for host in range(1, 6):
                one = stack.enter_context(daemon(args, network, host, bootstrap=[source.dht()]))
                five.append(one)
                for begins in ((host - 1) * part, host % 5 * part):
                    read(one, object, begins, part)
        peers = [one.peer() for one in five]
        for _ in range(args.runs):
            healthy, _ = fetched(args, network, 7, object, file, peers)
            network.plug(3, False)
            cut, said = fetched(args, network, 7, object, file, peers)
            network.plug(3, True)
            assert sum(said["peers"].values()) >= size * MIB, said
            rows.append((healthy, cut))
    figures.row("all of them", [healthy for healthy, _ in rows], "s")
    figures.row("one is dead", [cut for _, cut in rows], "s")
    figures.row("one is dead, as many times as long", [cut / healthy for healthy, cut in rows], "")
    # Four hosts that send as fast carry what five did in 5/4 of the time, if each is busy to the end.
    figures.row("as many times what four can at best", [cut / healthy / 1.25 for healthy, cut in rows], "", most=1.1)
    return figures.held


def stallers(args, folder):
    """One honest giver among twenty that say they have all and give nothing."""
    figures = Figures("one honest host of 100 Mbit/s and twenty that give nothing, 64 MiB")
    if not are_possible():
        return figures.skip(NONE) or True
    file, rows = random_file(folder, 64), []
    with Hosts(3, free=(2, 3)) as network, contextlib.ExitStack() as stack:
        honest, object = holders(stack, args, network, (1,), file)
        others = stack.enter_context(strangers(args, network, 2, 20, "silent", file))
        peers = [one.peer() for one in honest]
        for _ in range(args.runs):
            alone, _ = fetched(args, network, 3, object, file, peers)
            among, _ = fetched(args, network, 3, object, file, [*others, *peers])
            rows.append((alone, among))
    figures.row("the honest one alone", [alone for alone, _ in rows], "s")
    figures.row("among stallers, as many times as long", [among / alone for alone, among in rows], "", most=1.2)
    return figures.held


def one_chunk(args, folder):
    """The time of a single chunk, read by itself, where one of four holders is slow."""
    figures = Figures("a chunk of 256 MiB by `cat`, one of four holders of 100 Mbit/s at 1 Mbit/s")
    if not are_possible():
        return figures.skip(NONE) or True
    for parity in ("none", "16+4"):
        file = random_file(folder, 256, parity)
        with Hosts(5, free=(5,)) as network, contextlib.ExitStack() as stack:
            first = stack.enter_context(daemon(args, network, 5))
            join = {"bootstrap": [first.dht()]}
            _, object = holders(stack, args, network, (1, 2, 3, 4), file, parity, **join)
            network.shape(1, "1mbit")
            # The first is not counted: it finds the holders.
            chunks = [0, *random.sample(range(1, 256), min(40 * args.runs, 255))]
            seconds = sorted([read(first, object, chunk, 1) for chunk in chunks][1:])
        at = lambda share: seconds[min(len(seconds) - 1, int(share * len(seconds)))]
        figures.row(f"parity {parity}: half of {len(seconds)} within", [at(0.5)], "s")
        figures.row(f"parity {parity}: 99 of 100 within", [at(0.99)], "s")
        figures.row(f"parity {parity}: the slowest", [seconds[-1]], "s")
        file.unlink()
    return figures.held


def delay(args, folder):
    """One giver behind a router with 100 ms of delay."""
    figures = Figures("200 Mbit/s and 100 ms there and back, one giver, 256 MiB")
    if not are_possible() or not pathlib.Path("/dev/net/tun").exists():
        return figures.skip(NONE + " and TUN devices") or True
    file, rows = random_file(folder, 256), []
    with Far(200, 100) as network, contextlib.ExitStack() as stack:
        givers, object = holders(stack, args, network, (1,), file)
        peers = [one.peer() for one in givers]
        for _ in range(args.runs):
            best = bare(network, (1,), 2, 256 * MIB)
            wall, _ = fetched(args, network, 2, object, file, peers)
            rows.append((best, wall))
    # The link counts packets whole: 20 + 32 bytes of 1,500 are heads.
    link = 200e6 / 8 * (1448 / 1500)
    figures.row("bare TCP, of the link", [100 * 256 * MIB / best / link for best, _ in rows], "%")
    figures.row("casd, of the link", [100 * 256 * MIB / wall / link for _, wall in rows], "%", least=90)
    figures.row("casd, of bare TCP", [100 * best / wall for best, wall in rows], "%")
    return figures.held


def crowd(args, folder):
    """Fifteen fetch at once what one has."""
    figures = Figures("one holder and fifteen who fetch at once, all at 100 Mbit/s, 64 MiB")
    if not are_possible():
        return figures.skip(NONE) or True
    size, rows = 64, []
    # What one has fetched alone, who then has gone, is not what the others want.
    file, other = random_file(folder, size), random_file(folder, size, "other")
    with Hosts(17, free=(17,)) as network:
        for _ in range(args.runs):
            with contextlib.ExitStack() as stack:
                (holder,), object = holders(stack, args, network, (1,), file)
                who, join = holder.status()["peer_id"], [holder.dht()]
                first = holder.ask("add", other)["id"]
                alone, _ = fetched(args, network, 17, first, other, (), bootstrap=join)
                takers = [
                    stack.enter_context(daemon(args, network, host, bootstrap=join)) for host in range(2, 17)
                ]
                with concurrent.futures.ThreadPoolExecutor(len(takers)) as pool:
                    done = list(pool.map(lambda taker: taker.fetch(object), takers))
                assert all(filecmp.cmp(out, file, shallow=False) for _, out, _ in done)
                slowest = max(wall for wall, _, _ in done)
                given = sum(said["peers"].get(who, 0) for _, _, said in done)
                rows.append((alone, slowest, given / (size * MIB)))
    figures.row("one alone", [alone for alone, _, _ in rows], "s")
    figures.row("the slowest of fifteen", [slowest for _, slowest, _ in rows], "s")
    ratios = [slowest / alone for alone, slowest, _ in rows]
    figures.row("the slowest, as many times as long", ratios, "", most=1.5)
    figures.row("the holder gives each chunk so often", [often for _, _, often in rows], "times", most=1.3)
    return figures.held
