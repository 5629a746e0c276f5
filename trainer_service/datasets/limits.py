"""What an upload may ask of the machine that reads it."""

from dataclasses import dataclass

MAX_COLUMNS = "ROWMINT_MAX_COLUMNS"
MAX_ROW_BYTES = "ROWMINT_MAX_ROW_BYTES"
MAX_TEXT_BYTES = "ROWMINT_MAX_TEXT_BYTES"
MAX_DECOMPRESSED_BYTES = "ROWMINT_MAX_DECOMPRESSED_BYTES"


@dataclass(frozen=True)
class IngestLimits:
    """How large a table and its parts may be; every error that comes of one names the setting that holds it.

    Attributes:
        columns: Columns of a table, at least 1.
        row_bytes: Bytes of a CSV row or a JSON object as they were written, and of the texts of a Parquet or Arrow row
            together; at least 1.
        text_bytes: UTF-8 bytes of one text, at least 1.
        decompressed_bytes: Bytes of a Parquet or Arrow table once its pages, dictionaries and runs are written out, at
            least 1. A few hundred bytes of either can describe a table of any length.
    """

    columns: int = 4096
    row_bytes: int = 16 << 20
    text_bytes: int = 64 << 10
    decompressed_bytes: int = 64 << 30

    def __post_init__(self) -> None:
        for name in ("columns", "row_bytes", "text_bytes", "decompressed_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")

    @property
    def columns_reason(self) -> str:
        """What is said of too many columns, after how many there are."""
        return f"a table has 1 to {self.columns} ({MAX_COLUMNS})"

    @property
    def row_reason(self) -> str:
        """What is said of a row that is too long."""
        return f"is longer than {self.row_bytes} bytes, the most that a row may have ({MAX_ROW_BYTES})"

    @property
    def text_reason(self) -> str:
        """What is said of a text that is too long."""
        return f"is longer than {self.text_bytes} bytes, the most that a text may have ({MAX_TEXT_BYTES})"

    @property
    def decompressed_reason(self) -> str:
        """What is said of a table that comes to too much."""
        return (
            f"comes to more than {self.decompressed_bytes} bytes once written out, the most that a table may have"
            f" ({MAX_DECOMPRESSED_BYTES}); upload it in parts, or raise the setting"
        )
