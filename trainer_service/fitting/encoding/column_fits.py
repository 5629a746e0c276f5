"""From a column's summary to its codec and encoder, by what the column means."""

from collections.abc import Mapping
from dataclasses import replace

from rowmint.codecs import IdentityCodec
from rowmint.codecs.identity import MISSING_ONE
from rowmint.errors import InvalidFieldError
from rowmint.schema import INT64_MAX, ColumnSpec, DataType, Domain
from rowmint.schema.forms.id_pattern import MAX_IDS, longer_pattern, parse_id_pattern
from rowmint.schema.forms.storage import storage_bounds
from trainer_service.datasets.inference.keys import made_digits
from trainer_service.fitting.encoding.category_encoder import fit_category
from trainer_service.fitting.encoding.fitted_column import FittedColumn
from trainer_service.fitting.encoding.number_modes import fit_number
from trainer_service.fitting.encoding.summary import CategorySummary, IdentitySummary, NumberSummary, Summary
from trainer_service.fitting.options import EncodingOptions

_TEXT_PATTERN = "id-[0-9]{12}"
_ENOUGH = 10**9
"""Ids that suffice for any stream."""


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
                found = fit_category(column, summary, options)
                fitted.append(replace(found, least_rows=options.override(column.name).min_category_count))
            case NumberSummary():
                fitted.append(fit_number(column, summary, options))
            case IdentitySummary():
                fitted.append(fit_identity(column, summary))
    return tuple(fitted)


def fit_identity(column: ColumnSpec, summary: IdentitySummary) -> FittedColumn:
    """Fit a column of ids: integers that continue to count rows, integers of the width found, or texts of a pattern.

    Streams longer than there are ids of the width found continue with wider ones.

    Raises:
        InvalidFieldError: A pattern is declared for integers, and describes no range of them.
    """
    share = summary.missing / summary.rows if summary.rows else 0.0
    missing = round(share * MISSING_ONE)
    column = replace(column, domain=Domain(nullable=bool(missing)))
    if column.data_type is not DataType.INT64:
        pattern = column.id_pattern or _TEXT_PATTERN
        size = parse_id_pattern(pattern).size
        wide = longer_pattern(pattern) if size < _ENOUGH else pattern
        first = size if wide != pattern else 0
        codec = IdentityCodec(False, 0, parse_id_pattern(wide).size, wide, missing=missing, first=first)
        return FittedColumn(replace(column, id_pattern=pattern), codec, None)
    if column.id_pattern:
        return FittedColumn(column, replace(_declared_integers(column), missing=missing), None)
    _, greatest = storage_bounds(column.written_form.storage)
    end = int(greatest) + 1 if greatest > _ENOUGH else MAX_IDS
    if summary.counts_rows:
        base = 0 if summary.minimum == 0 else 1
        size = min(MAX_IDS, end - base)
        return FittedColumn(column, IdentityCodec(True, base, size, "", sequential=True, missing=missing), None)
    base = 10 ** (made_digits(summary.minimum, summary.maximum) - 1)
    size = max(9 * base, min(end, MAX_IDS) - base)
    codec = IdentityCodec(True, base, size, "", missing=missing, first=0 if size == 9 * base else 9 * base)
    return FittedColumn(column, codec, None)


def _declared_integers(column: ColumnSpec) -> IdentityCodec:
    integers = parse_id_pattern(column.id_pattern).integers()
    if integers is None or integers[1] > INT64_MAX:
        raise InvalidFieldError(
            f"id_pattern of column {column.name!r}",
            f"{column.id_pattern!r} does not describe the integers from one to another, as [1-9][0-9]{{9}} does",
        )
    return IdentityCodec(True, integers[0], integers[1] - integers[0] + 1, "")
