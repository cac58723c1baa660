"""Values of ours as JSON has them, for comparing with what a test has written down."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from tabi.addr import Endpoint, Name
from tabi.config.load import Configuration
from tabi.policy.names import NameSet
from tabi.policy.networks import NetworkSet, PrivateNetworks


def plain(value: object) -> Any:
    """Turn a value into what JSON has; fields that are as their dataclass has them by default are left out."""
    match value:
        case None | bool() | str() | float():
            return value
        case Enum():
            return value.name.lower()
        case int():
            return value
        case bytes():
            return value.decode()
        case Endpoint() | Name() | IPv4Address() | IPv6Address():
            return str(value)
        case re.Pattern():
            return plain(value.pattern)
        case PrivateNetworks():
            return "@private"
        case NetworkSet():
            return sorted(map(str, value))
        case NameSet() | frozenset():
            return sorted(str(plain(one)) for one in value)
        case Mapping():
            return {str(plain(key)): plain(one) for key, one in value.items()}
        case Iterable():
            return [plain(one) for one in value]
    assert dataclasses.is_dataclass(value), value
    return {
        field.name: plain(getattr(value, field.name))
        for field in dataclasses.fields(value)
        if field.init and not _is_default(field, getattr(value, field.name))
    }


def _is_default(field: dataclasses.Field[Any], value: object) -> bool:
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
        return not value and not default if isinstance(default, NameSet | NetworkSet) else value == default
    return field.default is not dataclasses.MISSING and type(value) is type(field.default) and value == field.default


def plain_configuration(configuration: Configuration) -> dict[str, Any]:
    """Show a configuration: criteria by their kind, `to` only once."""
    shown = plain(configuration)
    del shown["path"]
    shown["warnings"] = [str(problem) for problem in configuration.warnings]
    shown["rules"] = []
    for rule in configuration.rules.rules:
        one = plain(rule)
        one.pop("target", None)
        one["criteria"] = {_kind(criterion): plain(criterion) for criterion in rule.criteria}
        shown["rules"].append(one)
    return {key: value for key, value in shown.items() if value not in ([], {}, None)}


def _kind(criterion: object) -> str:
    return f"{type(criterion).__name__} {getattr(criterion, 'what', '')}".strip()
