"""Which hosts only this machine reaches."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Return whether a host, without a port or brackets, is this machine's own.

    Of names, ``localhost`` alone is: what any other stands for may change.
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
