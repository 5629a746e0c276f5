"""The access file: API keys and certificates, and the roles granted to each.

    {
      "keys": [
        {"id": "0f3a9c51d2e7", "name": "ci", "sha256": "9b…", "grants": {"flights": "trainer"},
         "create_time": "2026-01-31T08:00:00Z", "expire_time": null}
      ],
      "certificates": [
        {"name": "spiffe://example.org/nightly", "grants": {"*": "reader"}}
      ]
    }

A key's text is ``rowmint_<id>_<secret>``; the file holds its SHA-256. A salted, slow hash is for passwords chosen by
people; the secret has 256 random bits, which cannot be guessed, however fast the hash.
"""

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from rowmint.errors import InvalidFieldError, ResourceNotFoundError, UnavailableError
from rowmint.lazy import lazy
from rowmint.objects import files
from rowmint.security.identity import Grants, Identity, parse_grants

KEY_PREFIX = "rowmint_"
"""Prefix of the text of every API key, and of no other credential."""

_KEY_TEXT = re.compile(rf"{KEY_PREFIX}([0-9a-f]{{12}})_[A-Za-z0-9_-]{{43}}")
_KEY_FIELDS = ("id", "name", "sha256", "grants", "create_time", "expire_time")
_CERTIFICATE_FIELDS = ("name", "grants")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})")
_UNMATCHED_SHA256 = "0" * 64
"""Compared with the given key where the id is unknown, so that both cases take equal time; no known text has it."""
_MAX_KEY_NAME = 100
_MAX_CERTIFICATE_NAME = 2048
"""Characters; the longest SPIFFE id has as many."""
_OWNER_ONLY = 0o600


@dataclass(frozen=True)
class AccessKey:
    """An API key, without its secret.

    Attributes:
        id: 12 hexadecimal digits; part of the key's text, not secret.
        name: Name of its holder. Two keys may have the same name, so that one can replace the other without a gap.
        sha256: SHA-256 of its whole text, hexadecimal.
        grants: The roles it grants, by project.
        create_time: When it was created.
        expire_time: When it expires, or None if it does not expire.
    """

    id: str
    name: str
    sha256: str = field(repr=False)
    grants: Grants
    create_time: datetime
    expire_time: datetime | None


@dataclass(frozen=True)
class AccessCertificate:
    """The roles granted to a client certificate.

    Attributes:
        name: The certificate's common name, or one of its subject alternative names; compared literally.
        grants: The roles, by project.
    """

    name: str
    grants: Grants


@dataclass(frozen=True)
class AccessList:
    """The content of an access file."""

    keys: tuple[AccessKey, ...] = ()
    certificates: tuple[AccessCertificate, ...] = ()

    @lazy
    def _by_id(self) -> Mapping[str, AccessKey]:
        return {key.id: key for key in self.keys}

    def identify_key(self, text: str, now: datetime) -> Identity | None:
        """Return the identity of a key's holder, or None if the key is unknown or has expired."""
        match = _KEY_TEXT.fullmatch(text)
        if match is None:
            return None
        found = self._by_id.get(match[1])
        expected = _UNMATCHED_SHA256 if found is None else found.sha256
        if not hmac.compare_digest(_sha256(text), expected) or found is None:
            return None
        if found.expire_time is not None and found.expire_time <= now:
            return None
        return Identity(f"key:{found.name}", found.grants)

    def identify_certificate(self, names: Collection[str]) -> Identity | None:
        """Return the identity of a certificate with these names, or None if none of them has an entry.

        If several names have entries, the first entry in the file applies; grants are not combined.
        """
        found = next((certificate for certificate in self.certificates if certificate.name in names), None)
        return None if found is None else Identity(f"certificate:{found.name}", found.grants)


class AccessFile:
    """An access file in use: reloaded when it changes. Thread-safe.

    If a changed file cannot be parsed, the previous content stays in use.

    Args:
        path: The file.

    Raises:
        UnavailableError: It cannot be read.
        InvalidFieldError: It cannot be parsed.
    """

    def __init__(self, path: Path) -> None:
        # Imports structlog, which commands that only write the file do not need.
        from rowmint.security.reloaded_file import ReloadedFile  # noqa: PLC0415

        self._file = ReloadedFile([path], partial(_parse_contents, path), "the access file")

    def identify_key(self, text: str, now: datetime) -> Identity | None:
        """See `AccessList.identify_key`."""
        return self._file.value.identify_key(text, now)

    def identify_certificate(self, names: Collection[str]) -> Identity | None:
        """See `AccessList.identify_certificate`."""
        return self._file.value.identify_certificate(names)


