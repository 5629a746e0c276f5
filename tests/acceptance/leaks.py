"""What no log may hold: secrets, by their form, and the cells of `customers_csv` that nothing else looks like."""

import base64
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

from tests.acceptance.processes import customers_csv

_SECRETS = {
    "an API key": re.compile(r"rowmint_[0-9a-f]{12}_[A-Za-z0-9_-]{20,}"),
    "a bearer token": re.compile(r"(?i)bearer\s+[A-Za-z0-9_-]{8,}|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\."),
    "a private key": re.compile(r"PRIVATE KEY-----"),
    "a password in a URL": re.compile(r"://[^\s/:@\"']+:[^\s/@\"']+@"),
    "a secret in options": re.compile(r"secret_access_key\W+[A-Za-z0-9]{8,}"),
}
# Ids are as long as some figures, and years, plans and ages say little; these are in no log by chance.
_CITIES = re.compile(r"\b(?:Lisbon|Oslo|Quito|Hanoi|Accra|Lima)\b")
_JOINED = re.compile(r"\b20(?:1[5-9]|2[0-3])-\d\d-\d\d[T ]08:\d\d:00\b")
_INCOME = re.compile(r"(?<![\d.])\d{4,6}\.\d{1,2}(?![\d.])")
_INCOMES = frozenset(line.split(",")[4] for line in customers_csv(2_000).decode().splitlines()[1:])


def leaks(text: str) -> list[str]:
    """Return what a text holds that it must not, each with where it stands but for what it is."""
    found = [f"line {_line(text, match)}: {kind}" for kind, form in _SECRETS.items() for match in form.finditer(text)]
    found += [f"line {_line(text, match)}: a city" for match in _CITIES.finditer(text)]
    found += [f"line {_line(text, match)}: a day of joining" for match in _JOINED.finditer(text)]
    found += [f"line {_line(text, match)}: an income" for match in _INCOME.finditer(text) if match[0] in _INCOMES]
    return found


def _line(text: str, match: re.Match[str]) -> int:
    return text.count("\n", 0, match.start()) + 1


def leaks_of_services(folder: Path) -> Iterator[str]:
    """Yield what the logs of all services below a folder hold that they must not."""
    for log in sorted([*folder.rglob("trainer_service-*.log"), *folder.rglob("sampler_service-*.log")]):
        for leak in leaks(log.read_text(errors="replace")):
            yield f"{log}, {leak}"


def forms_of(value: str) -> set[str]:
    """Return a value as it might be written: as it is, escaped, in hex, in base64 and in a URL."""
    data = value.encode()
    return {
        value,
        value.encode("unicode_escape").decode(),
        json.dumps(value)[1:-1],
        data.hex(),
        base64.b64encode(data).decode().rstrip("="),
        base64.urlsafe_b64encode(data).decode().rstrip("="),
        quote(value),
    }


def values_in(text: str, values: Iterable[str]) -> list[str]:
    """Return those of `values` that a text holds in any form."""
    return sorted(value for value in values if any(form in text for form in forms_of(value)))
