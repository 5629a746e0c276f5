"""Output of commands: tables and progress for people, JSON for scripts, errors as one line."""

import json
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Protocol, TypeVar

import typer
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from rowmint.client import Client, RetryPolicy
from rowmint.client.client import CALL_SECONDS
from rowmint.client.settings import ClientSettings
from rowmint.v1 import schema_pb2

_Message = TypeVar("_Message", bound=Message)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def client_settings(context: typer.Context, ignored: Collection[str] = ()) -> ClientSettings:
    """Return the settings of the command line's options and the environment; see `ClientSettings.load`.

    Raises:
        InvalidFieldError: A variable has a value that it cannot have.
    """
    load: Callable[..., ClientSettings] = context.obj
    return load(ignored=ignored)


def connect(context: typer.Context) -> Client:
    """Return a client of the services that the command line and the environment name."""
    return client_of(client_settings(context))


def client_of(settings: ClientSettings, patience: float | None = None) -> Client:
    """Return a client of these settings.

    Args:
        settings: The settings.
        patience: Seconds that a call may take, which is made once; None for calls as the client makes them by default.
    """
    return Client(
        settings.trainer,
        settings.sampler,
        settings.project,
        retry=None if patience is None else RetryPolicy(unary_attempts=1),
        timeout=CALL_SECONDS if patience is None else patience,
        balancing=settings.balancing,
        credentials=settings.credentials(),
    )


def short_name(name: str) -> str:
    """Return a resource's name without its project and collection."""
    parts = name.split("/")
    return "/".join(parts[3:]) if len(parts) > 3 else name


def enum_name(message: Message, field_name: str) -> str:
    """Return an enum field's value without its type's prefix, or empty where it is unset."""
    field = message.DESCRIPTOR.fields_by_name[field_name]
    return _enum_text(field, getattr(message, field_name))


def _enum_text(field: Any, number: int) -> str:
    values = field.enum_type.values_by_number
    prefix = values[0].name.removesuffix("UNSPECIFIED")
    if number not in values:
        return str(number)
    return str(values[number].name).removeprefix(prefix) if number else ""


def message_json(message: Message) -> dict[str, Any]:
    """Return a message as JSON values: enums by name, bytes as hex digits, times as ISO 8601, unset fields left out."""
    return {field.name: _field_json(field, value) for field, value in message.ListFields()}


