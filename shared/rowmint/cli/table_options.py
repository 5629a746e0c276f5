"""Options of the commands that upload a table: its format, and what is declared of its columns."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

import typer

from rowmint.cli.declarations import declared_columns, with_values
from rowmint.cli.types_file import TypesFile
from rowmint.client.datasets import data_format
from rowmint.errors import InvalidFieldError
from rowmint.v1 import dataset_pb2, schema_pb2

_ORIENTS = tuple(name.removeprefix("JSON_ORIENT_").lower() for name, number in dataset_pb2.JsonOrient.items() if number)
_POLICIES = tuple(
    name.removeprefix("INFINITE_POLICY_").lower() for name, number in dataset_pb2.InfinitePolicy.items() if number
)
_QUOTED_EMPTY = tuple(
    name.removeprefix("QUOTED_EMPTY_").lower() for name, number in dataset_pb2.QuotedEmpty.items() if number
)


def _option(*names: str, help: str, **settings: Any) -> Any:  # noqa: A002  # typer's name
    return typer.Option(*names, help=help, rich_help_panel="Table", show_default=False, **settings)


@dataclass(frozen=True)
class TableOptions:
    """How a file is read, and what is declared of its columns; what is None or empty is not given."""

    format: Annotated[
        str | None,
        _option(
            "--format",
            help="csv, tsv, json, jsonl, ndjson, parquet, arrow (IPC stream) or feather (IPC file). Default: by the"
            " file's suffix.",
        ),
    ] = None
    delimiter: Annotated[
        str | None,
        _option(
            "--delimiter",
            help="CSV: character between fields, or tab, comma, semicolon, pipe, space. Default: seen from the file.",
        ),
    ] = None
    quote: Annotated[
        str | None, _option("--quote", help='CSV: character around fields that contain others. Default: ".')
    ] = None
    null: Annotated[
        list[str] | None, _option("--null", help="CSV: text that stands for a missing cell; may be repeated.")
    ] = None
    encoding: Annotated[
        str | None, _option("--encoding", help="CSV: utf-8, latin-1, cp1252 or utf-16. Default: utf-8.")
    ] = None
    comment: Annotated[
        str | None, _option("--comment", help="CSV: lines that begin with this are skipped, such as #.")
    ] = None
    skip_rows: Annotated[
        int | None, _option("--skip-rows", min=0, help="CSV: lines before the header that are skipped.")
    ] = None
    header: Annotated[
        bool | None,
        _option("--header/--no-header", help="CSV: whether the first line names the columns. Default: it does."),
    ] = None
    decimal: Annotated[
        str | None, _option("--decimal", help="CSV: character before fractions. Default: seen from each column.")
    ] = None
    quoted_empty: Annotated[
        str | None,
        _option(
            "--quoted-empty",
            help=f'CSV: what "" stands for, {" or ".join(_QUOTED_EMPTY)}. Default: seen from the file.',
        ),
    ] = None
    orient: Annotated[
        str | None,
        _option("--orient", help=f"JSON: {', '.join(_ORIENTS)}, as in pandas. Default: seen from the document."),
    ] = None
    infinite: Annotated[
        str | None,
        _option("--infinite", help=f"Infinite numbers: {' or '.join(_POLICIES)}. Default: they are refused."),
    ] = None
    sheet: Annotated[str | None, _option("--sheet", help="Excel: name of the sheet, where there are several.")] = None
    primary_key: Annotated[
        str, _option("--primary-key", help="Column that identifies a row; it is generated, never learned.")
    ] = ""
    no_primary_key: Annotated[
        bool, _option("--no-primary-key", help="No column identifies a row, and none is looked for.")
    ] = False
    column: Annotated[
        list[str] | None,
        _option(
            "--column",
            metavar="NAME=KIND[:FORM]",
            help="Declare a column: numerical, categorical, datetime, boolean, id or ignored, and how it is written: a"
            " date pattern (d=datetime:%d.%m.%Y), a number as an example (price=numerical:'$1,234.50'), truth values"
            " (ok=boolean:yes/no), a pattern of ids (code=id:KD-[0-9]{6}). May be repeated.",
        ),
    ] = None
    column_null: Annotated[
        list[str] | None,
        _option("--column-null", metavar="NAME=TEXT", help="Text that stands for a missing cell of one column."),
    ] = None
    minimum: Annotated[
        list[str] | None, _option("--minimum", metavar="NAME=VALUE", help="Smallest value of a column.")
    ] = None
    maximum: Annotated[
        list[str] | None, _option("--maximum", metavar="NAME=VALUE", help="Largest value of a column.")
    ] = None
    types: Annotated[
        str | None,
        _option(
            "--types",
            metavar="FILE",
            help="Read all of this from a file that `rowmint datasets profile --types` wrote; options win over it.",
        ),
    ] = None

    def given(self) -> list[str]:
        """Return the options that are given, as the command line names them."""
        return [
            f"--{one.name.replace('_', '-')}"
            for one in fields(self)
            if getattr(self, one.name) not in (None, "", False)
        ]

    def declarations(self, file_name: str) -> "Declarations":
        """Return what these options declare of a file.

        Raises:
            InvalidFieldError: An option has a value that it cannot have, or is for another format.
            InvalidDataError: The types file is malformed.
        """
        base = TypesFile() if self.types is None else TypesFile.read(self.types)
        columns = {column.name: column for column in base.columns}
        declared = declared_columns(self.column or ())
        columns |= {column.name: column for column in declared}
        listed = list(columns.values())
        with_values(
            listed,
            {
                "--column-null": self.column_null or (),
                "--minimum": self.minimum or (),
                "--maximum": self.maximum or (),
            },
        )
        if self.primary_key and self.no_primary_key:
            raise InvalidFieldError("--no-primary-key", "contradicts --primary-key; give one of them")
        return Declarations(
            self._format(file_name, base),
            listed,
            "" if self.no_primary_key else self.primary_key or base.primary_key,
            self.no_primary_key or (base.no_primary_key and not self.primary_key),
            dataset_pb2.InfinitePolicy.ValueType(_member("--infinite", self.infinite, _POLICIES)),
            self.sheet,
        )

    def _format(self, file_name: str, base: TypesFile) -> dataset_pb2.DataFormat:
        found = dataset_pb2.DataFormat()
        found.CopyFrom(data_format(self.format, file_name))
        kind = found.WhichOneof("format")
        csv = {
            "delimiter": self.delimiter,
            "quote": self.quote,
            "null_values": self.null,
            "encoding": self.encoding,
            "comment": self.comment,
            "skip_rows": self.skip_rows,
            "header": None if self.header is None else (1 if self.header else 2),
            "decimal": self.decimal,
            "quoted_empty": _member("--quoted-empty", self.quoted_empty, _QUOTED_EMPTY),
        }
        if kind == "csv":
            found.csv.MergeFrom(base.csv)
            if self.null:
                found.csv.ClearField("null_values")
            found.csv.MergeFrom(dataset_pb2.CsvFormat(**csv))  # type: ignore[arg-type]  # by name
        elif any(csv.values()):
            option = next(name for name, value in csv.items() if value).removesuffix("_values").replace("_", "-")
            raise InvalidFieldError(f"--{option}", "is for CSV only")
        if self.orient is not None:
            if kind != "json":
                raise InvalidFieldError("--orient", "is for JSON only")
            found.json.orient = _member("--orient", self.orient, _ORIENTS)  # type: ignore[assignment]  # its number
        return found


@dataclass(frozen=True)
class Declarations:
    """What is declared of one table.

    Attributes:
        format: How its bytes are read.
        columns: Declared columns.
        primary_key: Its primary key, or empty.
        no_primary_key: Whether it has none.
        infinite: The policy for infinite numbers.
        sheet: Name of the sheet, of an Excel workbook; or None.
    """

    format: dataset_pb2.DataFormat
    columns: list[schema_pb2.ColumnSpec] = field(default_factory=list)
    primary_key: str = ""
    no_primary_key: bool = False
    infinite: dataset_pb2.InfinitePolicy.ValueType = dataset_pb2.INFINITE_POLICY_UNSPECIFIED
    sheet: str | None = None


def _member(option: str, text: str | None, members: tuple[str, ...]) -> int:
    """Return the number of an enum's member by name; 0 for None."""
    if text is None:
        return 0
    if text.lower() not in members:
        raise InvalidFieldError(option, f"{text!r} is unknown; choose one of {', '.join(members)}")
    return members.index(text.lower()) + 1


def with_table_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return `command` with the options of `TableOptions`, which its keyword argument `table` gets.

    Args:
        command: A Typer command. `table` is not an option itself; a parameter of its own takes the place of an option
            of its name.
    """
    signature = inspect.signature(command)
    own = [parameter for name, parameter in signature.parameters.items() if name != "table"]
    taken = {parameter.name for parameter in own}
    options = [
        inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=one.type)
        for one in fields(TableOptions)
        if one.name not in taken
    ]

    def run(*arguments: Any, **values: Any) -> None:
        table = TableOptions(**{option.name: values.pop(option.name) for option in options})
        command(*arguments, **values, table=table)

    run.__doc__, run.__name__ = command.__doc__, command.__name__
    parameters = [*own, *options]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run
