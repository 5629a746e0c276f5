"""What the table of durations is made of, and which run is said to be slower than it."""

from pathlib import Path

import pytest

from tests.durations.__main__ import main
from tests.durations.comparison import slower_files
from tests.durations.report import Row, read_table, rows_of, seconds_by_file, write_table

ROOT = Path(__file__).parents[2]
REPORT = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest" tests="4">
<testcase classname="tests.unit.test_durations" name="a" time="1.25"/>
<testcase classname="tests.unit.test_durations.TestOfAClass" name="b" time="0.5"/>
<testcase classname="tests.unit.test_supply" name="c[x.y]" time="2.0"><failure message="m">text</failure></testcase>
<testcase classname="" name="tests.unit.test_broken" time="0.5"><error message="collection failure"/></testcase>
</testsuite></testsuites>
"""
TABLE = [Row("test", 100.0, "a.py"), Row("test", 300.0, "b.py"), Row("system", 50.0, "a.py")]


def test_seconds_are_summed_by_file(tmp_path):
    report = tmp_path / "report.xml"
    report.write_text(REPORT)
    assert seconds_by_file(report, ROOT) == {"tests/unit/test_durations.py": 1.75, "tests/unit/test_supply.py": 2.0}


def test_a_test_of_no_file_is_an_error(tmp_path):
    report = tmp_path / "report.xml"
    report.write_text(REPORT.replace("test_supply", "test_nothing"))
    with pytest.raises(FileNotFoundError, match=r"tests\.unit\.test_nothing"):
        seconds_by_file(report, ROOT)


def test_a_table_is_read_as_written_the_slowest_first(tmp_path):
    path = tmp_path / "table.csv"
    write_table(TABLE, path)
    assert path.read_text() == "tier,seconds,file\nsystem,50.0,a.py\ntest,300.0,b.py\ntest,100.0,a.py\n"
    assert read_table(path) == [TABLE[2], TABLE[1], TABLE[0]]
    assert read_table(tmp_path / "none.csv") == []
    assert rows_of("system", {"a.py": 50.0}) == [TABLE[2]]


@pytest.mark.parametrize("speed", [1.0, 7.0])
def test_a_slow_machine_changes_nothing(speed):
    assert slower_files("test", {"a.py": 100 * speed, "b.py": 300 * speed}, TABLE) == []


def test_a_file_of_more_than_twice_its_share_is_named():
    (line,) = slower_files("test", {"a.py": 350.0, "b.py": 300.0}, TABLE)
    assert line.startswith("a.py took 350 s, 53.8% of tier 'test'; the table of durations gives it 25.0%: ")
    assert slower_files("test", {"a.py": 200.0, "b.py": 300.0}, TABLE) == []


def test_a_new_file_may_take_the_floor_and_no_more():
    assert slower_files("test", {"a.py": 100.0, "b.py": 300.0, "c.py": 12.0}, TABLE) == []
    (line,) = slower_files("test", {"a.py": 100.0, "b.py": 300.0, "c.py": 13.0}, TABLE)
    assert line.startswith("c.py took 13 s, 3.1% of tier 'test'; the table of durations gives it 0.0%: ")


def test_a_tier_without_durations_is_refused():
    (line,) = slower_files("full", {"a.py": 1.0}, TABLE)
    assert line == "the table of durations has nothing to compare tier 'full' with: run `make durations`"


def test_the_command_checks_a_report(tmp_path, capsys):
    report = tmp_path / "report.xml"
    report.write_text(REPORT)
    assert main("check", f"none={report}") == 1
    out, err = capsys.readouterr()
    assert out == "durations: tier 'none' took 4 s in 2 files\n"
    assert err.startswith("durations: the table of durations has nothing to compare tier 'none' with")
    assert main("show", f"none={report}") == 2
