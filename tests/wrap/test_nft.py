"""The gate's table as nft(8) reads it from the kernel."""

import errno
import re
import subprocess

import pytest

from helpers.namespaces import Namespace, why_not
from helpers.programs import need
from helpers.waiting import PATIENCE
from tabi.wrap import nft, wiring

_NO_TPROXY = (errno.ENOENT, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT)
_ARRIVING = """\
type filter hook prerouting priority raw; policy drop;
iifname != "e1" accept
ip daddr 198.18.0.1 tcp dport 53 accept
ip6 daddr fd00:5ec::1 tcp dport 53 accept
tcp flags syn / fin,syn,rst,ack drop
meta l4proto tcp accept
meta l4proto udp accept
"""
_CATCHING = """\
type filter hook prerouting priority mangle; policy accept;
iifname "lo" tcp flags syn / fin,syn,rst,ack tproxy to :9 accept
iifname "e1" ip daddr 198.18.0.1 udp dport 53 accept
iifname "e1" ip6 daddr fd00:5ec::1 udp dport 53 accept
iifname "e1" meta l4proto udp tproxy to :9 accept
"""


@pytest.mark.parametrize(("catch", "chains"), [(9, (_ARRIVING, _CATCHING)), (None, (_ARRIVING,))])
def test_the_kernel_has_the_table_that_is_drawn(catch: int | None, chains: tuple[str, ...]) -> None:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    listing = need("nft")
    with Namespace("gate") as gate:
        try:
            gate.call(nft.install, wiring.GATE_LINK, (wiring.GATE4, wiring.GATE6), wiring.NAMES_PORT, catch)
        except OSError as error:
            if catch is None or error.errno not in _NO_TPROXY:
                raise
            pytest.skip(f"this kernel has no tproxy: {error}")
        command = gate.command(listing, "list", "ruleset")
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE)
    found = re.findall(r"chain \w+ \{\n(.*?)\n\t\}", done.stdout, re.DOTALL)
    assert [spelled(one) for one in found] == list(chains)


def spelled(chain: str) -> str:
    """Write a chain as today's nft(8) does; older ones know neither the names of priorities nor masks of flags."""
    text = re.sub(r"^\s+", "", chain, flags=re.MULTILINE) + "\n"
    text = text.replace("priority -300;", "priority raw;").replace("priority -150;", "priority mangle;")
    return re.sub(
        r"tcp flags & \((.*?)\) == syn", lambda found: f"tcp flags syn / {found[1].replace(' | ', ',')}", text
    )
