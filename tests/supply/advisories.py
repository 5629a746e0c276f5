"""What pip-audit says of what is installed, or that nobody could be asked."""

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
        AwayError: It could ask nobody, or nobody knew anything: a mirror of an index has no advisories.
        RuntimeError: It failed otherwise.
    """
    try:
        report = json.loads(output)
    except ValueError as error:
        if any(word in errors for word in _AWAY):
            raise AwayError from error
        raise RuntimeError(f"pip-audit ended with {code}: {errors.strip()[-500:]}") from error
    asked = [one for one in report["dependencies"] if one["name"] not in own]
    if all("skip_reason" in one for one in asked):
        raise AwayError
    found = [f"{one['name']} could not be looked up: {one['skip_reason']}" for one in asked if "skip_reason" in one]
    found += [
        f"{one['name']} {one['version']} has {weakness['id']}; mended in {_mended(weakness['fix_versions'])}"
        for one in asked
        for weakness in one.get("vulns", [])
    ]
    return found


def _mended(versions: list[str]) -> str:
    return ", ".join(versions) or "no release"
