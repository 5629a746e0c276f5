"""What the format of a file says about the cells in it, beside their text or type."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from rowmint.schema.forms import StorageType


@dataclass(frozen=True)
class FormatHints:
    """What a reader knows of its columns that their values do not say.

    Attributes:
        delimiter: Field separator of a CSV file; empty for other formats.
        decimal: Declared separator of fractions in numbers given as text; empty: seen from each column.
        group_separator: Declared separator of groups of digits; None: seen from each column; empty: there is none.
        storage: Types that columns came in, by name, where those are not canonical; of typed formats.
        arrow_zones: Time zones in the types of columns, by name; labels only.
    """

    delimiter: str = ""
    decimal: str = ""
    group_separator: str | None = None
    storage: Mapping[str, StorageType] = field(default_factory=dict)
    arrow_zones: Mapping[str, str] = field(default_factory=dict)