def _field_json(field: Any, value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return {str(key): _cell_json(field.message_type.fields_by_name["value"], one) for key, one in value.items()}
    if field.is_repeated:
        return [_cell_json(field, one) for one in value]
    return _cell_json(field, value)


def _cell_json(field: Any, value: Any) -> Any:
    if isinstance(value, Timestamp):
        return value.ToJsonString()
    if isinstance(value, Duration):
        return value.ToTimedelta().total_seconds()
    if isinstance(value, Message):
        return message_json(value)
    if field.type == FieldDescriptor.TYPE_ENUM:
        return _enum_text(field, value)
    return value.hex() if isinstance(value, bytes) else value


def print_json(value: object) -> None:
    """Print one JSON value on a line of stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def stdout_console() -> Console:
    """Return a console for results; wide enough not to cut them where stdout is not a terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=200)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """Print a table on stdout."""
    # Text, not str: rich would read brackets in a name as markup.
    shown = Text(title) if title else None
    table = Table(title=shown, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(Text(heading))
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    stdout_console().print(table)


def print_list(
    headings: Sequence[str],
    messages: Sequence[_Message],
    row: Callable[[_Message], Sequence[object]],
    *,
    as_json: bool,
) -> None:
    """Print a list of resources on stdout: as a table, a row each, or as a JSON array."""
    if as_json:
        print_json([message_json(message) for message in messages])
    else:
        print_table(headings, map(row, messages))


def print_schema(schema: schema_pb2.TableSchema, title: str = "") -> None:
    """Print a table's columns on stdout."""
    print_table(("column", "kind", "type", "values"), map(_column_row, schema.columns), title)


def _column_row(column: schema_pb2.ColumnSpec) -> tuple[str, str, str, str]:
    domain = column.domain
    facts = []
    if domain.categories:
        facts.append(f"{len(domain.categories):,} categories")
    if domain.HasField("minimum") and domain.HasField("maximum"):
        facts.append(f"{_value_text(domain.minimum)} to {_value_text(domain.maximum)}")
    if domain.nullable:
        facts.append("may be missing")
    if column.id_pattern:
        facts.append(column.id_pattern)
    kind, data_type = enum_name(column, "kind").lower(), enum_name(column, "data_type").lower()
    return column.name, kind, data_type, ", ".join(facts)


def _value_text(value: Message) -> str:
    fields = value.ListFields()
    return str(fields[0][1]) if fields else ""


def print_notice(text: str) -> None:
    """Print a line on stderr, where it is not mistaken for a result."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)


def print_deleted(name: str, as_json: bool) -> None:
    """Report that a resource is deleted."""
    if as_json:
        print_json({"deleted": name})
    else:
        print_notice(f"{name}: deleted")


def print_error(text: str) -> None:
    """Print an error on stderr, as one line."""
    sys.stderr.write(f"rowmint: {' '.join(text.split())}\n")


def print_json_error(message: str, reason: str = "", metadata: Mapping[str, str] | None = None) -> None:
    """Print an error on stderr as one JSON object, for scripts that read `--json`."""
    body = {"error": {"message": message, "reason": reason, "metadata": dict(metadata or {})}}
    sys.stderr.write(json.dumps(body, ensure_ascii=False) + "\n")


class Bar(Protocol):
    """Progress of one thing on stderr."""

    def update(self, done: float, total: float | None, note: str = "") -> None:
        """Show how much is done of how much, and a note."""
        ...

    def note(self, text: str) -> None:
        """Show a note beside the bar."""
        ...


class _NoBar:
    """Shows nothing."""

    def update(self, done: float, total: float | None, note: str = "") -> None:
        """See `Bar`."""

    def note(self, text: str) -> None:
        """See `Bar`."""


class _TerminalBar:
    """A bar that moves.

    Args:
        progress: Draws it.
        description: Text before the bar.
    """

    def __init__(self, progress: Progress, description: str) -> None:
        self._progress = progress
        self._task = progress.add_task(description, total=None, note="")

    def update(self, done: float, total: float | None, note: str = "") -> None:
        """See `Bar`."""
        self._progress.update(self._task, completed=done, total=total, note=note)

    def note(self, text: str) -> None:
        """See `Bar`."""
        self._progress.update(self._task, note=text)


class ProgressLines:
    """Progress as lines on stderr, for logs: one whenever another tenth of the whole is done.

    Args:
        description: Text before the share.
        least: Wholes that are smaller are not worth lines.
    """

    def __init__(self, description: str, least: float) -> None:
        self._description = description
        self._least = least
        self._tenths = 0

    def update(self, done: float, total: float | None, note: str = "") -> None:
        """See `Bar`."""
        if not total or total < self._least:
            return
        tenths = int(10 * done / total)
        if tenths > self._tenths:
            self._tenths = tenths
            print_notice(f"{self._description}: {done / total:.0%}  {note}".rstrip())

    def note(self, text: str) -> None:
        """See `Bar`."""


@contextmanager
def progress_bar(description: str, *, quiet: bool, least: float = 0) -> Iterator[Bar]:
    """Show progress while the block runs: a bar on a terminal, else a line at each tenth.

    Args:
        description: What makes progress.
        quiet: Whether nothing is shown.
        least: Wholes that are smaller have no lines.
    """
    console = Console(stderr=True)
    if quiet:
        yield _NoBar()
        return
    if not console.is_terminal:
        yield ProgressLines(description, least)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield _TerminalBar(progress, description)
