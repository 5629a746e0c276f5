"""From a column's summary to its codec and encoder, by what the column means."""

from collections.abc import Mapping
from dataclasses import replace

from rowmint.codecs import IdentityCodec
from rowmint.codecs.identity import MISSING_ONE
from rowmint.errors import InvalidFieldError
from rowmint.schema import INT64_MAX, ColumnSpec, DataType, Domain
from rowmint.schema.forms.id_pattern import MAX_IDS, parse_id_pattern
from trainer_service.fitting.encoding.category_encoder import fit_category
from trainer_service.fitting.encoding.fitted_column import FittedColumn
from trainer_service.fitting.encoding.number_modes import fit_number
from trainer_service.fitting.encoding.summary import CategorySummary, IdentitySummary, NumberSummary, Summary
from trainer_service.fitting.options import EncodingOptions

_ROOM = 20
_MOST_DIGITS = 19
_TEXT_PATTERN = "id-[0-9]{12}"


def fit_columns(
    columns: tuple[ColumnSpec, ...], summaries: Mapping[str, Summary], options: EncodingOptions
) -> tuple[FittedColumn, ...]:
    """Fit the codec of every column.

    Args:
        columns: The columns in order, kinds and types known.
        summaries: What was found of each, by name.
        options: How columns are encoded.

    Raises:
        InvalidFieldError: A categorical column has too many values and is to be refused then, or the pattern of integer
            ids describes no range of them.
    """
    fitted = []
    for column in columns:
        summary = summaries[column.name]
        match summary:
            case CategorySummary():
                fitted.append(fit_category(column, summary, options))
            case NumberSummary():
                fitted.append(fit_number(column, summary, options))
            case IdentitySummary():
                fitted.append(fit_identity(column, summary))
    return tuple(fitted)


def fit_identity(column: ColumnSpec, summary: IdentitySummary) -> FittedColumn:
    """Fit a column of ids: integers of the width found, or texts of a pattern.

    Row numbers continue; other ids are drawn from the language. There are at least `_ROOM` integers of that width for
    each row of the table, else they are wider; longer streams continue with wider ones.

    Raises:
        InvalidFieldError: A pattern is declared for integers, and describes no range of them.
    """
    missing = -(-summary.missing * MISSING_ONE // summary.seen) if summary.missing else 0
    fitted = replace(column, domain=Domain(nullable=missing > 0))
    if column.data_type is DataType.INT64:
        return FittedColumn(fitted, replace(_integer_ids(column, summary), missing=missing), None)
    pattern = column.id_pattern or _TEXT_PATTERN
    codec = IdentityCodec(False, 0, parse_id_pattern(pattern).size, pattern, missing=missing)
    return FittedColumn(replace(fitted, id_pattern=pattern), codec, None)


def _integer_ids(column: ColumnSpec, summary: IdentitySummary) -> IdentityCodec:
    if column.id_pattern:
        integers = parse_id_pattern(column.id_pattern).integers()
        if integers is None or integers[1] > INT64_MAX:
            raise InvalidFieldError(
                f"id_pattern of column {column.name!r}",
                f"{column.id_pattern!r} does not describe the integers from one to another, as [1-9][0-9]{{9}} does",
            )
        return IdentityCodec(True, integers[0], integers[1] - integers[0] + 1, "")
    if summary.base is not None:
        return IdentityCodec(True, summary.base, MAX_IDS, "", sequential=True)
    digits = len(str(max(abs(summary.minimum or 0), abs(summary.maximum or 0))))
    while digits < _MOST_DIGITS and 9 * 10 ** (digits - 1) < _ROOM * summary.rows:
        digits += 1
    base = 10 ** (digits - 1)
    size = min(MAX_IDS, INT64_MAX - base + 1)
    return IdentityCodec(True, base, size, "", first=9 * base if 9 * base < size else 0)
