"""`rowmint keys`: API keys, certificates, their roles, and keys that sign models."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rowmint.cli.output import JsonOption, client_settings, print_json, print_notice, print_table
from rowmint.client.settings import VARIABLES
from rowmint.errors import InvalidFieldError, ResourceExistsError
from rowmint.names import validate_id
from rowmint.security.identity import EVERY_PROJECT, Grants, parse_grants

if TYPE_CHECKING:
    from rowmint.security.certificates import CertificateAndKey

app = typer.Typer(
    help="Manage API keys, certificates and signing keys. No running service is needed.",
    no_args_is_help=True,
)

AccessFileOption = Annotated[Path, typer.Option(envvar="ROWMINT_ACCESS_FILE", help="The access file of the services.")]
RoleOption = Annotated[str, typer.Option(help="reader, trainer or admin.")]
ProjectsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--project",
        help="Project of the role, or '*' for all; may be repeated. Default: that of rowmint.",
    ),
]
FolderArgument = Annotated[Path, typer.Argument(help="Folder of the files; created where it does not exist.")]

_AUTHORITY = "ca"
_PRIVATE = 0o600
_PUBLIC = 0o644
_MAX_DAYS = 36_500


@app.command()
def authority(
    folder: FolderArgument,
    name: Annotated[str, typer.Option(help="Name of the authority.")] = "Rowmint authority",
) -> None:
    """Create a certificate authority. ca.pem is for services and clients; ca-key.pem stays secret."""
    from rowmint.security.certificates import make_authority  # noqa: PLC0415 - only where certificates are made

    certificate, key = _pair_of_files(folder, _AUTHORITY)
    _refuse_existing(certificate, key)
    _write_pair(make_authority(name, _now()), certificate, key)


@app.command()
def certificate(
    *,
    name: Annotated[str, typer.Argument(help="Its common name, and the name of its files, NAME.pem and NAME-key.pem.")],
    folder: Annotated[Path, typer.Option(help="Folder of the authority; the certificate is written there, too.")],
    host: Annotated[
        list[str] | None,
        typer.Option(help="DNS name or address of a server: the certificate is one of a server, too. May be repeated."),
    ] = None,
    uri: Annotated[
        list[str] | None, typer.Option(help="Further name, such as spiffe://example.org/nightly. May be repeated.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=_MAX_DAYS, help="Days for which it is valid.")] = 90,
) -> None:
    """Issue a certificate. It is one of a client, and of a server where --host is given."""
    from rowmint.security.certificates import CertificateAndKey, issue_certificate  # noqa: PLC0415

    _check_file_name(name)
    own, key = _pair_of_files(folder, name)
    _refuse_existing(own, key)
    issuer = CertificateAndKey(*(path.read_bytes() for path in _pair_of_files(folder, _AUTHORITY)))
    _write_pair(issue_certificate(issuer, name, _now(), hosts=host or (), uris=uri or (), days=days), own, key)


@app.command()
def create(
    context: typer.Context,
    *,
    name: Annotated[str, typer.Argument(help="Name of the key's owner, as the audit log shows it.")],
    access_file: AccessFileOption,
    role: RoleOption,
    project: ProjectsOption = None,
    days: Annotated[
        int | None, typer.Option(min=1, max=_MAX_DAYS, help="Days for which it is valid. Default: until it is revoked.")
    ] = None,
) -> None:
    """Create an API key. It is printed once: the access file holds only its digest."""
    from rowmint.security.access_file import create_key, time_text  # noqa: PLC0415 - not to make --help slow

    grants = _grants(context, role, project)
    lifetime = None if days is None else timedelta(days=days)
    text, key = create_key(access_file, name, grants, _now(), lifetime)
    typer.echo(text)
    end = "until it is revoked" if key.expire_time is None else f"until {time_text(key.expire_time)}"
    print_notice(f"key {key.id}: {_grants_text(grants)}, {end}; keep it now, it is not shown again")


@app.command("list")
def list_(access_file: AccessFileOption, as_json: JsonOption = False) -> None:
    """List API keys and certificates, with their roles."""
    from rowmint.security.access_file import read_access, role_names, time_text  # noqa: PLC0415

    access = read_access(access_file)
    if as_json:
        keys = [
            {
                "id": key.id,
                "name": key.name,
                "grants": role_names(key.grants),
                "create_time": time_text(key.create_time),
                "expire_time": None if key.expire_time is None else time_text(key.expire_time),
            }
            for key in access.keys
        ]
        certificates = [{"name": one.name, "grants": role_names(one.grants)} for one in access.certificates]
        print_json({"keys": keys, "certificates": certificates})
        return
    now = _now()
    rows = [
        (
            "key",
            key.name,
            key.id,
            _grants_text(key.grants),
            time_text(key.create_time),
            "" if key.expire_time is None else time_text(key.expire_time) + _expired(key.expire_time <= now),
        )
        for key in access.keys
    ]
    rows += [("certificate", one.name, "", _grants_text(one.grants), "", "") for one in access.certificates]
    print_table(("kind", "name", "id", "roles", "created", "expires"), rows)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id: the 12 digits after rowmint_.")],
    access_file: AccessFileOption,
) -> None:
    """Revoke an API key. Services that read the access file refuse it from the next call on."""
    from rowmint.security.access_file import revoke_key  # noqa: PLC0415

    revoke_key(access_file, key_id)
    print_notice(f"key {key_id}: revoked")


@app.command()
def grant(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="CERTNAME", help="Common or alternative name of the certificate.")],
    access_file: AccessFileOption,
    role: RoleOption,
    project: ProjectsOption = None,
) -> None:
    """Grant a role to a certificate. Its roles in other projects stay."""
    from rowmint.security.access_file import grant_certificate  # noqa: PLC0415

    granted = grant_certificate(access_file, name, _grants(context, role, project))
    print_notice(f"certificate {name}: {_grants_text(granted.grants)}")


@app.command()
def ungrant(
    name: Annotated[str, typer.Argument(metavar="CERTNAME", help="Name of the certificate.")],
    access_file: AccessFileOption,
) -> None:
    """Remove all roles of a certificate."""
    from rowmint.security.access_file import ungrant_certificate  # noqa: PLC0415

    ungrant_certificate(access_file, name)
    print_notice(f"certificate {name}: all roles removed")


@app.command()
def signing(folder: FolderArgument) -> None:
    """Create a key that signs models. signing-key.pem is for the trainer, signing-key.pub for samplers."""
    from rowmint.security.signing import generate_signing_key, key_id  # noqa: PLC0415 - only where models are signed

    private, public = folder / "signing-key.pem", folder / "signing-key.pub"
    _refuse_existing(private, public)
    private_pem, public_pem = generate_signing_key()
    _write_new(private, private_pem, _PRIVATE)
    _write_new(public, public_pem, _PUBLIC)
    print_notice(f"{private} and {public}: made; the key's id is")
    typer.echo(key_id(public_pem))


def _now() -> datetime:
    return datetime.now(UTC)


def _grants(context: typer.Context, role: str, projects: list[str] | None) -> Grants:
    # Certificates that the environment names may be what is about to be made.
    given = projects or [client_settings(context, VARIABLES.keys() - {"project"}).project]
    for project in given:
        if project != EVERY_PROJECT:
            validate_id(project, "--project")
    return parse_grants(dict.fromkeys(given, role), "--role")


def _grants_text(grants: Grants) -> str:
    texts = (
        f"{role.name.lower()} in {'every project' if project == EVERY_PROJECT else project}"
        for project, role in grants.items()
    )
    return ", ".join(texts) or "nothing"


def _expired(expired: bool) -> str:
    return " (expired)" if expired else ""


def _check_file_name(name: str) -> None:
    if name in (".", "..") or any(letter in name for letter in "/\\\0") or name.startswith("-"):
        raise InvalidFieldError(
            "NAME", f"{name!r} cannot be the name of a file; give alternative names with --uri and --host"
        )


def _pair_of_files(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}.pem", folder / f"{name}-key.pem"


def _refuse_existing(*paths: Path) -> None:
    for path in paths:
        if path.exists():
            raise _exists(path)


def _exists(path: Path) -> ResourceExistsError:
    return ResourceExistsError(f"{path}: exists already, and keys are never overwritten; move it away first")


def _write_pair(made: "CertificateAndKey", certificate: Path, key: Path) -> None:
    _write_new(key, made.key, _PRIVATE)
    _write_new(certificate, made.certificate, _PUBLIC)
    print_notice(f"{certificate} and {key}: made")


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file that does not exist yet; its folder, where it is created, is accessible to its owner only."""
    from rowmint.objects import files  # noqa: PLC0415 - not to make --help slow

    def write(file: int) -> None:
        os.fchmod(file, mode)
        files.write_all(file, content)

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not files.create(path, write):
        raise _exists(path)
