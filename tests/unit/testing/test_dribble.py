"""Ways to cut bytes."""

import socket
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabi.testing import each_byte, random_cuts, send_dribbled, whole


@given(st.binary(max_size=200), st.integers(), st.integers(1, 20))
def test_pieces_joined_are_the_same_bytes_and_none_is_empty(data: bytes, seed: int, longest: int) -> None:
    for cut in (whole, each_byte, random_cuts(seed, longest=longest)):
        pieces = list(cut(data))
        assert b"".join(pieces) == data
        assert all(pieces)
    assert list(whole(data)) == ([data] if data else [])
    assert list(each_byte(data)) == [bytes((byte,)) for byte in data]


@given(st.binary(max_size=200), st.integers())
def test_random_cuts_are_the_same_for_the_same_seed(data: bytes, seed: int) -> None:
    assert list(random_cuts(seed)(data)) == list(random_cuts(seed)(data))


def test_random_cuts_differ_for_different_seeds() -> None:
    assert len({tuple(random_cuts(seed)(bytes(100))) for seed in range(10)}) == 10


@pytest.mark.parametrize("pause", [0.0, 0.001])
def test_dribbled_bytes_arrive_in_segments_of_their_own(pause: float) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname(), timeout=10)
        theirs, _ = listener.accept()
        with ours, theirs:
            send_dribbled(ours, b"abc", pause=pause)
            ours.shutdown(socket.SHUT_WR)
            theirs.settimeout(10)
            assert b"".join(iter(lambda: theirs.recv(9), b"")) == b"abc"
            # tcpi_data_segs_out counts what is sent again, on a machine that stalls, as tcpi_total_retrans does; their
            # places in struct tcp_info of linux/tcp.h
            info = ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            segments, sent_again = (int.from_bytes(info[at : at + 4], sys.byteorder) for at in (156, 100))
            assert segments - sent_again == 3
