"""Formats of binary files, known by their first bytes, which text never begins with."""

import codecs
import io

from rowmint.errors import DataProblem, InvalidDataError

_SIGNATURES = {
    b"PK\x03\x04": "a ZIP archive, such as an Excel workbook; upload its sheet as CSV, or name the file .xlsx",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; save its sheet as CSV",
    b"PAR1": "a Parquet file; declare that format",
    b"ARROW1": "an Arrow file; declare that format",
    b"\x1f\x8b": "compressed with gzip; decompress it, or name the file as its format and .gz",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard; decompress it, or name the file as its format and .zst",
}
_LONGEST = max(map(len, _SIGNATURES))


def refuse_other_format(source: io.RawIOBase, declared: str) -> None:
    """Check that a file of text does not begin as files of other formats do.

    Args:
        source: Its bytes, seekable.
        declared: The format that it is declared to be, for the message.

    Raises:
        InvalidDataError: It does.
    """
    source.seek(0)
    beginning = source.read(_LONGEST) or b""
    for signature, what in _SIGNATURES.items():
        if beginning.startswith(signature):
            raise InvalidDataError([DataProblem(f"the bytes are not {declared}, but {what}")])


def is_utf16(source: io.RawIOBase) -> bool:
    """Return whether a file begins with the byte order mark of UTF-16."""
    source.seek(0)
    return (source.read(2) or b"") in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
