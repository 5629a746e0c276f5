"""Which hosts are loopback addresses."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Return whether a host, without port or brackets, is a loopback address.

    Of host names only ``localhost`` counts: what other names resolve to may change.
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
