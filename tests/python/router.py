"""A router between two network namespaces: `router.py MBIT DELAY_MS NETNS NETNS`, for kernels without netem.

Makes `tun0` in each, prints `ready`, and carries what comes out of one into the other: at most MBIT Mbit/s each way, DELAY_MS
later. What would have to wait for its turn for more than 100 ms is dropped, as a router does. Ends with its input, and after
ten minutes in any case. Its memory is bounded by rate and delay."""

import collections
import ctypes
import fcntl
import os
import select
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 1, 0x1000
CLONE_NEWNET = 0x40000000
# Seconds that a packet may wait for its turn.
QUEUE = 0.1
# Seconds after which it ends.
LIFE = 600
# Packets that are read of one side before the other has its turn.
AT_ONCE = 64


def tun(space):
    """A device in another namespace; it stays there."""
    with open(space) as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {space}")
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"tun0", IFF_TUN | IFF_NO_PI))
    return device


class Way:
    """One direction: packets in the order in which they arrive, each with its time."""

    def __init__(self, source, target, rate, delay):
        self.source, self.target, self.rate, self.delay = source, target, rate, delay
        self.packets, self.free = collections.deque(), 0.0

    def read(self, now):
        for _ in range(AT_ONCE):
            try:
                packet = os.read(self.source, 65536)
            except OSError:
                # Nothing more; or the device is not up yet.
                return
            begins = max(now, self.free)
            if begins - now <= QUEUE:
                self.free = begins + len(packet) / self.rate
                self.packets.append((self.free + self.delay, packet))

    def write(self, now):
        packets = self.packets
        while packets and packets[0][0] <= now:
            try:
                os.write(self.target, packets.popleft()[1])
            except OSError:
                # The device is not up, or its queue is full: lost.
                pass


def main():
    rate, delay = float(sys.argv[1]) * 1e6 / 8, float(sys.argv[2]) / 1000
    one, other = (tun(space) for space in sys.argv[3:5])
    ways = {one: Way(one, other, rate, delay), other: Way(other, one, rate, delay)}
    print("ready", flush=True)
    end = time.monotonic() + LIFE
    while (now := time.monotonic()) < end:
        due = min((way.packets[0][0] for way in ways.values() if way.packets), default=now + 1)
        ready, _, _ = select.select([0, one, other], [], [], max(0.0, due - now))
        if 0 in ready and not os.read(0, 4096):
            return
        now = time.monotonic()
        for device, way in ways.items():
            if device in ready:
                way.read(now)
        now = time.monotonic()
        for way in ways.values():
            way.write(now)


if __name__ == "__main__":
    main()
