"""Limits of ingest."""

from dataclasses import dataclass

MAX_COLUMNS = "ROWMINT_MAX_COLUMNS"
MAX_ROW_BYTES = "ROWMINT_MAX_ROW_BYTES"
MAX_TEXT_BYTES = "ROWMINT_MAX_TEXT_BYTES"
MAX_DECOMPRESSED_BYTES = "ROWMINT_MAX_DECOMPRESSED_BYTES"
MAX_ROW_GROUP_BYTES = "ROWMINT_MAX_ROW_GROUP_BYTES"


@dataclass(frozen=True)
class IngestLimits:
    """Limits of tables and their parts; errors name the setting of the exceeded limit.

    Attributes:
        columns: Maximum number of columns, at least 1.
        row_bytes: Maximum size of a CSV row or JSON object in the file, and of all texts of a Parquet or Arrow row; at
            least 1.
        text_bytes: Maximum length of a text, UTF-8 bytes, at least 1.
        decompressed_bytes: Maximum size of a Parquet or Arrow table once pages, dictionaries and runs are expanded, at
            least 1. A few hundred bytes in these formats can describe a table of any length.
        row_group_bytes: Maximum memory that reading a row group of Parquet takes, at least 1: of each column one page
            and the dictionary, whose entries take more than their bytes.
    """

    columns: int = 4096
    row_bytes: int = 16 << 20
    text_bytes: int = 64 << 10
    decompressed_bytes: int = 64 << 30
    row_group_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        for name in ("columns", "row_bytes", "text_bytes", "decompressed_bytes", "row_group_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")

    @property
    def columns_reason(self) -> str:
        """Error text of a wrong number of columns, to follow that number."""
        return f"a table must have 1 to {self.columns} ({MAX_COLUMNS})"

    @property
    def row_reason(self) -> str:
        """Error text of a row that is too long."""
        return f"is longer than {self.row_bytes} bytes, the maximum size of a row ({MAX_ROW_BYTES})"

    @property
    def text_reason(self) -> str:
        """Error text of a text that is too long."""
        return f"is longer than {self.text_bytes} bytes, the maximum length of a text ({MAX_TEXT_BYTES})"

    @property
    def decompressed_reason(self) -> str:
        """Error text of a table whose expanded size is too large."""
        return (
            f"has more than {self.decompressed_bytes} bytes once expanded, the maximum size of a table"
            f" ({MAX_DECOMPRESSED_BYTES}); upload it in parts, or raise the setting"
        )

    def row_group_reason(self, needed: int) -> str:
        """Error text of a row group that takes `needed` bytes of memory to read."""
        return (
            f"the pages of this row group would take {needed} bytes of memory, more than {self.row_group_bytes}"
            f" ({MAX_ROW_GROUP_BYTES}); write smaller pages or row groups, or raise the setting"
        )
