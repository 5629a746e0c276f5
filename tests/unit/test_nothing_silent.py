"""Nothing changes silently: what comes back otherwise than it came in is reported, and every form found is valid."""

import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rowmint.schema import DataType
from rowmint.schema.forms.cells import written
from rowmint.schema.forms.validation import validate_form
from tests.inferring import infer_table
from tests.unit.target_columns import column_of
from trainer_service.datasets.conversion import InfinityRule, convert
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.target import Target

_DIGITS = st.text("0123456789", min_size=1, max_size=9)
_FEW = st.text("0015", max_size=4)


def joined(*parts: st.SearchStrategy[str] | str) -> st.SearchStrategy[str]:
    """Return texts made of these parts, one after the other."""
    return st.tuples(*(st.just(part) if isinstance(part, str) else part for part in parts)).map("".join)


def some(*texts: str) -> st.SearchStrategy[str]:
    return st.sampled_from(texts)


NUMBERS = joined(
    some("", "", "-", "+", "(", "\u2212"),
    some("", "", "$", "\u20ac ", "$ \t", "CHF\u00a0", "$" + " " * 20),
    some("", "", "0", "00"),
    _FEW,
    some("", ",123", ".123", "'123", "\u00a0123", ",12,123"),
    some("", "", ".", ",", ".5", ",50", ".00001", "." + "12" * 21),
    some("", "", "", "e5", "E+05", "e-05", "e00000007", "e400"),
    some("", "", "%", " kg", ",-", ".-", "-", "CR", ")", " %)"),
)
MOMENTS = joined(
    some("", "", "Mon, ", "Friday "),
    some("2020-03-0", "3/1", "03/", "1 Sept 2", "Sept ", "5-MAR-2", "2020", "12.", "1."),
    _DIGITS.map(lambda digits: digits[:2]),
    some("", "", " 2020", ", 2020", "/2020", ".2020", "/20"),
    some("", "", " 9:05", "T09:05:00", " 9:05 PM", " 09:05:00.1230", " 9 am", " 24:00", " 23:59:60"),
    some("", "", "", "Z", " UTC", "+02:00", " -0530"),
)


def come_back(texts: list[str]) -> tuple[Target, list[str | None], list[str]]:
    """Return the target of a column, its texts as they come back, and the codes of what is reported."""
    targets, notices = infer_table({"x": texts})
    target = targets["x"]
    validate_form(target.form, target.data_type, "x")
    converted = convert(pa.array(texts), target, IngestLimits(), InfinityRule())
    column = column_of(target)
    cells = [None if cell is None else written(cell, column) for cell in converted.array.to_pylist()]
    return target, cells, [str(notice.code) for notice in notices]


@given(st.lists(NUMBERS | MOMENTS, min_size=1, max_size=3) | st.lists(NUMBERS, min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
@example(["kr 7977,-"])
@example(["$" + " " * 20 + "1.50"])
@example(["$\t1.50"])
@example(["0." + "12" * 21])
@example(["1.5e00000007"])
def test_what_comes_back_otherwise_is_reported(texts: list[str]) -> None:
    target, found, codes = come_back(texts)
    if target.data_type is not DataType.STRING and found != texts and None not in found:
        assert codes != []
    if target.data_type is DataType.STRING:
        assert found == texts
