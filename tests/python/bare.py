"""Bytes over bare TCP: `bare.py give HOST BYTES` gives them once to whoever comes, and prints its port; `bare.py take BYTES
HOST:PORT…` takes so many from each at once, and prints the seconds. Neither goes on for more than five minutes."""

import signal
import socket
import sys
import time
from concurrent import futures

PIECE = 1 << 16


def give(host, count):
    with socket.create_server((host, 0)) as server:
        print(server.getsockname()[1], flush=True)
        stream, _ = server.accept()
    with stream:
        piece = bytes(PIECE)
        for at in range(0, count, PIECE):
            stream.sendall(piece[: min(PIECE, count - at)])


def take(count, end):
    host, port = end.rsplit(":", 1)
    with socket.create_connection((host, int(port))) as stream:
        while count > 0:
            got = len(stream.recv(PIECE))
            if got == 0:
                raise EOFError(f"{end} ended {count} bytes too early")
            count -= got


def main():
    signal.alarm(300)
    verb, first, *rest = sys.argv[1:]
    if verb == "give":
        return give(first, int(rest[0]))
    begun = time.monotonic()
    with futures.ThreadPoolExecutor(len(rest)) as pool:
        list(pool.map(lambda end: take(int(first), end), rest))
    print(time.monotonic() - begun)


if __name__ == "__main__":
    main()
