"""`rowmint datasets`: upload, list, show, delete."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Annotated

import typer

from rowmint.cli.output import (
    JsonOption,
    connect,
    enum_name,
    message_json,
    print_deleted,
    print_json,
    print_list,
    print_notice,
    print_schema,
    progress_bar,
    short_name,
)
from rowmint.cli.profile import print_notices, print_profile
from rowmint.cli.shell_completion import complete_data, complete_datasets
from rowmint.cli.table_options import TableOptions, with_table_options
from rowmint.cli.types_file import TypesFile
from rowmint.client import Client
from rowmint.client.datasets import UploadProgress
from rowmint.errors import InvalidDataError, InvalidFieldError
from rowmint.v1 import dataset_pb2

_LARGE_BYTES = 100e6
"""Files from which on an upload shows its progress in logs."""

app = typer.Typer(help="Upload, list, show and delete tables.", no_args_is_help=True)


def upload_file(
    client: Client,
    path: str,
    table: TableOptions,
    *,
    dataset_id: str | None = None,
    once: bool = False,
    wait: bool = True,
    quiet: bool = False,
) -> dataset_pb2.Dataset:
    """Upload a file, `-` for stdin, with a progress bar; arguments as the command's options.

    With `once` the dataset is named after a file, and used again where there is one of the same contents.
    """
    source: str | IO[bytes] = path
    if path == "-":
        if table.format is None:
            raise InvalidFieldError("--format", "cannot be inferred for standard input; give csv, ndjson, ...")
        source = sys.stdin.buffer
    declared = table.declarations(path)
    with _upload_bar(path, quiet) as show:
        upload = (
            partial(client.upload_once, source, on_found=None if quiet else _print_found)
            if once and path != "-"
            else partial(client.upload, source, dataset_id)
        )
        return upload(
            format=declared.format,
            columns=declared.columns,
            primary_key=declared.primary_key,
            no_primary_key=declared.no_primary_key,
            infinite=declared.infinite,
            sheet=declared.sheet,
            progress=show,
            wait=wait,
        )


def _print_found(dataset: dataset_pb2.Dataset) -> None:
    """Say what becomes of a dataset that was there already."""
    match dataset.state:
        case dataset_pb2.DATASET_STATE_UPLOADING:
            found = "was uploaded in part before; the rest follows"
        case dataset_pb2.DATASET_STATE_FAILED:
            found = "was uploaded before and could not be read; it is uploaded again"
        case _:
            found = "was uploaded before and is used again"
    print_notice(f"{short_name(dataset.name)} {found}")


@contextmanager
def _upload_bar(path: str, quiet: bool) -> Iterator[UploadProgress]:
    """Show a progress bar; the function it gives is called with bytes sent and bytes in all."""
    with progress_bar(f"uploading {Path(path).name}", quiet=quiet, least=_LARGE_BYTES) as bar:

        def show(done: int, total: int | None) -> None:
            reading = total is not None and done >= total
            bar.update(done, total, "reading the table" if reading else f"{done / 1e6:,.1f} MB")

        yield show


@app.command()
@with_table_options
def upload(
    context: typer.Context,
    *,
    file: Annotated[str, typer.Argument(help="The file; - for standard input.")],
    dataset_id: Annotated[str | None, typer.Option("--id", help="Id of the dataset. Default: a generated one.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait until the table is ready.")] = True,
    as_json: JsonOption = False,
    table: TableOptions,
) -> None:
    """Upload a table. A broken upload is resumed where it broke."""
    with connect(context) as client:
        dataset = upload_file(client, file, table, dataset_id=dataset_id, wait=wait, quiet=as_json)
    _print_dataset(dataset, as_json)


@app.command()
@with_table_options
def profile(
    context: typer.Context,
    *,
    data: Annotated[str, typer.Argument(autocompletion=complete_data, help="A file; or the id or name of a dataset.")],
    types: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write what was decided to a file, which `--types` of other commands reads."),
    ] = None,
    keep: Annotated[
        bool, typer.Option(help="Keep the dataset that a file is uploaded as; `train` uses it again.")
    ] = False,
    as_json: JsonOption = False,
    table: TableOptions,
) -> None:
    """Show how each column of a table was understood, why, and which option decides otherwise."""
    with connect(context) as client:
        if is_file(data, table):
            try:
                dataset = upload_file(client, data, table, once=keep, quiet=as_json)
            except InvalidDataError as error:
                if not keep:
                    client.delete_dataset(error.metadata["dataset"])
                raise
            if not keep:
                client.delete_dataset(dataset.name)
        else:
            dataset = client.get_dataset(data)
    if types is not None:
        TypesFile.of(dataset).write(types)
    if as_json:
        print_json(message_json(dataset))
    else:
        print_profile(dataset)


def is_file(data: str, table: TableOptions) -> bool:
    """Return whether an argument names a file rather than a dataset.

    Raises:
        InvalidFieldError: It can be neither, or options describe a file where a dataset is named.
    """
    if data == "-" or Path(data).is_file():
        return True
    if ("/" in data or "." in data) and not data.startswith("projects/"):
        raise InvalidFieldError("DATA", f"there is no file {data!r}, and a dataset's id has no '/' or '.'")
    for option in table.given():
        if option != "--primary-key":
            raise InvalidFieldError(option, f"describes a file; {data!r} is a dataset, uploaded before")
    return False


@app.command()
def resume(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(autocompletion=complete_datasets, help="Id or name of the dataset.")],
    file: Annotated[str, typer.Argument(help="The same file, from its first byte on; - for standard input.")],
    *,
    wait: Annotated[bool, typer.Option(help="Wait until the table is ready.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Resume an interrupted upload. Bytes that are stored already are not sent again."""
    source: str | IO[bytes] = sys.stdin.buffer if file == "-" else file
    with connect(context) as client, _upload_bar(file, as_json) as show:
        found = client.resume_upload(dataset, source, progress=show, wait=wait)
    _print_dataset(found, as_json)


def _print_dataset(dataset: dataset_pb2.Dataset, as_json: bool) -> None:
    if as_json:
        print_json(message_json(dataset))
        return
    facts = f"{dataset.row_count:,} rows, {dataset.committed_size:,} bytes"
    print_notice(f"{short_name(dataset.name)}: {enum_name(dataset, 'state')}, {facts}")
    for one in dataset.errors:
        print_notice(f"  line {one.line}, row {one.row}, column {one.column or '-'}: {one.message}")
    if dataset.schema.columns:
        print_schema(dataset.schema)
    print_notices(dataset)


@app.command("list")
def list_(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the datasets, newest first."""
    with connect(context) as client:
        datasets = list(client.list_datasets())
    print_list(
        ("dataset", "state", "rows", "bytes", "created"),
        datasets,
        lambda one: (
            short_name(one.name),
            enum_name(one, "state"),
            f"{one.row_count:,}",
            f"{one.committed_size:,}",
            one.create_time.ToJsonString(),
        ),
        as_json=as_json,
    )


@app.command()
def show(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(autocompletion=complete_datasets, help="Id or name of the dataset.")],
    as_json: JsonOption = False,
) -> None:
    """Show one dataset and its columns."""
    with connect(context) as client:
        _print_dataset(client.get_dataset(dataset), as_json)


@app.command()
def delete(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(autocompletion=complete_datasets, help="Id or name of the dataset.")],
    as_json: JsonOption = False,
) -> None:
    """Delete a dataset. Published models are kept; all else that was derived from it is deleted."""
    with connect(context) as client:
        client.delete_dataset(dataset)
    print_deleted(dataset, as_json)
