"""SYNs that come again after their answer."""

from tabi.addr import Endpoint
from tabi.wrap.packets import Flow, Syn
from tabi.wrap.settled import Settled


def syn(port: int, sequence: int) -> Syn:
    flow = Flow(Endpoint.parse(f"198.18.0.2:{port}"), Endpoint.parse("203.0.113.7:80"))
    return Syn(flow=flow, sequence=sequence, data=0, tcp=20, packet=b"")


def test_a_connect_that_is_over_is_known_with_its_answer() -> None:
    settled = Settled()
    settled.settle(syn(1, 100), b"refused")
    settled.settle(syn(2, 200), None)
    assert settled.knows(syn(1, 100))
    assert settled.answer(syn(1, 100)) == b"refused"
    assert settled.knows(syn(2, 200))
    assert settled.answer(syn(2, 200)) is None


def test_another_connect_from_the_same_port_is_none_that_is_over() -> None:
    settled = Settled()
    settled.settle(syn(1, 100), b"refused")
    assert not settled.knows(syn(1, 101))
    assert not settled.knows(syn(3, 100))


def test_the_oldest_are_forgotten() -> None:
    settled = Settled(most=2)
    for port in (1, 2):
        settled.settle(syn(port, 0), None)
    settled.settle(syn(1, 5), None)  # it is the youngest again
    settled.settle(syn(3, 0), None)
    assert len(settled) == 2
    assert settled.knows(syn(1, 5))
    assert settled.knows(syn(3, 0))
    assert not settled.knows(syn(2, 0))
