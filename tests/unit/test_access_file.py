"""The access file, and who calls by what they send."""

import asyncio
import hashlib
import json
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from rowmint.errors import InvalidFieldError, ResourceNotFoundError, UnauthenticatedError, UnavailableError
from rowmint.security.access_file import (
    AccessCertificate,
    AccessFile,
    AccessKey,
    AccessList,
    create_key,
    grant_certificate,
    parse_access,
    read_access,
    revoke_key,
    ungrant_certificate,
)
from rowmint.security.authenticator import Authenticator
from rowmint.security.identity import Identity, Role
from rowmint.security.peer_certificate import PeerCertificate

NOW = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)
READER = {"flights": Role.READER}
ADMIN = {"*": Role.ADMIN}
TEXT = "rowmint_0123456789ab_" + "A" * 43
ENTRY = {
    "id": "0123456789ab",
    "name": "ci",
    "sha256": hashlib.sha256(TEXT.encode()).hexdigest(),
    "grants": {"flights": "reader"},
    "create_time": "2026-01-01T00:00:00Z",
    "expire_time": None,
}
SPIFFE = "spiffe://example.org/nightly"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "access.json"


def content(*keys, certificates=()):
    return json.dumps({"keys": list(keys), "certificates": list(certificates)}).encode()


def refusal(given):
    with pytest.raises(InvalidFieldError) as caught:
        parse_access(given, "access.json")
    return caught.value.message


def test_an_access_file_is_read_as_it_is_described():
    given = content(
        {**ENTRY, "expire_time": "2026-03-01T01:30:00.5+01:30"},
        certificates=[{"name": SPIFFE, "grants": {"*": "trainer", "flights": "admin"}}],
    )
    assert parse_access(given, "access.json") == AccessList(
        (
            AccessKey(
                "0123456789ab",
                "ci",
                ENTRY["sha256"],
                READER,
                datetime(2026, 1, 1, tzinfo=UTC),
                datetime(2026, 3, 1, 0, 0, 0, 500_000, tzinfo=UTC),
            ),
        ),
        (AccessCertificate(SPIFFE, {"*": Role.TRAINER, "flights": Role.ADMIN}),),
    )
    assert parse_access(b"{}", "access.json") == AccessList()


@pytest.mark.parametrize(
    ("change", "reported"),
    [
        ({"id": "0123456789AB"}, "keys[1].id: must be 12 hexadecimal digits, lower case"),
        ({"id": 12}, "keys[1].id: must be 12 hexadecimal digits, lower case"),
        ({"name": ""}, "keys[1].name: must be 1 to 100 printable characters, without outer spaces"),
        ({"name": "a\nb"}, "keys[1].name: must be 1 to 100 printable characters, without outer spaces"),
        ({"name": "a "}, "keys[1].name: must be 1 to 100 printable characters, without outer spaces"),
        (
            {"name": "a" * 101},
            "keys[1].name: must be 1 to 100 printable characters, without outer spaces",
        ),
        ({"sha256": TEXT}, "keys[1].sha256: must be 64 hexadecimal digits, lower case"),
        (
            {"grants": {"flights": "owner"}},
            "keys[1].grants: the role in project 'flights' must be reader, trainer or admin",
        ),
        ({"grants": {"flights": 2}}, "keys[1].grants: the role in project 'flights' must be reader, trainer or admin"),
        ({"grants": None}, 'keys[1].grants: must be an object of roles by project, such as {"flights": "trainer"}'),
        ({"create_time": None}, "keys[1].create_time: must be a time such as 2026-01-31T08:00:00Z (RFC 3339)"),
        ({"expire_time": "2026-01-31"}, "keys[1].expire_time: must be a time such as 2026-01-31T08:00:00Z (RFC 3339)"),
        # Without its zone the instant is unknown.
        (
            {"expire_time": "2026-01-31T08:00:00"},
            "keys[1].expire_time: must be a time such as 2026-01-31T08:00:00Z (RFC 3339)",
        ),
        (
            {"expire_time": "2026-02-30T08:00:00Z"},
            "keys[1].expire_time: must be a time such as 2026-01-31T08:00:00Z (RFC 3339)",
        ),
        (
            {"expires": None},
            "keys[1]: has an unknown field 'expires'; known are id, name, sha256, grants, create_time,",
        ),
    ],
)
def test_a_wrong_entry_is_refused_with_its_position(change, reported):
    message = refusal(content({**ENTRY, "id": "ba9876543210"}, {**ENTRY, **change}))
    assert message.startswith(f"access.json: {reported}")
    assert TEXT not in message


