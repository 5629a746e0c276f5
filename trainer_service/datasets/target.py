"""What a column is converted to: its type, how its cells are read, and how they will be written."""

from dataclasses import dataclass

import pyarrow as pa

from rowmint.schema import DataType
from rowmint.schema.forms import CANONICAL, WrittenForm
from trainer_service.datasets.column_types import canonical_type


@dataclass(frozen=True)
class Target:
    """Target type of the conversion of a column.

    Attributes:
        data_type: The data type.
        form: How its cells are written.
        utc: Whether a TIMESTAMP contains instants in UTC instead of local times.
        decimals: Of a DOUBLE: digits after the point in the text, None if their number is not bounded; of a DECIMAL:
            its scale.
        learned: Whether the decimals of a DOUBLE are found from the values: they are not text, or have exponents.
        trim: Whether spaces around the text are removed.
        typed: Whether the input is numbers instead of text.
        decimal: Separator of fractions in text.
        group: Separator of groups of digits in text.
        template: Template of days in text, from `rowmint.schema.forms.moment_layouts`; None if `pattern` says how they
            are read, or there are none.
        day_first: Whether the day precedes the month, of a template with two fields before the year.
        pattern: Declared pattern of days, times and moments.
        datetime_format: The strptime format nearest to how they are written; empty for ISO 8601.
        why: Why this is the type, in words.
        flag: Option of the command that decides otherwise; empty if none does.
    """

    data_type: DataType
    form: WrittenForm = CANONICAL
    utc: bool = False
    decimals: int | None = None
    learned: bool = False
    trim: bool = False
    typed: bool = False
    decimal: str = "."
    group: str = ","
    template: str | None = None
    day_first: bool | None = None
    pattern: str = ""
    datetime_format: str = ""
    why: str = ""
    flag: str = ""

    @property
    def arrow_type(self) -> pa.DataType:
        """The Arrow type of the converted column."""
        return canonical_type(self.data_type, self.decimals, utc=self.utc)
