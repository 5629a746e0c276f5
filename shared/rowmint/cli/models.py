"""`rowmint models`: list, show, statistics, promote, reject, alias, verify, sign, delete."""

from pathlib import Path
from typing import Annotated, Any

import typer

from rowmint.cli.output import (
    JsonOption,
    connect,
    message_json,
    print_deleted,
    print_json,
    print_notice,
    print_schema,
    print_table,
    short_name,
)
from rowmint.cli.shell_completion import complete_models
from rowmint.client import ReplicaStatistics
from rowmint.errors import InvalidFieldError
from rowmint.v1 import model_pb2, statistics_pb2

app = typer.Typer(help="Look at models; promote, reject, name, sign and delete versions.", no_args_is_help=True)

VersionArgument = Annotated[
    str, typer.Argument(autocompletion=complete_models, help="MODEL, MODEL@ALIAS or MODEL/versions/NUMBER.")
]
OneVersionArgument = Annotated[str, typer.Argument(autocompletion=complete_models, help="MODEL/versions/NUMBER.")]


@app.command("list")
def list_(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(autocompletion=complete_models, help="A model, to list its versions. Default: all models."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the models, or one model's versions."""
    with connect(context) as client:
        if model is not None:
            _print_versions(list(client.list_versions(model)), as_json)
            return
        models = list(client.list_models())
    if as_json:
        print_json([message_json(one) for one in models])
        return
    print_table(
        ("model", "latest", "aliases", "created"),
        (
            (
                short_name(one.name),
                one.latest_version.rpartition("/")[2],
                ", ".join(f"{alias}={version}" for alias, version in sorted(one.aliases.items())),
                one.create_time.ToJsonString(),
            )
            for one in models
        ),
    )


def _print_versions(versions: list[model_pb2.ModelVersion], as_json: bool) -> None:
    if as_json:
        print_json([message_json(one) for one in versions])
        return
    print_table(
        ("version", "state", "family", "training rows", "bytes", "model digest", "created"),
        (
            (
                one.version,
                _state(one),
                one.family,
                f"{one.training_rows:,}",
                f"{one.size_bytes:,}",
                one.model_digest.hex()[:12],
                one.create_time.ToJsonString(),
            )
            for one in versions
        ),
    )


@app.command()
def show(
    context: typer.Context,
    version: VersionArgument,
    as_json: JsonOption = False,
) -> None:
    """Show one version and its columns."""
    with connect(context) as client:
        found = client.get_version(version)
    if as_json:
        print_json(message_json(found))
        return
    facts = f"{found.family}, fitted to {found.training_rows:,} rows, {found.size_bytes:,} bytes"
    print_notice(f"{short_name(found.name)}, {_state(found)}: {facts}, model digest {found.model_digest.hex()}")
    if found.rejection_reason:
        print_notice(f"rejected because: {found.rejection_reason}")
    print_schema(found.schema)


def _state(version: model_pb2.ModelVersion) -> str:
    name = model_pb2.ModelVersionState.Name(version.state)
    return name.removeprefix("MODEL_VERSION_STATE_").lower()


@app.command()
def statistics(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            autocompletion=complete_models, help="MODEL, for all its versions, MODEL@ALIAS or MODEL/versions/NUMBER."
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Show what each sampler has done for a model since it started."""
    with connect(context) as client:
        found = client.model_statistics(name)
    if as_json:
        print_json([_statistics_json(one) for one in found])
        return
    for one in found:
        if one.statistics is None:
            print_notice(f"{one.address}: {one.error}")
            continue
        print_table(
            (
                "version",
                "streams",
                "rows",
                "acceptance",
                "blocks",
                "block ms",
                "first row ms",
                "loaded bytes",
                "last served",
            ),
            map(_statistics_row, one.statistics.model_versions),
            title=f"{one.statistics.replica}, since {one.statistics.start_time.ToJsonString()}",
        )


def _statistics_json(one: ReplicaStatistics) -> dict[str, Any]:
    answer = {} if one.statistics is None else message_json(one.statistics)
    return {"address": one.address, **answer, **({} if one.error is None else {"error": str(one.error)})}


def _statistics_row(one: statistics_pb2.ModelVersionStatistics) -> tuple[object, ...]:
    first = one.first_row_seconds
    return (
        one.model_version.rpartition("/")[2],
        f"{one.streams_begun:,}",
        f"{one.rows:,}",
        f"{one.accepted / one.candidates:.3g}" if one.candidates else "",
        f"{one.blocks:,}",
        f"{1000 * one.block_seconds / one.blocks:.1f}" if one.blocks else "",
        f"{1000 * first.sum / first.count:.1f}" if first.count else "",
        f"{one.loaded_bytes:,}" if one.loaded else "",
        one.last_served_time.ToJsonString() if one.HasField("last_served_time") else "",
    )


@app.command()
def promote(
    context: typer.Context,
    version: OneVersionArgument,
    as_json: JsonOption = False,
) -> None:
    """Publish a staged version; `latest` moves to it unless a newer version is published."""
    _require_own_name(version)
    with connect(context) as client:
        found = client.promote_version(version)
    _print_decided(found, as_json)


@app.command()
def reject(
    context: typer.Context,
    *,
    version: OneVersionArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why, for people to read; at most 1,000 characters.")],
    as_json: JsonOption = False,
) -> None:
    """Reject a staged version: it is never served."""
    _require_own_name(version)
    with connect(context) as client:
        found = client.reject_version(version, reason)
    _print_decided(found, as_json)


def _print_decided(version: model_pb2.ModelVersion, as_json: bool) -> None:
    if as_json:
        print_json(message_json(version))
        return
    why = f": {version.rejection_reason}" if version.rejection_reason else ""
    print_notice(f"{short_name(version.name)} is {_state(version)}{why}")


@app.command()
def alias(
    context: typer.Context,
    *,
    model: Annotated[str, typer.Argument(autocompletion=complete_models, help="Id or name of the model.")],
    alias: Annotated[str, typer.Argument(help="The alias; not `latest`.")],
    version: Annotated[int | None, typer.Argument(min=1, help="Number of the version it is to point at.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the alias instead.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Point an alias at a version, or remove it."""
    if remove == (version is not None):
        raise InvalidFieldError("VERSION", "give the version's number, or --remove, one of the two")
    with connect(context) as client:
        found = client.set_alias(model, alias, version)
    if as_json:
        print_json(message_json(found))
        return
    shown = ", ".join(f"{name}={number}" for name, number in sorted(found.aliases.items()))
    print_notice(f"{short_name(found.name)}: {shown}")


@app.command()
def verify(
    context: typer.Context,
    *,
    version: VersionArgument,
    keys: Annotated[
        Path,
        typer.Option("--keys", envvar="ROWMINT_TRUSTED_KEYS", help="File of the public keys that are trusted, PEM."),
    ],
    as_json: JsonOption = False,
) -> None:
    """Check that a trusted key has signed a version; if not, print why and exit with 1."""
    with connect(context) as client:
        key_id = client.verify_version(version, keys.read_bytes())
    if as_json:
        print_json({"key_id": key_id})
        return
    print_notice(f"{version} is signed by the trusted key {key_id}")


@app.command()
def sign(
    context: typer.Context,
    version: OneVersionArgument,
    as_json: JsonOption = False,
) -> None:
    """Sign a version as it is stored now with the trainer's key; `verify` it before, where it is signed already."""
    _require_own_name(version)
    with connect(context) as client:
        found = client.sign_version(version)
    if as_json:
        print_json(message_json(found))
        return
    shown = ", ".join(one.key_id for one in found.signatures)
    print_notice(f"{short_name(found.name)} is signed by {shown}")


@app.command()
def delete(
    context: typer.Context,
    version: OneVersionArgument,
    as_json: JsonOption = False,
) -> None:
    """Delete a version; refused while an alias other than `latest` points at it."""
    _require_own_name(version)
    with connect(context) as client:
        client.delete_version(version)
    print_deleted(version, as_json)


@app.command()
def undelete(
    context: typer.Context,
    version: OneVersionArgument,
    as_json: JsonOption = False,
) -> None:
    """Restore a deleted version that is not purged yet."""
    _require_own_name(version)
    with connect(context) as client:
        found = client.undelete_version(version)
    if as_json:
        print_json(message_json(found))
        return
    print_notice(f"{short_name(found.name)} is restored")


def _require_own_name(version: str) -> None:
    if "/versions/" not in version:
        model = version.partition("@")[0]
        raise InvalidFieldError("VERSION", f"{version!r} does not name one version; write {model}/versions/NUMBER")
