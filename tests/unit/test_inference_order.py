"""The inferred type does not depend on the order of rows, nor on where batches end."""

from hypothesis import given, settings
from hypothesis import strategies as st

from rowmint.schema import DataType
from tests.inferring import infer, infer_table

SPELLED = (
    ("1", "-2", "30", "4711", "9223372036854775807", "9223372036854775808", "007", "+5", "+4930123456"),
    ("1.5", "2.50", "-.25", "5.", "1e3", "2.5E-05", "12E4", "1", "NaN", "inf", "0.1234567890123456", "0.00001"),
    ("1,234", "1.234", "1,5", "1.234,5", "1,234.5", "12,34,567", "$1", "$2.50", "5%", "(3.00)", "5-", "1 234", "€7"),
    ("01/02/2020", "1/2/2020", "13/02/2020", "02/13/2020", "01/02/2020 5:06 PM", "01/02/20", "5 Jan 2020", "05-MAY-20"),
    (
        "2020-01-01",
        "2020-01-01 00:00",
        "2020-01-01 05:06",
        "2020-01-01T05:06:07",
        "2020-01-01T05:06:07.120",
        "2020-01-01T05:06:07Z",
        "2020-01-01T05:06:07+02:00",
        "2020-02-30",
        "20200101",
    ),
    ("true", "False", "TRUE", "yes", "", " ", " 1", "2 ", "NA", "-", "12:30", "6:16 AM", "text", "größe"),
)


@st.composite
def columns(draw: st.DrawFn) -> list[str | None]:
    vocabulary = draw(st.sampled_from(SPELLED))
    some = st.sampled_from([*draw(st.lists(st.sampled_from(vocabulary), min_size=1, max_size=5)), None])
    return draw(st.lists(some, min_size=1, max_size=40))


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_any_order_and_any_batches_give_the_same(data: st.DataObject) -> None:
    cells = data.draw(columns())
    other = data.draw(columns())
    rows = max(len(cells), len(other))
    table = [(cells[row % len(cells)], other[row % len(other)]) for row in range(rows)]
    expected = infer_table({"x": [row[0] for row in table], "date": [row[1] for row in table]})
    shuffled = data.draw(st.permutations(table))
    cut = sorted(data.draw(st.sets(st.integers(1, rows - 1), max_size=4))) if rows > 1 else []
    found = infer_table({"x": [row[0] for row in shuffled], "date": [row[1] for row in shuffled]}, cut=cut)
    assert found[0] == expected[0]
    assert set(found[1]) == set(expected[1])


def test_the_last_row_decides() -> None:
    assert infer(["7"] * 200_000)[0].data_type is DataType.INT64
    assert infer(["7"] * 200_000 + ["7.5"])[0].data_type is DataType.DOUBLE
    assert infer(["7"] * 200_000 + ["x"])[0].data_type is DataType.STRING
    assert infer(["01/02/2020"] * 200_000 + ["01/13/2020"])[0].day_first is False