@pytest.mark.parametrize("missing", list(ENTRY))
def test_an_entry_has_every_field(missing):
    entry = {name: value for name, value in ENTRY.items() if name != missing}
    assert refusal(content(entry)) == f"access.json: keys[0]: has no field {missing!r}"


@pytest.mark.parametrize(
    ("given", "reported"),
    [
        (b"", "access.json: is not JSON: Expecting value in line 1"),
        (b"{\n,}", "access.json: is not JSON: Expecting property name enclosed in double quotes in line 2"),
        (b"\xff\xfe{", "access.json: is not JSON that can be parsed"),
        pytest.param(b"[" * 100_000, "access.json: is not JSON that can be parsed", id="deep"),
        pytest.param(b"1" * 10_000, "access.json: is not JSON that can be parsed", id="long number"),
        (b"[]", "access.json: must be an object"),
        (b'{"keys": {}}', "access.json: keys: must be a list"),
        (b'{"keys": [1]}', "access.json: keys[0]: must be an object"),
        (b'{"key": []}', "access.json: has an unknown field 'key'; known are keys, certificates"),
        (
            b'{"certificates": [{"name": "a", "grants": {"p": "reader", "p": "admin"}}]}',
            "access.json: an object has two fields named 'p'",
        ),
        (
            content(certificates=[{"name": "a", "grants": {}}, {"name": "a", "grants": {}}]),
            "access.json: certificates[1].name: 'a' is also in an earlier entry",
        ),
        (content(ENTRY, ENTRY), "access.json: keys[1].id: '0123456789ab' is also in an earlier entry"),
        (content(certificates=[{"name": "a"}]), "access.json: certificates[0]: has no field 'grants'"),
        (
            content(certificates=[{"name": "a", "grants": {}, "role": "admin"}]),
            "access.json: certificates[0]: has an unknown field 'role'; known are name, grants",
        ),
    ],
)
def test_a_malformed_file_is_refused(given, reported):
    assert refusal(given) == reported


def test_a_key_identifies_its_holder_and_its_roles():
    access = parse_access(content(ENTRY), "access.json")
    assert access.identify_key(TEXT, NOW) == Identity("key:ci", READER)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rowmint_",
        "0123456789ab",
        ENTRY["sha256"],
        TEXT[:-1] + "B",  # the secret of another
        TEXT.replace("0123456789ab", "ba9876543210"),  # no such id
        TEXT + "A",
        TEXT[:-1],
        TEXT + "\n",
        TEXT.upper(),
        TEXT.replace("A", "\u0391"),
    ],
)
def test_a_text_that_is_not_the_key_is_unknown(text):
    assert parse_access(content(ENTRY), "access.json").identify_key(text, NOW) is None


def test_a_key_is_good_until_the_second_it_expires():
    access = parse_access(content({**ENTRY, "expire_time": "2026-01-31T09:00:00+01:00"}), "access.json")
    assert access.identify_key(TEXT, NOW - timedelta(microseconds=1)) == Identity("key:ci", READER)
    assert access.identify_key(TEXT, NOW) is None


def test_of_a_certificates_names_the_one_first_in_the_file_decides_alone():
    access = parse_access(
        content(
            certificates=[
                {"name": SPIFFE, "grants": {"flights": "reader"}},
                {"name": "ada", "grants": {"*": "admin"}},
            ]
        ),
        "access.json",
    )
    assert access.identify_certificate(["ada", SPIFFE]) == Identity(f"certificate:{SPIFFE}", READER)
    assert access.identify_certificate({"ada"}) == Identity("certificate:ada", ADMIN)


@pytest.mark.parametrize("names", [[], ["Ada"], ["ada "], ["ad"], ["ada.example.org"], [""]])
def test_a_name_that_only_resembles_a_granted_one_is_unknown(names):
    access = parse_access(content(certificates=[{"name": "ada", "grants": {"*": "admin"}}]), "access.json")
    assert access.identify_certificate(names) is None


