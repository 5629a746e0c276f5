"""`rowmint datasets`: upload, list, show, delete."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
from rowmint.client import Client
from rowmint.client.datasets import UploadProgress, data_format
from rowmint.errors import InvalidFieldError
from rowmint.v1 import dataset_pb2, schema_pb2

app = typer.Typer(help="Upload, list, show and delete tables.", no_args_is_help=True)

FormatOption = Annotated[
    str | None,
    typer.Option(help="csv, tsv, json, jsonl, ndjson, parquet or arrow (IPC stream). Default: by the file's suffix."),
]
DelimiterOption = Annotated[str | None, typer.Option(help="CSV: the character between fields.")]
NullOption = Annotated[
    list[str] | None, typer.Option("--null", help="CSV: text that stands for a missing cell; may be repeated.")
]
EncodingOption = Annotated[str | None, typer.Option(help="CSV: utf-8, latin-1 or utf-16.")]
PrimaryKeyOption = Annotated[str, typer.Option(help="Column that identifies a row; it is generated, never learned.")]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="NAME=KIND",
        help="Declare a column: numerical, categorical, datetime, boolean, id or ignored; may be repeated.",
    ),
]


def declared_columns(texts: list[str] | None) -> list[schema_pb2.ColumnSpec]:
    """Return the columns that texts of the form NAME=KIND declare.

    Raises:
        InvalidFieldError: One is not of that form, or its kind is unknown.
    """
    kinds = {
        name.removeprefix("COLUMN_KIND_").lower(): number for name, number in schema_pb2.ColumnKind.items() if number
    }
    columns = []
    for text in texts or ():
        name, _, kind = text.rpartition("=")
        if not name or kind.lower() not in kinds:
            raise InvalidFieldError("--column", f"{text!r} is not NAME=KIND with KIND one of {', '.join(kinds)}")
        columns.append(schema_pb2.ColumnSpec(name=name, kind=kinds[kind.lower()]))
    return columns


def upload_file(
    client: Client,
    path: str,
    *,
    dataset_id: str | None = None,
    format: str | None = None,  # noqa: A002  # the option's name
    delimiter: str | None = None,
    nulls: list[str] | None = None,
    encoding: str | None = None,
    primary_key: str = "",
    columns: list[str] | None = None,
    wait: bool = True,
    quiet: bool = False,
) -> dataset_pb2.Dataset:
    """Upload a file, `-` for stdin, with a progress bar; arguments as the command's options."""
    source: str | IO[bytes] = path
    if path == "-":
        if format is None:
            raise InvalidFieldError("--format", "cannot be inferred for standard input; give csv, ndjson, ...")
        source = sys.stdin.buffer
    declared = dataset_pb2.DataFormat()
    declared.CopyFrom(data_format(format, path))
    if delimiter is not None or nulls or encoding is not None:
        if declared.WhichOneof("format") != "csv":
            raise InvalidFieldError("--delimiter", "--delimiter, --null and --encoding are for CSV only")
        declared.csv.MergeFrom(dataset_pb2.CsvFormat(delimiter=delimiter, null_values=nulls, encoding=encoding))
    with _upload_bar(path, quiet) as show:
        return client.upload(
            source,
            dataset_id,
            format=declared,
            columns=declared_columns(columns),
            primary_key=primary_key,
            progress=show,
            wait=wait,
        )


@contextmanager
def _upload_bar(path: str, quiet: bool) -> Iterator[UploadProgress]:
    """Show a progress bar; the function it gives is called with bytes sent and bytes in all."""
    with progress_bar(f"uploading {Path(path).name}", quiet=quiet) as bar:

        def show(done: int, total: int | None) -> None:
            reading = total is not None and done >= total
            bar.update(done, total, "reading the table" if reading else f"{done / 1e6:,.1f} MB")

        yield show


@app.command()
def upload(
    context: typer.Context,
    *,
    file: Annotated[str, typer.Argument(help="The file; - for standard input.")],
    dataset_id: Annotated[str | None, typer.Option("--id", help="Id of the dataset. Default: a generated one.")] = None,
    format: FormatOption = None,  # noqa: A002  # the option's name
    delimiter: DelimiterOption = None,
    null: NullOption = None,
    encoding: EncodingOption = None,
    primary_key: PrimaryKeyOption = "",
    column: ColumnOption = None,
    wait: Annotated[bool, typer.Option(help="Wait until the table is ready.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Upload a table. A broken upload is resumed where it broke."""
    with connect(context) as client:
        dataset = upload_file(
            client,
            file,
            dataset_id=dataset_id,
            format=format,
            delimiter=delimiter,
            nulls=null,
            encoding=encoding,
            primary_key=primary_key,
            columns=column,
            wait=wait,
            quiet=as_json,
        )
    _print_dataset(dataset, as_json)


@app.command()
def resume(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(help="Id or name of the dataset.")],
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
    dataset: Annotated[str, typer.Argument(help="Id or name of the dataset.")],
    as_json: JsonOption = False,
) -> None:
    """Show one dataset and its columns."""
    with connect(context) as client:
        _print_dataset(client.get_dataset(dataset), as_json)


@app.command()
def delete(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(help="Id or name of the dataset.")],
    as_json: JsonOption = False,
) -> None:
    """Delete a dataset. Published models are kept; all else that was derived from it is deleted."""
    with connect(context) as client:
        client.delete_dataset(dataset)
    print_deleted(dataset, as_json)
