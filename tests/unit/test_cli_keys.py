"""`rowmint keys`: files of who may come in, made on a machine where no service runs."""

import json
import re
import stat
import subprocess
import sys
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from typer.testing import CliRunner

from rowmint.cli.app import app
from rowmint.security.access_file import AccessCertificate, read_access
from rowmint.security.identity import Identity, Role
from rowmint.security.signing import key_id


@pytest.fixture
def access(tmp_path, monkeypatch):
    """Path of an access file that is not there yet; the commands know it by the environment."""
    path = tmp_path / "access.json"
    monkeypatch.setenv("ROWMINT_ACCESS_FILE", str(path))
    return path


def succeed(*arguments):
    done = CliRunner().invoke(app, ["keys", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done


def fail(*arguments, code=1):
    done = CliRunner().invoke(app, ["keys", *map(str, arguments)])
    assert done.exit_code == code, done.output
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def modes(folder):
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def test_keys_are_made_before_the_certificates_that_the_environment_names(access, monkeypatch):
    monkeypatch.setenv("ROWMINT_CA", "keys/not-made-yet.pem")
    monkeypatch.setenv("ROWMINT_PROJECT", "ships")
    succeed("create", "a", "--role", "reader")
    (key,) = read_access(access).keys
    assert dict(key.grants) == {"ships": Role.READER}


def test_a_new_key_is_printed_alone_and_once(access):
    done = succeed("create", "ci", "--role", "trainer", "--project", "flights", "--days", "30")
    text = done.stdout.removesuffix("\n")
    assert re.fullmatch(r"rowmint_[0-9a-f]{12}_[A-Za-z0-9_-]{43}", text)
    (key,) = read_access(access).keys
    assert key.expire_time - key.create_time == timedelta(days=30)
    assert done.stderr == (
        f"key {key.id}: trainer in flights, until {key.expire_time:%Y-%m-%dT%H:%M:%SZ}; keep it now, it is not shown"
        " again\n"
    )
    assert read_access(access).identify_key(text, key.create_time) == Identity("key:ci", {"flights": Role.TRAINER})
    assert text not in succeed("list").stdout + succeed("list", "--json").stdout


def test_a_key_may_be_for_several_projects_or_all_or_the_commands_own(access):
    succeed("create", "a", "--role", "reader", "--project", "flights", "--project", "trains")
    succeed("create", "b", "--role", "ADMIN", "--project", "*")
    succeed("create", "c", "--role", "trainer")
    done = CliRunner().invoke(app, ["--project", "ships", "keys", "create", "d", "--role", "trainer"])
    assert done.exit_code == 0
    assert [(key.name, key.grants, key.expire_time) for key in read_access(access).keys] == [
        ("a", {"flights": Role.READER, "trains": Role.READER}, None),
        ("b", {"*": Role.ADMIN}, None),
        ("c", {"default": Role.TRAINER}, None),
        ("d", {"ships": Role.TRAINER}, None),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--role", "root"], "rowmint: --role: the role in project 'default' must be reader, trainer or admin"),
        (["--role", "admin", "--project", "a/b"], "rowmint: --project: 'a/b' is not an id: 1 to 63 characters of"),
        (["--role", "admin", "--project", "**"], "rowmint: --project: '**' is not an id: 1 to 63 characters of"),
        (["--role", "admin", "--project", ""], "rowmint: --project: '' is not an id: 1 to 63 characters of"),
    ],
)
def test_a_grant_that_cannot_be_makes_no_key(access, arguments, message):
    assert fail("create", "ci", *arguments).startswith(message)
    assert fail("grant", "ada", *arguments).startswith(message)
    assert not access.exists()


@pytest.mark.parametrize("arguments", [[], ["--role", "reader", "--days", "0"], ["--role", "reader", "--days", "x"]])
def test_a_key_without_a_role_or_with_no_days_is_a_misuse(access, arguments):
    assert "keys create --help`" in fail("create", "ci", *arguments, code=2)
    assert not access.exists()


def test_keys_and_certificates_are_listed(access):
    succeed("create", "ci", "--role", "trainer", "--project", "flights", "--days", "1")
    succeed("create", "ada", "--role", "admin", "--project", "*")
    succeed("grant", "spiffe://example.org/nightly", "--role", "reader")
    ci, ada = read_access(access).keys
    found = json.loads(succeed("list", "--json").stdout)
    assert [(one["id"], one["name"], one["grants"], one["expire_time"] is None) for one in found["keys"]] == [
        (ci.id, "ci", {"flights": "trainer"}, False),
        (ada.id, "ada", {"*": "admin"}, True),
    ]
    assert [datetime.fromisoformat(one["create_time"]) for one in found["keys"]] == [ci.create_time, ada.create_time]
    assert found["certificates"] == [{"name": "spiffe://example.org/nightly", "grants": {"default": "reader"}}]
    assert {name for one in found["keys"] for name in one} == {"id", "name", "grants", "create_time", "expire_time"}
    lines = [line.split() for line in succeed("list").stdout.splitlines()]
    assert [line[:6] for line in lines] == [
        ["kind", "name", "id", "roles", "created", "expires"],
        ["key", "ci", ci.id, "trainer", "in", "flights"],
        ["key", "ada", ada.id, "admin", "in", "every"],
        ["certificate", "spiffe://example.org/nightly", "reader", "in", "default"],
    ]


def test_a_list_says_which_keys_have_expired(access):
    succeed("create", "ci", "--role", "reader", "--days", "1")
    given = json.loads(access.read_text())
    given["keys"][0]["expire_time"] = "2020-01-01T00:00:00Z"
    access.write_text(json.dumps(given))
    assert succeed("list").stdout.splitlines()[1].endswith("2020-01-01T00:00:00Z (expired)")


def test_a_key_is_revoked_by_its_id(access):
    text = succeed("create", "ci", "--role", "reader").stdout.strip()
    succeed("create", "ada", "--role", "reader")
    (ci, ada) = read_access(access).keys
    assert succeed("revoke", ci.id).stderr == f"key {ci.id}: revoked\n"
    assert read_access(access).keys == (ada,)
    assert (
        fail("revoke", ci.id)
        == f"rowmint: {access}: there is no key '{ci.id}'; `rowmint keys list` shows the existing ones"
    )
    assert text not in fail("revoke", text)


def test_a_certificate_is_granted_and_ungranted(access):
    assert (
        succeed("grant", "ada", "--role", "reader", "--project", "*").stderr
        == "certificate ada: reader in every project\n"
    )
    done = succeed("grant", "ada", "--role", "admin", "--project", "flights")
    assert done.stderr == "certificate ada: reader in every project, admin in flights\n"
    assert read_access(access).certificates == (AccessCertificate("ada", {"*": Role.READER, "flights": Role.ADMIN}),)
    succeed("ungrant", "ada")
    assert read_access(access).certificates == ()
    assert "no roles are granted to a certificate named 'ada'" in fail("ungrant", "ada")


@pytest.mark.parametrize("command", [["list"], ["revoke", "000000000000"], ["ungrant", "ada"]])
def test_an_access_file_that_is_absent_or_not_named_is_an_error(access, monkeypatch, command):
    message = f"rowmint: {access}: the access file does not exist; create it with `rowmint keys create`"
    assert fail(*command) == message
    monkeypatch.delenv("ROWMINT_ACCESS_FILE")
    assert "--access-file" in fail(*command, code=2)
    assert fail(*command, "--access-file", access) == message


def test_a_broken_access_file_is_reported_and_left_unchanged(access):
    access.write_text('{"keys": [{"id": "x"}]}')
    for command in (["list"], ["create", "ci", "--role", "reader"], ["grant", "ada", "--role", "reader"]):
        assert fail(*command) == f"rowmint: {access}: keys[0]: has no field 'name'"
    assert access.read_text() == '{"keys": [{"id": "x"}]}'


def test_an_authority_issues_certificates_into_its_folder(tmp_path):
    folder = tmp_path / "pki"
    succeed("authority", folder, "--name", "Test")
    done = succeed(
        "certificate", "server", "--folder", folder, "--host", "localhost", "--host", "127.0.0.1", "--days", 7
    )
    assert done.stdout == ""
    succeed("certificate", "ada", "--folder", folder, "--uri", "spiffe://example.org/ada")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert modes(folder) == {
        "ca.pem": 0o644,
        "ca-key.pem": 0o600,
        "server.pem": 0o644,
        "server-key.pem": 0o600,
        "ada.pem": 0o644,
        "ada-key.pem": 0o600,
    }
    authority, server, ada = (
        x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes()) for name in ("ca", "server", "ada")
    )
    for issued in (server, ada):
        issued.verify_directly_issued_by(authority)
    assert authority.subject.rfc4514_string() == "CN=Test"
    assert ada.subject.rfc4514_string() == "CN=ada"
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert server.not_valid_after_utc - server.not_valid_before_utc == timedelta(days=7, minutes=5)
    assert ada.not_valid_after_utc - ada.not_valid_before_utc == timedelta(days=90, minutes=5)


