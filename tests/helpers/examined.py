"""Proxies as `tabi doctor` examines them, a question at a time."""

from ipaddress import ip_address
from typing import Any

from helpers.waiting import PATIENCE
from tabi.addr import Name
from tabi.client.doctor.examination import Examination
from tabi.client.doctor.finding import Result
from tabi.client.doctor.patient import Need, Patient
from tabi.client.doctor.place import find_place
from tabi.client.doctor.rounds import examinations
from tabi.machine.url import parse_proxy
from tabi.wire.socks5 import Method

__all__ = ["NAMES", "SHORT", "patient", "put"]

NAMES = {"localhost": ["127.0.0.1", "::1"], "two.example": ["127.0.0.1", "127.0.0.2"]}
SHORT = 0.5  # seconds; for faults that show by silence, where a slow machine makes it no less silent


def patient(url: str, patience: float = PATIENCE, **more: Any) -> Patient:
    """Make one. What /etc/hosts has is that of NAMES, whatever it is on this machine."""
    hop = parse_proxy(url)
    place = find_place(hop.proxy, PATIENCE, None)
    names = tuple(map(ip_address, NAMES["localhost"]))
    twofold = Name("two.example"), tuple(map(ip_address, NAMES["two.example"]))
    return Patient(hop, place._replace(names=names, twofold=twofold), patience, **more)


def put(one: Patient, name: str) -> Result:
    """Put one question, as if all before it had been answered well."""
    one.has |= set(Need)
    one.methods = (Method.USERPASS if one.hop.password else Method.NONE,)
    one.method = one.methods[0]
    return find(one, name).put(one)


def find(one: Patient, name: str) -> Examination:
    (found,) = [examination for _, examination in examinations(one) if examination.name == name]
    return found