def test_a_new_key_is_in_force_and_its_text_is_nowhere_in_the_file(path):
    text, key = create_key(path, "ci", READER, NOW.replace(microsecond=7), timedelta(days=1))
    assert re.fullmatch(r"rowmint_[0-9a-f]{12}_[A-Za-z0-9_-]{43}", text)
    assert key == AccessKey(
        text[8:20], "ci", hashlib.sha256(text.encode()).hexdigest(), READER, NOW, NOW + timedelta(days=1)
    )
    assert read_access(path) == AccessList((key,))
    assert AccessFile(path).identify_key(text, NOW) == Identity("key:ci", READER)
    assert text[21:] not in path.read_text()
    assert key.sha256 not in repr(key)


def test_every_key_is_another(path):
    texts = {create_key(path, "ci", READER, NOW)[0] for _ in range(20)}
    assert len(texts) == 20
    assert len(read_access(path).keys) == 20


def test_two_keys_may_have_one_name_while_one_takes_over(path):
    (old, _), (new, _) = create_key(path, "ci", READER, NOW), create_key(path, "ci", ADMIN, NOW)
    access = AccessFile(path)
    assert access.identify_key(old, NOW) == Identity("key:ci", READER)
    assert access.identify_key(new, NOW) == Identity("key:ci", ADMIN)


def test_a_revoked_key_is_refused_from_then_on_and_the_others_are_not(path):
    gone, key = create_key(path, "ci", READER, NOW)
    kept, _ = create_key(path, "ada", ADMIN, NOW)
    access = AccessFile(path)
    assert access.identify_key(gone, NOW) == Identity("key:ci", READER)
    revoke_key(path, key.id)
    assert access.identify_key(gone, NOW) is None
    assert access.identify_key(kept, NOW) == Identity("key:ada", ADMIN)


def test_what_is_not_there_cannot_be_revoked(path):
    create_key(path, "ci", READER, NOW)
    before = path.read_bytes()
    with pytest.raises(ResourceNotFoundError, match="there is no key '000000000000'"):
        revoke_key(path, "000000000000")
    with pytest.raises(ResourceNotFoundError) as caught:
        revoke_key(path, TEXT)  # the whole key, where its id is expected
    assert TEXT not in caught.value.message
    with pytest.raises(ResourceNotFoundError, match="no roles are granted to a certificate named 'ada'"):
        ungrant_certificate(path, "ada")
    assert path.read_bytes() == before


def test_a_missing_file_is_created_by_additions_only(path):
    for change in (lambda: revoke_key(path, "000000000000"), lambda: ungrant_certificate(path, "ada")):
        with pytest.raises(UnavailableError, match="does not exist; create it with `rowmint keys create`"):
            change()
    assert list(path.parent.iterdir()) == []
    grant_certificate(path, "ada", READER)
    assert read_access(path) == AccessList((), (AccessCertificate("ada", READER),))


def test_roles_of_a_certificate_are_added_and_then_removed(path):
    grant_certificate(path, "ada", READER)
    grant_certificate(path, SPIFFE, ADMIN)
    assert grant_certificate(path, "ada", {"*": Role.READER, "flights": Role.TRAINER}) == AccessCertificate(
        "ada", {"flights": Role.TRAINER, "*": Role.READER}
    )
    assert [one.name for one in read_access(path).certificates] == ["ada", SPIFFE]
    access = AccessFile(path)
    ungrant_certificate(path, "ada")
    assert access.identify_certificate(["ada"]) is None
    assert access.identify_certificate([SPIFFE]) == Identity(f"certificate:{SPIFFE}", ADMIN)


@pytest.mark.parametrize("name", ["", " a", "a\x1b[0m", "a\nb", "a" * 101])
def test_a_name_that_could_not_be_read_back_is_not_written(path, name):
    create_key(path, "ci", READER, NOW)
    before = path.read_bytes()
    with pytest.raises(InvalidFieldError, match=r"keys\[1\]\.name"):
        create_key(path, name, READER, NOW)
    assert path.read_bytes() == before


def test_a_file_that_cannot_be_understood_is_not_written_over(path):
    path.write_bytes(b'{"keys": [}')
    with pytest.raises(InvalidFieldError, match="is not JSON"):
        create_key(path, "ci", READER, NOW)
    assert path.read_bytes() == b'{"keys": [}'