def test_a_key_for_signing_is_made_and_its_id_printed(tmp_path):
    folder = tmp_path / "keys"
    done = succeed("signing", folder)
    assert done.stdout == key_id((folder / "signing-key.pub").read_bytes()) + "\n"
    assert modes(folder) == {"signing-key.pem": 0o600, "signing-key.pub": 0o644}
    assert (folder / "signing-key.pem").read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----\n")


@pytest.mark.parametrize(
    ("command", "files"),
    [
        (["authority"], ["ca.pem", "ca-key.pem"]),
        (["certificate", "ada", "--folder"], ["ada.pem", "ada-key.pem"]),
        (["certificate", "ca", "--folder"], ["ca.pem", "ca-key.pem"]),
        (["signing"], ["signing-key.pem", "signing-key.pub"]),
    ],
)
def test_no_key_is_ever_written_over(tmp_path, command, files):
    succeed("authority", tmp_path)
    for file in files:
        (tmp_path / file).write_bytes(b"kept")
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        assert fail(*command, tmp_path).endswith("exists already, and keys are never overwritten; move it away first")
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
        if file not in ("ca.pem", "ca-key.pem"):
            (tmp_path / file).unlink()


@pytest.mark.parametrize("name", ["../ada", "a/b", "..", ".", ""])
def test_a_certificates_name_leads_out_of_no_folder(tmp_path, name):
    folder = tmp_path / "pki"
    succeed("authority", folder)
    before = sorted(tmp_path.rglob("*"))
    assert fail("certificate", name, "--folder", folder).startswith("rowmint: ")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_certificate_needs_its_authority(tmp_path):
    assert (
        fail("certificate", "ada", "--folder", tmp_path) == f"rowmint: {tmp_path / 'ca.pem'}: No such file or directory"
    )
    assert list(tmp_path.iterdir()) == []


_WITHOUT_SERVICES = """
import sys
import json
# Libraries that only the services need.
sys.modules.update(dict.fromkeys(["jwt", "structlog", "sqlalchemy", "obstore", "numpy", "alembic"]))
from rowmint.cli import main
for arguments in json.loads(sys.argv.pop()):
    sys.argv[1:] = ["keys", *arguments]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, arguments
"""


def test_keys_are_made_where_only_the_client_is_installed(tmp_path):
    path, folder = str(tmp_path / "access.json"), str(tmp_path)
    commands = [
        ["create", "ci", "--role", "reader", "--access-file", path],
        ["list", "--access-file", path],
        ["authority", folder],
        ["certificate", "ada", "--folder", folder],
        ["signing", folder],
    ]
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_SERVICES, json.dumps(commands)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert set(modes(tmp_path)) == {
        ".access.json.lock",
        "access.json",
        "ca.pem",
        "ca-key.pem",
        "ada.pem",
        "ada-key.pem",
        "signing-key.pem",
        "signing-key.pub",
    }
    assert modes(tmp_path)["signing-key.pem"] == 0o600