def read_access(path: Path) -> AccessList:
    """Return the content of an access file.

    Raises:
        UnavailableError: It cannot be read.
        InvalidFieldError: It cannot be parsed; the error names the invalid entry.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise UnavailableError(
            f"{path}: the access file does not exist; create it with `rowmint keys create`"
        ) from error
    except OSError as error:
        raise UnavailableError(f"{path}: {error.strerror or 'cannot be read'}") from error
    return parse_access(content, str(path))


def create_key(
    path: Path, name: str, grants: Grants, now: datetime, lifetime: timedelta | None = None
) -> tuple[str, AccessKey]:
    """Add a new key to an access file, created if it does not exist; return the key's text and its entry.

    The text is stored nowhere: a lost key cannot be recovered, only replaced.

    Args:
        path: The file.
        name: Name of the key's holder.
        grants: The roles it grants, by project.
        now: The current time.
        lifetime: Time after which it expires, or None if it does not expire.

    Raises:
        UnavailableError: The file cannot be read.
        InvalidFieldError: It cannot be parsed, or the name is invalid.
    """
    key_id = secrets.token_hex(6)
    text = f"{KEY_PREFIX}{key_id}_{secrets.token_urlsafe(32)}"
    created = now.replace(microsecond=0)
    key = AccessKey(key_id, name, _sha256(text), grants, created, None if lifetime is None else created + lifetime)
    _update(path, lambda access: replace(access, keys=(*access.keys, key)), create=True)
    return text, key


def revoke_key(path: Path, key_id: str) -> None:
    """Remove a key from an access file.

    Raises:
        ResourceNotFoundError: The file has no such key.
        UnavailableError: The file cannot be read.
        InvalidFieldError: It cannot be parsed.
    """

    def without(access: AccessList) -> AccessList:
        kept = tuple(key for key in access.keys if key.id != key_id)
        if len(kept) == len(access.keys):
            raise ResourceNotFoundError(
                f"{path}: there is no key {_shown(key_id)}; `rowmint keys list` shows the existing ones"
            )
        return replace(access, keys=kept)

    _update(path, without)


def grant_certificate(path: Path, name: str, grants: Grants) -> AccessCertificate:
    """Grant roles to a certificate; return its entry.

    Its roles in other projects stay. The file is created if it does not exist.

    Raises:
        UnavailableError: The file cannot be read.
        InvalidFieldError: It cannot be parsed, or the name is invalid.
    """

    def granted(access: AccessList) -> AccessList:
        if all(one.name != name for one in access.certificates):
            return replace(access, certificates=(*access.certificates, AccessCertificate(name, grants)))
        changed = (
            replace(one, grants={**one.grants, **grants}) if one.name == name else one for one in access.certificates
        )
        return replace(access, certificates=tuple(changed))

    access = _update(path, granted, create=True)
    return next(one for one in access.certificates if one.name == name)


def ungrant_certificate(path: Path, name: str) -> None:
    """Remove a certificate's name, with all its grants, from an access file.

    Raises:
        ResourceNotFoundError: The file has no such name.
        UnavailableError: The file cannot be read.
        InvalidFieldError: It cannot be parsed.
    """

    def without(access: AccessList) -> AccessList:
        kept = tuple(one for one in access.certificates if one.name != name)
        if len(kept) == len(access.certificates):
            raise ResourceNotFoundError(
                f"{path}: no roles are granted to a certificate named {name!r}; `rowmint keys list` shows the existing"
                " grants"
            )
        return replace(access, certificates=kept)

    _update(path, without)


def _update(path: Path, change: Callable[[AccessList], AccessList], *, create: bool = False) -> AccessList:
    """Change an access file atomically: readers see the old or the new content, and no concurrent update is lost."""
    path = path.resolve()  # a symbolic link stays, its target is replaced
    if create:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    elif not path.exists():
        return change(read_access(path))
    with _locked(path):
        access = change(AccessList() if create and not path.exists() else read_access(path))
        content = _formatted(access)
        # Parsed before it is written: invalid content is never stored.
        access = parse_access(content, str(path))
        files.replace(path, lambda file: _write(file, content, path))
    return access


def _write(file: int, content: bytes, target: Path) -> None:
    """Write a new file with owner and mode of the one it replaces, or for the owner only if there is none."""
    try:
        old = target.stat()
    except FileNotFoundError:
        os.fchmod(file, _OWNER_ONLY)
    else:
        new = os.fstat(file)
        if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
            os.fchown(file, old.st_uid, old.st_gid)
        os.fchmod(file, old.st_mode & 0o777)
    files.write_all(file, content)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the exclusive lock for updates of a file: a lock file beside it, as the file itself is replaced."""
    lock = os.open(
        path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _OWNER_ONLY
    )
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _shown(key_id: str) -> str:
    """Return an id for an error message; a whole key given by mistake must not end up in a log."""
    return repr(key_id) if len(key_id) <= 12 else "of that id (12 hexadecimal digits)"


