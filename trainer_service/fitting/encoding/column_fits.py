"""From a column's summary to its codec and encoder, by what the column means."""

from collections.abc import Mapping
from dataclasses import replace

from rowmint.codecs import IdentityCodec
from rowmint.schema import ColumnSpec, DataType, Domain
from rowmint.schema.forms.id_pattern import parse_id_pattern
from trainer_service.fitting.encoding.category_encoder import fit_category
from trainer_service.fitting.encoding.fitted_column import FittedColumn
from trainer_service.fitting.encoding.number_modes import fit_number
from trainer_service.fitting.encoding.summary import CategorySummary, IdentitySummary, NumberSummary, Summary
from trainer_service.fitting.options import EncodingOptions

_LEAST_DIGITS = 10
_MOST_DIGITS = 18
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
        InvalidFieldError: A categorical column has too many values and is to be refused then.
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
    """Fit a column of ids: integers of the width found but at least ten digits, or texts of a pattern.

    Ten digits leave room for streams longer than the table, and no made id meets a real one of fewer digits.
    """
    domain = Domain(nullable=False)
    if column.data_type is DataType.INT64:
        largest = max(abs(summary.minimum or 0), abs(summary.maximum or 0))
        digits = min(max(len(str(largest)), _LEAST_DIGITS), _MOST_DIGITS)
        base = 10 ** (digits - 1)
        return FittedColumn(replace(column, domain=domain), IdentityCodec(True, base, 9 * base, ""), None)
    pattern = column.id_pattern or _TEXT_PATTERN
    size = parse_id_pattern(pattern).size
    return FittedColumn(
        replace(column, domain=domain, id_pattern=pattern), IdentityCodec(False, 0, size, pattern), None
    )
