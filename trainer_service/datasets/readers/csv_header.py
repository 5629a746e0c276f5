"""Whether the first line of a CSV file names its columns."""

import re
from enum import Enum

from rowmint.errors import DataProblem, InvalidDataError
from trainer_service.datasets.formats import CsvFormat, CsvHeader
from trainer_service.datasets.notices import Notice, NoticeCode, Notices
from trainer_service.datasets.readers.csv_records import Records

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+[.,]?[0-9]*|[.,][0-9]+)(?:[eE][+-]?[0-9]+)?")
_DAY = re.compile(r"[0-9]{1,4}([-/.])[0-9]{1,2}\1[0-9]{1,4}(?:[ T].*)?")


class _Class(Enum):
    """What a field could be."""

    EMPTY = "empty"
    WHOLE = "whole"
    NUMBER = "number"
    DAY = "day"
    TEXT = "text"


def _class(field: str) -> _Class:
    text = field.strip()
    if not text:
        return _Class.EMPTY
    if _WHOLE.fullmatch(text):
        return _Class.WHOLE
    if _DAY.fullmatch(text):
        return _Class.DAY
    return _Class.NUMBER if _NUMBER.fullmatch(text) else _Class.TEXT


def _class_of_column(fields: list[str]) -> _Class:
    classes = {_class(field) for field in fields} - {_Class.EMPTY}
    if len(classes) == 1:
        return classes.pop()
    return _Class.NUMBER if classes == {_Class.WHOLE, _Class.NUMBER} else _Class.TEXT


def check_header(records: Records, dialect: CsvFormat, notices: Notices) -> None:
    """Check that the first record could not be a row as well.

    Names that are numbers, such as years, are allowed, with a notice, where they are not among the values below.

    Raises:
        InvalidDataError: It could be.
    """
    if dialect.header is not CsvHeader.EXPECTED or not dialect.has_header or not records.rows:
        return
    names = records.found[0].fields
    columns = [[row.fields[index] for row in records.rows if index < len(row.fields)] for index in range(records.width)]
    typed = certain = whole = 0
    for name, fields in zip(names, columns, strict=True):
        kind, own = _class_of_column(fields), _class(name)
        if kind in (_Class.TEXT, _Class.EMPTY):
            continue
        if own is not kind and (own, kind) != (_Class.WHOLE, _Class.NUMBER):
            # A word over numbers names them.
            return
        typed += 1
        certain += own in (_Class.NUMBER, _Class.DAY) or name.strip().startswith("-")
        whole += own is _Class.WHOLE and kind is _Class.WHOLE and _within(name, fields)
    if not typed:
        return
    among = any(_class(name) is _Class.TEXT and name in fields for name, fields in zip(names, columns, strict=True))
    line = records.found[0].line
    if certain or len(set(names)) < len(names) or (whole == typed and (typed > 1 or among)):
        message = (
            "the line should name the columns, but could be a row; if the file has no header: --no-header; if this is"
            " it: --header"
        )
        raise InvalidDataError([DataProblem(message, line=line)])
    message = f"line {line} was read as the header, though numbers stand in it over columns of numbers"
    notices.add(Notice(NoticeCode.HEADER, "", message, "--no-header"))


def _within(name: str, fields: list[str]) -> bool:
    """Return whether a whole number lies within the range of those in a column."""
    values = [int(field) for field in fields if field.strip()]
    return min(values) <= int(name) <= max(values)