def _formatted(access: AccessList) -> bytes:
    content = {
        "keys": [
            {
                "id": key.id,
                "name": key.name,
                "sha256": key.sha256,
                "grants": role_names(key.grants),
                "create_time": time_text(key.create_time),
                "expire_time": None if key.expire_time is None else time_text(key.expire_time),
            }
            for key in access.keys
        ],
        "certificates": [{"name": one.name, "grants": role_names(one.grants)} for one in access.certificates],
    }
    return (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode()


def role_names(grants: Grants) -> dict[str, str]:
    """Return grants in the form that `parse_grants` takes."""
    return {project: role.name.lower() for project, role in grants.items()}


def time_text(time: datetime) -> str:
    """Return a time as RFC 3339 text, in UTC."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _parse_contents(path: Path, contents: Sequence[bytes]) -> AccessList:
    return parse_access(contents[0], str(path))


def parse_access(content: bytes, where: str) -> AccessList:
    """Parse the content of an access file.

    Args:
        content: JSON, in the form that this module's docstring shows.
        where: Path of the file, for errors.

    Raises:
        InvalidFieldError: The content is invalid; the error names the entry, and never quotes a digest.
    """
    try:
        given = json.loads(content, object_pairs_hook=_without_repeats)
    except json.JSONDecodeError as error:
        raise InvalidFieldError(where, f"is not JSON: {error.msg} in line {error.lineno}") from error
    except _RepeatedError as error:
        raise InvalidFieldError(where, f"an object has two fields named {error.name!r}") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, a number of thousands of digits, nesting too deep
        raise InvalidFieldError(where, "is not JSON that can be parsed") from error
    _check_fields(given, ("keys", "certificates"), (), where)
    access = AccessList(
        tuple(_key(entry, f"{where}: keys[{number}]") for number, entry in _entries(given, "keys", where)),
        tuple(
            _certificate(entry, f"{where}: certificates[{number}]")
            for number, entry in _entries(given, "certificates", where)
        ),
    )
    _check_unique([key.id for key in access.keys], f"{where}: keys", "id")
    _check_unique([one.name for one in access.certificates], f"{where}: certificates", "name")
    return access


class _RepeatedError(Exception):
    """A JSON object has a field twice, which parsers resolve differently."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise _RepeatedError(name)
        found[name] = value
    return found


def _entries(given: Mapping[str, Any], name: str, where: str) -> Iterator[tuple[int, Any]]:
    entries = given.get(name, [])
    if not isinstance(entries, list):
        raise InvalidFieldError(f"{where}: {name}", "must be a list")
    return iter(enumerate(entries))


def _check_fields(given: object, known: Collection[str], required: Collection[str], where: str) -> None:
    if not isinstance(given, dict):
        raise InvalidFieldError(where, "must be an object")
    for name in given:
        if name not in known:
            raise InvalidFieldError(where, f"has an unknown field {name!r}; known are {', '.join(known)}")
    for name in required:
        if name not in given:
            raise InvalidFieldError(where, f"has no field {name!r}")


def _check_unique(values: Sequence[str], where: str, what: str) -> None:
    seen = set()
    for number, value in enumerate(values):
        if value in seen:
            raise InvalidFieldError(f"{where}[{number}].{what}", f"{value!r} is also in an earlier entry")
        seen.add(value)


def _key(given: Any, where: str) -> AccessKey:
    _check_fields(given, _KEY_FIELDS, _KEY_FIELDS, where)
    create_time = _time(given["create_time"], f"{where}.create_time")
    expire_time = given["expire_time"]
    return AccessKey(
        _matching(given["id"], "[0-9a-f]{12}", f"{where}.id", "12 hexadecimal digits"),
        _name(given["name"], _MAX_KEY_NAME, f"{where}.name"),
        _matching(given["sha256"], "[0-9a-f]{64}", f"{where}.sha256", "64 hexadecimal digits"),
        parse_grants(given["grants"], f"{where}.grants"),
        create_time,
        None if expire_time is None else _time(expire_time, f"{where}.expire_time"),
    )


def _certificate(given: Any, where: str) -> AccessCertificate:
    _check_fields(given, _CERTIFICATE_FIELDS, _CERTIFICATE_FIELDS, where)
    return AccessCertificate(
        _name(given["name"], _MAX_CERTIFICATE_NAME, f"{where}.name"), parse_grants(given["grants"], f"{where}.grants")
    )


def _matching(given: object, pattern: str, where: str, form: str) -> str:
    # The value is not quoted: a key may have been put where its digest belongs.
    if not isinstance(given, str) or not re.fullmatch(pattern, given):
        raise InvalidFieldError(where, f"must be {form}, lower case")
    return given


def _name(given: object, longest: int, where: str) -> str:
    """Return a name that is safe in a log line."""
    if not isinstance(given, str) or not 0 < len(given) <= longest or not given.isprintable() or given != given.strip():
        raise InvalidFieldError(where, f"must be 1 to {longest} printable characters, without outer spaces")
    return given


def _time(given: object, where: str) -> datetime:
    form = "must be a time such as 2026-01-31T08:00:00Z (RFC 3339)"
    if not isinstance(given, str) or not _TIME.fullmatch(given):
        raise InvalidFieldError(where, form)
    try:
        return datetime.fromisoformat(given)
    except ValueError as error:
        raise InvalidFieldError(where, form) from error
