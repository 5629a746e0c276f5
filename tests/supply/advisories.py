"""What pip-audit says of what is installed, or that no advisory service was reachable."""

import json
from collections.abc import Iterable

_AWAY = ("ConnectionError", "NameResolutionError", "ServiceError", "ConnectTimeout", "ReadTimeout", "Max retries")


class AwayError(Exception):
    """No advisory service can be reached."""


def weaknesses(output: str, errors: str, code: int, own: Iterable[str] = ("rowmint",)) -> list[str]:
    """Return the weaknesses that pip-audit has found, and what it could not look up.

    Args:
        output: What it wrote in JSON.
        errors: What it wrote to standard error.
        code: Its exit code.
        own: Packages that no service knows of.

    Raises:
        AwayError: No service was reachable, or none knew a package: a mirror of an index has no advisories.
        RuntimeError: It failed otherwise.
    """
    try:
        report = json.loads(output)
    except ValueError as error:
        if any(word in errors for word in _AWAY):
            raise AwayError from error
        raise RuntimeError(f"pip-audit ended with {code}: {errors.strip()[-500:]}") from error
    audited = [one for one in report["dependencies"] if one["name"] not in own]
    if all("skip_reason" in one for one in audited):
        raise AwayError
    found = [f"{one['name']} could not be looked up: {one['skip_reason']}" for one in audited if "skip_reason" in one]
    found += [
        f"{one['name']} {one['version']} has {weakness['id']}; fixed in {_fixed(weakness['fix_versions'])}"
        for one in audited
        for weakness in one.get("vulns", [])
    ]
    return found


def _fixed(versions: list[str]) -> str:
    return ", ".join(versions) or "no release"
