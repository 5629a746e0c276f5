"""What was decided about the columns of a table, for people: kind, type, form, why, and how to decide otherwise.

No cell of the data is shown: examples are made up from the form.
"""

from rowmint.cli.output import enum_name, print_notice, print_table
from rowmint.rpc.converters import column_from_proto
from rowmint.schema import ColumnKind, ColumnSpec
from rowmint.schema.forms import BooleanForm, DatetimeForm, NumberForm
from rowmint.schema.forms.cells import example
from rowmint.v1 import dataset_pb2


def print_profile(dataset: dataset_pb2.Dataset) -> None:
    """Print a table of the columns on stdout, and the notices on stderr."""
    findings = {one.column: one for one in dataset.findings}
    rows = []
    for message in dataset.schema.columns:
        column = column_from_proto(message, "schema")
        finding = findings.get(column.name, dataset_pb2.ColumnFinding())
        key = " (key)" if column.name == dataset.schema.primary_key else ""
        rows.append(
            (
                column.name + key,
                enum_name(message, "kind").lower(),
                enum_name(message, "data_type").lower(),
                form_text(column),
                f"{finding.missing:,}" if finding.missing else "",
                "" if column.kind is ColumnKind.IGNORED else example(column, 0),
                finding.why,
                finding.flag,
            )
        )
    title = f"{dataset.row_count:,} rows; examples are made up"
    print_table(("column", "kind", "type", "form", "missing", "example", "why", "otherwise"), rows, title)
    print_notices(dataset)


def print_notices(dataset: dataset_pb2.Dataset) -> None:
    """Print the notices of a dataset on stderr, a line each."""
    for notice in dataset.notices:
        column = f"column {notice.column!r}: " if notice.column else ""
        rows = f" ({notice.rows:,} rows)" if notice.rows else ""
        flag = f"; otherwise: {notice.flag}" if notice.flag else ""
        print_notice(f"note: {column}{notice.message}{rows}{flag}")


def form_text(column: ColumnSpec) -> str:
    """Return in a few words how a column's cells are written; empty where that is the canonical way."""
    match column.written_form.form:
        case DatetimeForm(pattern=pattern):
            return pattern
        case BooleanForm(true_text=true, false_text=false):
            return f"{true}/{false}"
        case NumberForm() as form:
            return _number_text(form)
    if column.kind is ColumnKind.ID and column.id_pattern:
        return column.id_pattern
    if column.datetime_format:
        return column.datetime_format
    return "" if column.written_form.storage is None else str(column.written_form.storage)


def _number_text(form: NumberForm) -> str:
    """Return a number in a form with its signs and separators, such as ``$#,###.00``."""
    digits = f"#{form.group_separator}###" if form.group_separator else "#"
    least = form.minimum_fraction_digits
    fraction = f"{form.decimal_separator}{'0' * least}" if least else ""
    return f"{form.prefix}{digits}{fraction}{form.suffix}"
