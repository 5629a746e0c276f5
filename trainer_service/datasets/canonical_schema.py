"""The schema of a canonical table: declarations completed by what was found, and reports of what was decided."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rowmint.errors import InvalidFieldError
from rowmint.schema import KINDS_OF_TYPE, ColumnKind, ColumnSpec, DataType, Domain, TableSchema, with_nullable
from trainer_service.datasets.canonical_column import CanonicalColumn, Repetition
from trainer_service.datasets.canonical_file import CanonicalFile
from trainer_service.datasets.inference.identifiers import LearnedPattern
from trainer_service.datasets.inference.keys import (
    ENOUGH_ROWS,
    ID_SHARE,
    ID_VALUES,
    REPORTED_SHARE,
    KeyEvidence,
    KeyFacts,
    key_evidence,
)
from trainer_service.datasets.notices import Finding, Notice, NoticeCode, Notices, column_flag, key_flag

_FEW_ROWS = 2
"""Values from which on text that mostly occurs once, and that its name or shape calls an id, is one."""
_DAYS = (NoticeCode.DAY_ORDER_UNKNOWN,)
"""Notices of text that is days."""
_NOTABLE_ROWS = 12
"""Rows from which on a number that does not repeat is reported."""


@dataclass(frozen=True)
class _Decided:
    """What a column is.

    Attributes:
        kind: Its kind.
        why: Why.
        flag: Option of the command that decides otherwise.
        evidence: Why it identifies rows; None if it does not.
        pattern: The pattern of its ids; None if they have none.
    """

    kind: ColumnKind
    why: str
    flag: str = ""
    evidence: KeyEvidence | None = None
    pattern: LearnedPattern | None = None


class SchemaBuilder:
    """Decides about the kinds of columns and the primary key.

    Args:
        columns: The converted columns.
        rows: Rows of the table.
        file: The canonical file.
        notices: Receives what to report.
    """

    def __init__(self, columns: Sequence[CanonicalColumn], rows: int, file: CanonicalFile, notices: Notices) -> None:
        self._columns = columns
        self._rows = rows
        self._file = file
        self._notices = notices

    def build(self, primary_key: str, *, propose: bool) -> tuple[TableSchema, tuple[Finding, ...]]:
        """Return the schema and the findings of its columns.

        Args:
            primary_key: The declared primary key, or empty.
            propose: Whether a primary key is looked for if none is declared.

        Raises:
            InvalidFieldError: The primary key is declared to be of another kind.
        """
        decided = {column.name: self._decide(column, is_key=column.name == primary_key) for column in self._columns}
        key = primary_key or (self._propose(decided) if propose else "")
        for name, found in decided.items():
            self._report_key(name, found, key, declared=bool(primary_key))
        specs = tuple(self._spec(column, decided[column.name]) for column in self._columns)
        findings = tuple(self._finding(column, decided[column.name]) for column in self._columns)
        return TableSchema(specs, key), findings

    def _decide(self, column: CanonicalColumn, *, is_key: bool) -> _Decided:
        declared, target = column.declared, column.target
        if is_key and declared.kind not in (None, ColumnKind.ID):
            raise InvalidFieldError(
                "dataset.primary_key", f"column {column.name!r} is declared {declared.kind}, but must be an ID"
            )
        if is_key or declared.kind is ColumnKind.ID:
            why = "it is the primary key" if is_key else "it is declared so"
            return _Decided(ColumnKind.ID, why, pattern=self._pattern(column))
        if declared.kind is not None:
            return _Decided(declared.kind, "it is declared so")
        usual = KINDS_OF_TYPE[target.data_type][0]
        if column.domain.categories:
            kind = usual if usual is ColumnKind.BOOLEAN else ColumnKind.CATEGORICAL
            return _Decided(kind, "its categories are declared")
        if target.data_type is DataType.STRING:
            return self._text(column)
        if target.data_type is DataType.INT64 and not target.form.form and column.is_distinct(self._file):
            return self._unique_number(column)
        return _Decided(usual, target.why, target.flag)

    def _unique_number(self, column: CanonicalColumn) -> _Decided:
        """Decide about integers that do not repeat."""
        facts = KeyFacts(column.name, DataType.INT64, self._rows, column.counts_rows, is_code=False)
        evidence = key_evidence(facts)
        numerical = column_flag(column.name, "numerical")
        if evidence is not None:
            return _Decided(ColumnKind.ID, f"no value repeats, and {evidence}", numerical, evidence)
        flag = key_flag(column.name)
        if self._rows >= _NOTABLE_ROWS:
            message = (
                "no value repeats, but neither its name nor its shape says that it identifies rows: it is numerical"
            )
            self._notices.add(Notice(NoticeCode.UNIQUE_NUMBER, column.name, message, flag))
        return _Decided(ColumnKind.NUMERICAL, column.target.why, flag)

    def _text(self, column: CanonicalColumn) -> _Decided:
        """Decide about text: an id if most of its values occur once, so that none of them is published."""
        found = column.repetition
        usual = _Decided(ColumnKind.CATEGORICAL, column.target.why, column_flag(column.name, "id"))
        if found is None or not found.values:
            return usual
        unique = found.single == self._rows
        few_repeat = found.values >= ENOUGH_ROWS and found.single >= ID_SHARE * found.values
        mostly_single = few_repeat and found.values >= ID_VALUES
        # Made ids would be no days.
        is_day = any(one.column == column.name and one.code in _DAYS for one in self._notices.all())
        single = found.values >= _FEW_ROWS and found.single >= ID_SHARE * found.values
        has_emails = column.has_emails and (single or found.distinct >= ENOUGH_ROWS)
        if is_day or (not few_repeat and not has_emails and not (unique and self._rows >= _FEW_ROWS)):
            self._report_singles(column.name, found)
            return usual
        pattern = column.pattern(self._file)
        is_code = pattern is not None and pattern.is_code
        evidence = key_evidence(
            KeyFacts(column.name, DataType.STRING, self._rows, is_row_number=False, is_code=is_code)
        )
        if not unique:
            evidence = None
        is_personal = pattern is not None and pattern.is_personal
        if not mostly_single and not has_emails and evidence is None and not is_personal:
            self._report_singles(column.name, found)
            return usual
        why = f"{found.single} of {found.values} values occur once"
        if not single:
            why = "its values are e-mail addresses"
        flag = column_flag(column.name, "categorical")
        message = f"{why}; it is an id, so that made values are published instead of them"
        self._report_layouts(column.name, pattern)
        self._notices.add(Notice(NoticeCode.NEAR_UNIQUE, column.name, message, flag, found.single))
        return _Decided(ColumnKind.ID, why, flag, evidence, pattern)

    def _report_singles(self, name: str, found: Repetition) -> None:
        if found.values >= ENOUGH_ROWS and found.single >= REPORTED_SHARE * found.values:
            message = (
                f"{found.single} of {found.values} values occur once; as categories they are published as they are"
            )
            self._notices.add(Notice(NoticeCode.NEAR_UNIQUE, name, message, column_flag(name, "id"), found.single))

    def _pattern(self, column: CanonicalColumn) -> LearnedPattern | None:
        if column.target.data_type is not DataType.STRING or column.declared.id_pattern:
            return None
        found = column.pattern(self._file)
        self._report_layouts(column.name, found)
        return found

    def _report_layouts(self, name: str, pattern: LearnedPattern | None) -> None:
        if pattern is not None and pattern.others:
            message = f"ids have several layouts, of which that of most rows is used: {pattern.pattern}"
            self._notices.add(Notice(NoticeCode.MIXED_FORMS, name, message, rows=pattern.others))

    def _propose(self, decided: dict[str, _Decided]) -> str:
        for column in self._columns:
            if decided[column.name].evidence is not None and column.is_distinct(self._file):
                return column.name
        return ""

    def _report_key(self, name: str, found: _Decided, key: str, *, declared: bool) -> None:
        if found.evidence is None:
            return
        if found.evidence is KeyEvidence.ROW_NUMBER:
            message = "it counts the rows: it is an id, made ids count on"
            self._notices.add(Notice(NoticeCode.ROW_NUMBER, name, message, column_flag(name, "numerical")))
        if name == key and not declared:
            message = f"it was taken for the primary key: no value repeats, and {found.evidence}"
            self._notices.add(Notice(NoticeCode.LIKELY_KEY, name, message, "--no-primary-key"))
        elif name != key:
            message = f"it may be a key: no value repeats, and {found.evidence}"
            self._notices.add(Notice(NoticeCode.LIKELY_KEY, name, message, key_flag(name)))

    def _spec(self, column: CanonicalColumn, found: _Decided) -> ColumnSpec:
        declared, target, profile, domain = column.declared, column.target, column.profile, column.domain
        ordered = found.kind in (ColumnKind.NUMERICAL, ColumnKind.DATETIME)
        id_pattern = declared.id_pattern
        if not id_pattern and found.pattern is not None and found.kind is ColumnKind.ID:
            id_pattern = found.pattern.pattern
        spec = ColumnSpec(
            column.name,
            found.kind,
            target.data_type,
            Domain(
                categories=domain.categories,
                minimum=profile.minimum if ordered and domain.minimum is None else domain.minimum,
                maximum=profile.maximum if ordered and domain.maximum is None else domain.maximum,
                decimals=_decimals(column),
            ),
            datetime_format=target.datetime_format,
            time_zone="UTC" if target.utc else "",
            id_pattern=id_pattern,
            written_form=target.form,
            null_values=declared.null_values,
        )
        return with_nullable(spec, profile.nulls > 0 if domain.nullable is None else domain.nullable)

    def _finding(self, column: CanonicalColumn, found: _Decided) -> Finding:
        profile, repetition = column.profile, column.repetition
        distinct, exact = profile.distinct
        if repetition is not None:
            distinct, exact = repetition.distinct, True
        return Finding(column.name, found.why, found.flag, profile.nulls, distinct, exact)


def profile_json(columns: Sequence[CanonicalColumn], schema: TableSchema) -> dict[str, Any]:
    """Return the profiles of columns, without the values of ids."""
    found = {}
    for column in columns:
        body = column.profile.to_json()
        if schema.column(column.name).kind is ColumnKind.ID and column.target.data_type is DataType.STRING:
            body = {key: value for key, value in body.items() if key not in ("minimum", "maximum")}
        found[column.name] = body
    return found


def _decimals(column: CanonicalColumn) -> int | None:
    target = column.target
    if target.data_type not in (DataType.DOUBLE, DataType.DECIMAL):
        return None
    if column.domain.decimals is not None:
        return column.domain.decimals
    if target.data_type is DataType.DOUBLE and target.learned:
        learned = column.profile.decimals if column.profile.values else None
        return learned if target.typed or learned is None else max(learned, target.decimals or 0)
    return target.decimals
