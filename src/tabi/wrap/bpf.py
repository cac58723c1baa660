"""The filter of the packet socket: which packets of the program are shown to the gate. Classic BPF, linux/filter.h.

SYNs alone, IPv4 and IPv6, but those to the responder, which answers by itself. A SYN behind extension headers or in
fragments is shown to nobody, and dropped as all are: it is never answered.
"""

from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

__all__ = ["Instruction", "syn_filter"]

Instruction = tuple[int, int, int, int]

_LOAD_WORD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_LOAD_HALF: Final = 0x28
_LOAD_BYTE: Final = 0x30
_LOAD_HALF_X: Final = 0x48  # BPF_LD | BPF_H | BPF_IND
_LOAD_BYTE_X: Final = 0x50
_HEADER_LENGTH: Final = 0xB1  # BPF_LDX | BPF_B | BPF_MSH: X = 4 * (packet[k] & 15)
_AND: Final = 0x54
_EQUALS: Final = 0x15
_ANY_BIT: Final = 0x45
_RETURN: Final = 0x06

_FLAGS: Final = 0x17  # FIN, SYN, RST, ACK (RFC 9293 section 3.1)
_SYN: Final = 0x02
_TCP: Final = 6
_ALL: Final = 0x4_0000
_NEXT: Final = "next"
_SHOW: Final = "show"
_HIDE: Final = "hide"


class _Step(NamedTuple):
    """An instruction whose jumps have names."""

    code: int
    constant: int
    if_true: str = _NEXT
    if_false: str = _NEXT
    label: str = ""


def syn_filter(responder4: IPv4Address, responder6: IPv6Address, port: int) -> list[Instruction]:
    """Make the filter; the packet begins with its IP header (SOCK_DGRAM).

    Args:
        responder4, responder6: where the responder is.
        port: its port.
    """
    steps = [*_version(), *_v4(responder4, port), *_v6(responder6, port)]
    steps += [_Step(_RETURN, _ALL, label=_SHOW), _Step(_RETURN, 0, label=_HIDE)]
    return _assemble(steps)


def _version() -> list[_Step]:
    return [
        _Step(_LOAD_BYTE, 0),
        _Step(_AND, 0xF0),
        _Step(_EQUALS, 0x40, "v4"),
        _Step(_EQUALS, 0x60, "v6", _HIDE),
    ]


def _v4(responder: IPv4Address, port: int) -> list[_Step]:
    """RFC 791 section 3.1: fragments at 6, protocol at 9, destination at 16."""
    return [
        _Step(_LOAD_BYTE, 9, label="v4"),
        _Step(_EQUALS, _TCP, _NEXT, _HIDE),
        _Step(_LOAD_HALF, 6),
        _Step(_ANY_BIT, 0x3FFF, _HIDE, _NEXT),  # more fragments, or not the first
        _Step(_HEADER_LENGTH, 0),
        _Step(_LOAD_BYTE_X, 13),
        _Step(_AND, _FLAGS),
        _Step(_EQUALS, _SYN, _NEXT, _HIDE),
        _Step(_LOAD_WORD, 16),
        _Step(_EQUALS, int(responder), _NEXT, _SHOW),
        _Step(_LOAD_HALF_X, 2),
        _Step(_EQUALS, port, _HIDE, _SHOW),
    ]


def _v6(responder: IPv6Address, port: int) -> list[_Step]:
    """RFC 8200 section 3: next header at 6, destination at 24, and the segment at 40."""
    words = [int.from_bytes(responder.packed[at : at + 4], "big") for at in range(0, 16, 4)]
    steps = [
        _Step(_LOAD_BYTE, 6, label="v6"),
        _Step(_EQUALS, _TCP, _NEXT, _HIDE),
        _Step(_LOAD_BYTE, 40 + 13),
        _Step(_AND, _FLAGS),
        _Step(_EQUALS, _SYN, _NEXT, _HIDE),
    ]
    for number, word in enumerate(words):
        steps += [_Step(_LOAD_WORD, 24 + 4 * number), _Step(_EQUALS, word, _NEXT, _SHOW)]
    return [*steps, _Step(_LOAD_HALF, 40 + 2), _Step(_EQUALS, port, _HIDE, _SHOW)]


def _assemble(steps: list[_Step]) -> list[Instruction]:
    places = {step.label: at for at, step in enumerate(steps) if step.label}

    def jump(label: str, at: int) -> int:
        return 0 if label == _NEXT else places[label] - at - 1

    return [
        (step.code, jump(step.if_true, at), jump(step.if_false, at), step.constant) for at, step in enumerate(steps)
    ]
