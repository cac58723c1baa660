"""tcpdump (libpcap) reads the capture files that tabi writes."""

from ipaddress import ip_address

from helpers.programs import need, run
from tabi.addr import Endpoint, Name
from tabi.wrap import packets, pcapng

SOURCE, TARGET = Endpoint.parse("198.18.0.2:5000"), Endpoint.parse("198.18.1.1:9")
SOURCE6, TARGET6 = Endpoint.parse("[fd00:5ec::2]:5000"), Endpoint.parse("[fd00:5ec:0:1::1]:9")


def test_packets_with_names_and_comments_are_read_with_their_times() -> None:
    sent, sent6 = packets.datagram(SOURCE, TARGET, b"hello"), packets.datagram(SOURCE6, TARGET6, b"hello")
    capture = (
        pcapng.beginning("tabi", "run")
        + pcapng.names_block([(ip_address("198.18.1.1"), Name("one.test"))])
        + pcapng.packet_block(sent, 1_700_000_000_123_456_789, ["one.test:9", "é"])
        + pcapng.packet_block(sent6, 1_700_000_001_000_000_000)
        + pcapng.packet_block(packets.port_unreachable(SOURCE, TARGET, b"hello"), 1_700_000_002_000_000_000)
    )
    done = run(need("tcpdump"), "-nn", "-tt", "--nano", "-r", "-", sends=capture)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().splitlines() == [
        "1700000000.123456789 IP 198.18.0.2.5000 > 198.18.1.1.9: UDP, length 5",
        "1700000001.000000000 IP6 fd00:5ec::2.5000 > fd00:5ec:0:1::1.9: UDP, length 5",
        "1700000002.000000000 IP 198.18.1.1 > 198.18.0.2: ICMP 198.18.1.1 udp port 9 unreachable, length 41",
    ]
