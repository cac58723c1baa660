"""The gate's table as nft(8) reads it from the kernel."""

import re
import subprocess

import pytest

from helpers.namespaces import Namespace, why_not
from helpers.programs import need
from tabi.wrap import nft, wiring

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
        gate.call(nft.install, wiring.GATE_LINK, (wiring.GATE4, wiring.GATE6), wiring.NAMES_PORT, catch)
        done = subprocess.run(gate.command(listing, "list", "ruleset"), check=True, capture_output=True, text=True)
    found = re.findall(r"chain \w+ \{\n(.*?)\n\t\}", done.stdout, re.DOTALL)
    assert [re.sub(r"^\s+", "", one, flags=re.MULTILINE) + "\n" for one in found] == list(chains)
