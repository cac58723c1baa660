"""A program: opens and ends connections and associations through a proxy, in all the ways there are.

Its one argument is JSON: "proxy" (host and port), "connections", "associations", "workers", "seed". Each worker plays
the clients and their targets by itself, so each step is checked as it is taken. Clients come from 127.0.1.N and targets
are on 127.0.2.N, N being the worker's number from 1 on: no pair of addresses runs out of ports. What was done is
printed as JSON, kind -> count. A step that does not go as it should ends the program with a traceback and exit code 1.
"""

import json
import os
import random
import socket
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed

from helpers.socks import LINGER_ZERO, read_all, read_exactly, read_reply5, request4, request5

PATIENCE = 60.0  # the machine may be busy; only spent by a run that fails
GREETING = b"\x05\x01\x00"
GARBAGE = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"SSH-2.0-nobody\r\n",
    b"\xff" * 300,
    b"\x05\x01\x00\x04garb",
)


class Worker:
    """Clients of one address, and their targets."""

    def __init__(self, proxy: tuple[str, int], number: int, seed: int) -> None:
        self.proxy = proxy
        self.source = (f"127.0.1.{number}", 0)
        self.chance = random.Random(seed * 1000 + number)
        self.done: Counter[str] = Counter()
        host = f"127.0.2.{number}"
        self.listener = socket.create_server((host, 0), backlog=16)
        self.listener.settimeout(PATIENCE)
        self.there: tuple[str, int] = self.listener.getsockname()
        self.closed = socket.socket()
        self.closed.bind((host, 0))  # bound and not listening: refused, and nobody else gets it
        self.datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.datagrams.bind((host, 0))
        self.datagrams.settimeout(PATIENCE)
        self.kinds: tuple[Callable[[], None], ...] = (
            self.orderly, self.orderly, self.orderly, self.socks4a, self.client_resets, self.target_resets,
            self.refused, self.garbage, self.leaves_early, self.resets_early,
        )  # fmt: skip

    def run(self, connections: int, associations: int) -> Counter[str]:
        """Do so many of each, mixed."""
        plan = [self.kinds[number % len(self.kinds)] for number in range(connections)]
        plan += [self.associate] * associations
        self.chance.shuffle(plan)
        for step in plan:
            step()
            self.done[step.__name__] += 1
        for sock in (self.listener, self.closed, self.datagrams):
            sock.close()
        return self.done

    def dial(self) -> socket.socket:
        sock = socket.create_connection(self.proxy, PATIENCE, self.source)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def tunnel(self) -> tuple[socket.socket, socket.socket]:
        client = self.dial()
        client.sendall(GREETING + request5(1, *self.there))
        there, _ = self.listener.accept()
        there.settimeout(PATIENCE)
        answer = read_exactly(client, 12)
        assert answer[:4] == b"\x05\x00\x05\x00", answer
        return client, there

    def orderly(self) -> None:
        client, there = self.tunnel()
        with client, there:
            data = self.chance.randbytes(self.chance.choice((1, 100, 10_000)))
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            assert read_all(there) == data
            there.sendall(data)
            there.close()
            assert read_all(client) == data

    def socks4a(self) -> None:
        with self.dial() as client:
            domain = self.there[0].encode()
            client.sendall(request4(1, "0.0.0.1", self.there[1], b"me", domain) + b"early")
            there, _ = self.listener.accept()
            with there:
                there.settimeout(PATIENCE)
                assert read_exactly(there, 5) == b"early"
                there.sendall(b"bye")
                there.shutdown(socket.SHUT_WR)
                assert read_all(client)[8:] == b"bye"
                client.close()
                assert read_all(there) == b""

    def client_resets(self) -> None:
        client, there = self.tunnel()
        with there:
            client.sendall(b"last words")
            reset(client)
            expect_reset(there, b"last words")

    def target_resets(self) -> None:
        client, there = self.tunnel()
        with client:
            there.sendall(b"last words")
            reset(there)
            expect_reset(client, b"last words")

    def refused(self) -> None:
        with self.dial() as client:
            client.sendall(GREETING + request5(1, *self.closed.getsockname()))
            assert read_exactly(client, 12)[:4] == b"\x05\x00\x05\x05"
            assert read_all(client) == b""

    def garbage(self) -> None:
        with self.dial() as client:
            try:
                client.sendall(self.chance.choice(GARBAGE))
                client.shutdown(socket.SHUT_WR)
                read_all(client)
            except OSError:  # closed with some of it unread
                pass

    def leaves_early(self) -> None:
        whole = GREETING + request5(1, *self.there)
        with self.dial() as client:
            client.sendall(whole[: self.chance.randrange(len(whole) - 1)])
            client.shutdown(socket.SHUT_WR)
            read_all(client)

    def resets_early(self) -> None:
        whole = GREETING + request5(1, *self.there)
        client = self.dial()
        client.sendall(whole[: self.chance.randrange(len(whole) - 1)])
        reset(client)

    def associate(self) -> None:
        client = self.dial()
        client.sendall(GREETING + request5(3, "0.0.0.0", 0))
        assert read_exactly(client, 2) == b"\x05\x00"
        reply, host, port = read_reply5(client)
        assert reply == 0
        if self.chance.randrange(4):
            self.talk((host, port))
        if self.chance.randrange(2):
            client.close()
        else:
            reset(client)

    def talk(self, relay: tuple[str, int]) -> None:
        there = self.datagrams.getsockname()
        head = b"\0\0\0\1" + socket.inet_aton(there[0]) + there[1].to_bytes(2, "big")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(PATIENCE)
            sock.bind(self.source)
            sock.sendto(head + b"ping", relay)
            data, egress = self.datagrams.recvfrom(100)
            assert data == b"ping"
            self.datagrams.sendto(b"pong", egress)
            assert sock.recv(100) == head + b"pong"


def reset(sock: socket.socket) -> None:
    """Close by a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
    sock.close()


def expect_reset(sock: socket.socket, data: bytes) -> None:
    """Read these bytes, then a reset."""
    assert read_exactly(sock, len(data)) == data
    try:
        more = sock.recv(1)
    except ConnectionResetError:
        return
    raise AssertionError(f"{more!r} instead of a reset")


def main() -> None:
    """Run the workers side by side."""
    options = json.loads(sys.argv[1])
    count = options["workers"]
    proxy = (options["proxy"][0], options["proxy"][1])
    workers = [Worker(proxy, number, options["seed"]) for number in range(1, count + 1)]
    done: Counter[str] = Counter()
    with ThreadPoolExecutor(count) as pool:
        shares = (options["connections"] // count, options["associations"] // count)
        for future in as_completed([pool.submit(worker.run, *shares) for worker in workers]):
            if future.exception() is not None:
                traceback.print_exception(future.exception())
                os._exit(1)  # the others would go on, each to its own limit
            done += future.result()
    print(json.dumps(done))


if __name__ == "__main__":
    main()
