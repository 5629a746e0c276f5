"""Keys and ids: unique numbers stay numbers unless name or shape says key; text that is nearly unique is an id."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rowmint.schema import ColumnKind, ColumnSpec, DataType
from trainer_service.datasets import canonical_file
from trainer_service.datasets.inference.keys import names_key
from trainer_service.datasets.ingest import IngestResult, ingest
from trainer_service.datasets.table_options import TableOptions

SALARIES = [48_210 + (place * 7_919) % 9_973 for place in range(200)]


def read(
    tmp_path: Path, columns: dict[str, Sequence[object]], *overrides: ColumnSpec, key: str = "", propose: bool = True
) -> IngestResult:
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
    folder = tmp_path / f"scratch-{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    options = TableOptions(no_primary_key=not propose)
    return ingest(io.BytesIO("\n".join(lines).encode()), {"type": "csv"}, overrides, key, folder, options=options)


def codes(result: IngestResult, column: str) -> list[str]:
    return [str(notice.code) for notice in result.notices if notice.column == column]


@pytest.mark.parametrize("name", ["population", "salary", "epoch", "x"])
@pytest.mark.parametrize("rows", [12, 200])
def test_unique_numbers_are_numbers(tmp_path: Path, name: str, rows: int) -> None:
    result = read(tmp_path, {name: SALARIES[:rows], "y": [1] * rows})
    spec = result.schema.column(name)
    assert (spec.kind, spec.data_type, result.schema.primary_key) == (ColumnKind.NUMERICAL, DataType.INT64, "")
    (notice,) = [notice for notice in result.notices if notice.column == name]
    assert (notice.code, notice.flag) == ("UNIQUE_NUMBER", f"--primary-key {name}")


@pytest.mark.parametrize("name", ["id", "order_id", "orderId", "OrderID", "customer no", "serial", "#"])
def test_a_name_says_key(tmp_path: Path, name: str) -> None:
    result = read(tmp_path, {name: SALARIES[:12], "y": [1] * 12})
    assert (result.schema.primary_key, result.schema.column(name).kind) == (name, ColumnKind.ID)
    assert codes(result, name) == ["LIKELY_KEY"]
    without = read(tmp_path, {name: SALARIES[:12], "y": [1] * 12}, propose=False)
    assert (without.schema.primary_key, without.schema.column(name).kind) == ("", ColumnKind.ID)
    repeated = read(tmp_path, {name: [*SALARIES[:11], SALARIES[0]], "y": [1] * 12})
    assert (repeated.schema.primary_key, repeated.schema.column(name).kind) == ("", ColumnKind.NUMERICAL)


def test_only_the_last_word_of_a_name_counts() -> None:
    assert [name for name in ("id", "user_id", "UUID", "row") if not names_key(name)] == []
    assert [
        name for name in ("idle", "identity_gap", "width", "number_of_rooms", "paid", "x1") if names_key(name)
    ] == []


@pytest.mark.parametrize("first", [0, 1])
def test_row_numbers(tmp_path: Path, first: int) -> None:
    result = read(tmp_path, {"n": range(first, first + 30), "y": [1] * 30})
    assert (result.schema.primary_key, result.schema.column("n").kind) == ("n", ColumnKind.ID)
    assert codes(result, "n") == ["ROW_NUMBER", "LIKELY_KEY"]


@pytest.mark.parametrize("values", [range(2, 32), [1, *range(3, 32)], [2, 1, *range(3, 31)], range(1, 13)])
def test_other_numbers_are_no_row_numbers(tmp_path: Path, values: Sequence[int]) -> None:
    result = read(tmp_path, {"n": values, "y": [1] * len(values)})
    assert (result.schema.primary_key, result.schema.column("n").kind) == ("", ColumnKind.NUMERICAL)


def test_the_first_column_with_evidence_is_the_key(tmp_path: Path) -> None:
    columns = {"a": SALARIES, "b_id": SALARIES, "c_id": SALARIES}
    result = read(tmp_path, columns)
    assert (result.schema.primary_key, codes(result, "c_id")) == ("b_id", ["LIKELY_KEY"])
    chosen = read(tmp_path, columns, key="a")
    assert chosen.schema.primary_key == "a"
    assert [notice.flag for notice in chosen.notices] == ["--primary-key b_id", "--primary-key c_id"]
    declared = read(tmp_path, columns, ColumnSpec("b_id", ColumnKind.NUMERICAL))
    assert declared.schema.primary_key == "c_id"


def test_emails_are_never_published(tmp_path: Path) -> None:
    emails = [f"user.{place * 7_919 % 10_007}@mail{place % 3}.example" for place in range(3_000)]
    emails[17] = emails[2_999]
    result = read(tmp_path, {"email": emails, "y": [1] * 3_000})
    spec = result.schema.column("email")
    assert (spec.kind, spec.id_pattern, result.schema.primary_key) == (ColumnKind.ID, "[a-z0-9]{6,10}@example.com", "")
    (notice,) = [notice for notice in result.notices if notice.column == "email"]
    assert (notice.code, notice.rows, notice.flag) == ("NEAR_UNIQUE", 2_998, "--column email=categorical")
    shown = json.dumps([result.schema.to_json(), result.profile, result.sdv_metadata])
    assert [email for email in emails if email in shown] == []


@pytest.mark.parametrize(
    "emails",
    [
        [f"user{max(place, 1)}@corp.example" for place in range(60)],
        [f"user{place}@corp.example" if place else "" for place in range(6)],
        [f"user{place // 2}@corp.example" for place in range(60)],
    ],
)
def test_few_or_repeated_emails_are_never_published(tmp_path: Path, emails: list[str]) -> None:
    result = read(tmp_path, {"email": emails, "y": [1] * len(emails)})
    assert (result.schema.column("email").kind, codes(result, "email")) == (ColumnKind.ID, ["NEAR_UNIQUE"])
    shown = json.dumps([result.schema.to_json(), result.profile, result.sdv_metadata])
    assert [email for email in emails if email and email in shown] == []


def test_few_repeated_emails_are_categories(tmp_path: Path) -> None:
    teams = [f"team{place % 3}@corp.example" for place in range(60)]
    result = read(tmp_path, {"team": teams, "y": [1] * 60})
    assert (result.schema.column("team").kind, codes(result, "team")) == (ColumnKind.CATEGORICAL, [])


@pytest.mark.parametrize(
    ("values", "kind", "code"),
    [
        ([f"v{place}" for place in range(100)], ColumnKind.ID, "NEAR_UNIQUE"),
        ([f"v{place}" for place in range(99)], ColumnKind.CATEGORICAL, "NEAR_UNIQUE"),
        ([f"v{place // 2}" for place in range(200)], ColumnKind.CATEGORICAL, None),
        ([f"v{max(place, 89)}" for place in range(100)], ColumnKind.CATEGORICAL, "NEAR_UNIQUE"),
        ([f"v{max(place, 91)}" for place in range(100)], ColumnKind.CATEGORICAL, None),
        ([f"KD{place:07d}" for place in range(12)], ColumnKind.ID, "NEAR_UNIQUE"),
        ([f"{100 + place}-12-{3000 + place}" for place in range(12)], ColumnKind.ID, "NEAR_UNIQUE"),
        ([f"anna{min(place, 28)}@mail.example" for place in range(30)], ColumnKind.ID, "NEAR_UNIQUE"),
        ([f"{3000 + place}-{95 + place}-{10 + place}" for place in range(12)], ColumnKind.CATEGORICAL, None),
        (["Ada", "Bo", "Cy", "Di"], ColumnKind.CATEGORICAL, None),
    ],
)
def test_text_is_an_id_where_most_of_it_occurs_once(
    tmp_path: Path, values: list[str], kind: ColumnKind, code: str | None
) -> None:
    result = read(tmp_path, {"x": values, "y": [1] * len(values)})
    assert result.schema.column("x").kind is kind
    assert codes(result, "x") == ([] if code is None else [code])


@pytest.mark.parametrize("prefix", ["+4930", "+49 30 ", "(030) 30"])
def test_phone_numbers_of_several_lengths_are_ids(tmp_path: Path, prefix: str) -> None:
    phones = [f"{prefix}{10 ** (3 + place % 3) + place}" for place in range(12)]
    assert read(tmp_path, {"x": phones, "y": [1] * 12}).schema.column("x").kind is ColumnKind.ID


def test_days_of_an_unknown_order_are_no_ids(tmp_path: Path) -> None:
    days = [f"{1 + place % 12:02d}/{1 + place // 12:02d}/2024 {place % 24:02d}:15" for place in range(144)]
    result = read(tmp_path, {"x": days, "y": [1] * len(days)})
    assert result.schema.column("x").kind is ColumnKind.CATEGORICAL
    assert codes(result, "x") == ["DAY_ORDER_UNKNOWN", "NEAR_UNIQUE"]


def test_ids_may_be_missing(tmp_path: Path) -> None:
    values = [f"v{place}" if place % 3 else "" for place in range(300)]
    spec = read(tmp_path, {"x": values, "y": [1] * 300}).schema.column("x")
    assert (spec.kind, spec.nullable) == (ColumnKind.ID, True)


def test_findings_say_why(tmp_path: Path) -> None:
    result = read(tmp_path, {"id": SALARIES, "price": ["$5.00"] * 200, "kind": ["a", ""] * 100})
    found = {finding.column: finding for finding in result.findings}
    assert (found["id"].why, found["id"].flag) == ("no value repeats, and its name says so", "--column id=numerical")
    assert (found["id"].distinct, found["id"].distinct_exact) == (200, True)
    assert found["price"].why == "every value is a number, written in a form of its own"
    assert (found["kind"].missing, found["kind"].distinct, found["kind"].flag) == (100, 1, "--column kind=id")
    assert result.profile["findings"] == [finding.to_json() for finding in result.findings]
    assert result.profile["notices"] == [notice.to_json() for notice in result.notices]


def test_the_canonical_file_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []

    class Counting(pq.ParquetFile):  # type: ignore[misc]
        def __init__(self, path: Path) -> None:
            opened.append(path)
            super().__init__(path)

    monkeypatch.setattr(canonical_file.pq, "ParquetFile", Counting)
    result = read(tmp_path, {f"c.{place}": [f"{place}-{row}" for row in range(120)] for place in range(9)})
    assert {column.kind for column in result.schema.columns} == {ColumnKind.ID}
    assert len(opened) == 1