def test_changes_made_at_once_are_all_kept(path):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: create_key(path, f"k{number}", READER, NOW)[1], range(24)))
    assert sorted(read_access(path).keys, key=lambda key: key.id) == sorted(made, key=lambda key: key.id)


def test_the_file_and_its_folder_are_their_owners_alone(tmp_path):
    path = tmp_path / "new" / "access.json"
    create_key(path, "ci", READER, NOW)
    assert {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {
        "access.json": 0o600,
        ".access.json.lock": 0o600,
    }
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_change_keeps_the_mode_of_the_file(path):
    create_key(path, "ci", READER, NOW)
    path.chmod(0o640)
    create_key(path, "ada", READER, NOW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_link_to_the_file_stays_one(path, tmp_path):
    link = tmp_path / "link.json"
    link.symlink_to(path)
    create_key(link, "ci", READER, NOW)
    assert link.is_symlink()
    assert [key.name for key in read_access(path).keys] == ["ci"]


def test_a_service_takes_what_the_file_says_now(path):
    create_key(path, "ci", READER, NOW)
    access = AccessFile(path)
    text, _ = create_key(path, "ada", ADMIN, NOW)
    assert access.identify_key(text, NOW) == Identity("key:ada", ADMIN)


def test_a_change_that_cannot_be_understood_leaves_the_last_good_one_in_force(path):
    path.write_bytes(content(ENTRY))
    access = AccessFile(path)
    path.write_bytes(b'{"keys": ["' + TEXT.encode() + b'"')
    with capture_logs() as logs:
        assert [access.identify_key(TEXT, NOW) for _ in range(3)] == [Identity("key:ci", READER)] * 3
    assert [(line["log_level"], str(path) in line["error"], TEXT in str(line)) for line in logs] == [
        ("warning", True, False)
    ]
    path.unlink()
    assert access.identify_key(TEXT, NOW) == Identity("key:ci", READER)
    path.write_bytes(content())
    assert access.identify_key(TEXT, NOW) is None


def test_a_service_does_not_start_without_its_access_file(path):
    with pytest.raises(UnavailableError, match=re.escape(f"the access file: {path}: No such file or directory")):
        AccessFile(path)
    path.write_bytes(content({**ENTRY, "id": "x"}))
    with pytest.raises(InvalidFieldError, match=re.escape(f"{path}: keys[0].id")):
        AccessFile(path)


class Tokens:
    """Knows one token."""

    def __init__(self):
        self.requested = []

    async def identify(self, token, now):
        self.requested.append((token, now))
        if token != "a.b.c":
            raise UnauthenticatedError(
                "the token's signature cannot be verified with the issuer's keys; request a new token from the issuer"
            )
        return Identity("token:ada", ADMIN)


def identify(authenticator, *authorization, names=()):
    valid = PeerCertificate(tuple(names), NOW - timedelta(days=1), NOW + timedelta(days=1)) if names else None
    return asyncio.run(authenticator.identify(authorization, valid))


def unknown(authenticator, *authorization, names=()):
    with pytest.raises(UnauthenticatedError) as caught:
        identify(authenticator, *authorization, names=names)
    return caught.value.message


@pytest.fixture
def access(path):
    path.write_bytes(content(ENTRY, certificates=[{"name": "ada", "grants": {"*": "admin"}}]))
    return AccessFile(path)


ALL_TAKEN = (
    "send an API key or a token (JWT) as metadata 'authorization: Bearer ...', or connect with a client certificate"
    " that has been granted a role"
)


def test_a_caller_is_known_by_key_token_or_certificate(access):
    tokens = Tokens()
    authenticator = Authenticator(access, tokens, lambda: NOW)
    assert identify(authenticator, f"Bearer {TEXT}") == Identity("key:ci", READER)
    assert identify(authenticator, f"bearer  {TEXT}") == Identity("key:ci", READER)
    assert identify(authenticator, "Bearer a.b.c") == Identity("token:ada", ADMIN)
    assert identify(authenticator, names=["ada", "x"]) == Identity("certificate:ada", ADMIN)
    assert tokens.requested == [("a.b.c", NOW)]


def test_a_wrong_credential_never_falls_back_to_the_certificate(access):
    authenticator = Authenticator(access, Tokens(), lambda: NOW)
    assert unknown(authenticator, f"Bearer {TEXT[:-1]}B", names=["ada"]).startswith(
        "the API key is unknown, revoked or expired"
    )
    assert (
        unknown(authenticator, "Bearer a.b.d", names=["ada"])
        == "the token's signature cannot be verified with the issuer's keys; request a new token from the issuer"
    )
    assert unknown(authenticator, "", names=["ada"]).startswith("the authorization header is not of the form")


def test_a_good_credential_decides_whatever_the_certificate_may(access):
    authenticator = Authenticator(access, Tokens(), lambda: NOW)
    assert identify(authenticator, f"Bearer {TEXT}", names=["ada"]) == Identity("key:ci", READER)


def test_two_authorization_headers_are_refused_both_good(access):
    authenticator = Authenticator(access, Tokens(), lambda: NOW)
    message = unknown(authenticator, f"Bearer {TEXT}", f"Bearer {TEXT}")
    assert message == "the call has 2 authorization headers; send one"


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", TEXT, f"Basic {TEXT}", f"Bearer\t{TEXT}", f"Token {TEXT}"])
def test_another_scheme_is_refused(access, header):
    message = unknown(Authenticator(access, Tokens(), lambda: NOW), header)
    assert message == f"the authorization header is not of the form 'Bearer <credential>'; {ALL_TAKEN}"


def test_an_unknown_id_a_wrong_secret_and_an_expired_key_are_indistinguishable(path):
    path.write_bytes(content(ENTRY, {**ENTRY, "id": "ba9876543210", "expire_time": "2026-01-01T00:00:00Z"}))
    expired, key = create_key(path, "old", READER, NOW - timedelta(days=2), timedelta(days=1))
    authenticator = Authenticator(AccessFile(path), None, lambda: NOW)
    reported = {
        unknown(authenticator, f"Bearer {text}")
        for text in (
            TEXT[:-1] + "B",
            TEXT.replace("0123456789ab", "000000000000"),
            TEXT.replace("0123456789ab", "ba9876543210"),
            expired,
            f"rowmint_{key.id}_",
            "rowmint_",
        )
    }
    assert reported == {"the API key is unknown, revoked or expired; request a new one from the administrator"}


def test_a_call_without_credentials_is_refused_with_the_accepted_ones(access):
    everything = Authenticator(access, Tokens(), lambda: NOW)
    assert unknown(everything) == f"the call has no credentials; {ALL_TAKEN}"
    assert unknown(everything, names=["bob"]) == f"no roles are granted to the client certificate; {ALL_TAKEN}"
    tokens_only = Authenticator(None, Tokens(), lambda: NOW)
    reported = "send a token (JWT) as metadata 'authorization: Bearer ...'"
    assert unknown(tokens_only) == f"the call has no credentials; {reported}"
    assert unknown(tokens_only, f"Bearer {TEXT}") == f"API keys are not accepted here; {reported}"
    assert unknown(tokens_only, names=["ada"]) == f"no roles are granted to the client certificate; {reported}"
    keys_only = Authenticator(access, None, lambda: NOW)
    assert unknown(keys_only, "Bearer a.b.c").startswith(
        "the bearer credential is not an API key; send an API key as metadata"
    )


def test_no_error_holds_what_was_sent(access):
    authenticator = Authenticator(access, None, lambda: NOW)
    secret = "S" * 43
    for header in (f"Bearer rowmint_0123456789ab_{secret}", f"Basic {secret}", f"Bearer {secret}", secret):
        assert secret not in unknown(authenticator, header)


def test_a_key_is_read_again_where_only_the_inode_changed(path):
    other = TEXT[:-1] + "B"
    path.write_bytes(content(ENTRY))
    access = AccessFile(path)
    found = path.stat()
    new = path.with_name("new")
    new.write_bytes(content({**ENTRY, "sha256": hashlib.sha256(other.encode()).hexdigest()}))
    os.utime(new, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert new.stat().st_size == found.st_size
    new.replace(path)
    assert access.identify_key(other, NOW) == Identity("key:ci", READER)
    assert access.identify_key(TEXT, NOW) is None
