"""Which replicas each channel to a sampler leads to, and how it balances calls over them.

gRPC itself balances: a channel that leads to several replicas carries a service config that names the policy, and
watches each replica's health, so that a draining replica gets no new call while others serve.
"""

import ipaddress
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from rowmint.errors import InvalidFieldError

_HEALTH_SERVICE = "rowmint.v1.SamplingService"
_ROUND_ROBIN: dict[str, object] = {"round_robin": {}}
_WEIGHTED: dict[str, object] = {
    "weighted_round_robin": {
        # A stream may last for hours: a load report in its trailer would come too late.
        "enableOobLoadReport": True,
        "oobReportingPeriod": "1s",
        # The first reports of a replica that has just started mean little.
        "blackoutPeriod": "3s",
        "weightExpirationPeriod": "30s",
        "weightUpdatePeriod": "1s",
        "errorUtilizationPenalty": 1.0,
    }
}
_POLICIES = {"weighted": [_WEIGHTED, _ROUND_ROBIN], "round_robin": [_ROUND_ROBIN]}
_MANY = 2  # replicas assumed for a name that may stand for any number of them


@dataclass(frozen=True)
class Target:
    """What one channel leads to.

    Attributes:
        name: gRPC's name of it.
        address: The addresses in it as they were given, with commas between them.
        balanced: Whether the channel chooses among replicas, and watches their health.
        replicas: How many are known to exist, at least.
    """

    name: str
    address: str
    balanced: bool
    replicas: int


def parse_balancing(text: str, field: str) -> str:
    """Return the name of a balancing.

    Raises:
        InvalidFieldError: There is no such balancing; the error names `field`.
    """
    if text not in _POLICIES:
        raise InvalidFieldError(field, f"{text!r} is unknown; choose one of {', '.join(_POLICIES)}")
    return text


def service_config(balancing: str) -> str:
    """Return the JSON by which a channel chooses among replicas.

    Args:
        balancing: ``weighted``, by the load that replicas report, or ``round_robin``.

    Raises:
        InvalidFieldError: There is no such balancing.
    """
    parse_balancing(balancing, "balancing")
    return json.dumps(
        {"loadBalancingConfig": _POLICIES[balancing], "healthCheckConfig": {"serviceName": _HEALTH_SERVICE}}
    )


def parse_addresses(given: str | Sequence[str], field: str) -> tuple[str, ...]:
    """Return the addresses in `given`: a sequence, or a text with commas between them.

    Raises:
        InvalidFieldError: No address is given, or one is not of the form host:port; the error names `field`.
    """
    parts = given.split(",") if isinstance(given, str) else [part for one in given for part in one.split(",")]
    addresses = tuple(part.strip() for part in parts if part.strip())
    if not addresses:
        raise InvalidFieldError(field, "no address is given; give host:port, such as 127.0.0.1:7401")
    for address in addresses:
        port = re.fullmatch(r"(?:\[[0-9a-fA-F:.%]+\]|[^\s:\[\]/]+):([0-9]{1,5})", address)
        if not (port and 0 < int(port[1]) < 65_536) and not re.match(r"(?:dns|unix|ipv4|ipv6|xds):", address):
            raise InvalidFieldError(field, f"{address!r} is not an address; give host:port, such as 127.0.0.1:7401")
    return addresses


def sampler_targets(addresses: Sequence[str]) -> tuple[Target, ...]:
    """Return the targets of the channels to the sampler: a single one wherever one channel can reach all addresses.

    - One host:port is one server, or a proxy that balances by itself: its channel neither balances nor watches health,
      as a proxy would report the health of an arbitrary replica.
    - One `dns:///name:port` (or `xds:`) is a name of any number of replicas: one channel, balanced.
    - Several numeric addresses of one IP version (`localhost` counts as 127.0.0.1) are one channel, balanced.
    - Several of which some are names, or whose versions differ, are a channel each, and calls take them in turn. Each
      is balanced over the addresses of its name, and its health is watched.
    """
    if len(addresses) == 1:
        (address,) = addresses
        many = address.startswith(("dns:", "xds:"))
        return (Target(address, address, balanced=many, replicas=_MANY if many else 1),)
    numeric = [_numeric(address) for address in addresses]
    for version in (4, 6):
        found = [text for kind, text in numeric if kind == version]
        if len(found) == len(addresses):
            return (Target(f"ipv{version}:{','.join(found)}", ",".join(addresses), balanced=True, replicas=len(found)),)
    return tuple(Target(address, address, balanced=True, replicas=1) for address in addresses)


def _numeric(address: str) -> tuple[int, str]:
    """Return the IP version of an address, 0 where it is a name to be resolved, and the bare address."""
    bare = re.sub(r"^ipv[46]:", "", address)
    host, _, port = bare.rpartition(":")
    if host == "localhost":
        host = "127.0.0.1"
    try:
        version = ipaddress.ip_address(host.strip("[]")).version
    except ValueError:
        return 0, address
    return version, f"{host}:{port}"
