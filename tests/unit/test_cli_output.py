"""Progress where no terminal draws a bar."""

import pytest

from rowmint.cli.output import progress_bar


@pytest.mark.parametrize(
    ("total", "least", "quiet", "lines"),
    [
        (40, 0, False, ["10%", "20%", "30%", "40%", "50%", "60%", "70%", "80%", "90%", "100%"]),
        (3, 0, False, ["33%", "67%", "100%"]),
        (40, 41, False, []),
        (40, 0, True, []),
        (None, 0, False, []),
    ],
)
def test_a_line_at_each_tenth(capsys, total, least, quiet, lines):
    with progress_bar("reading", quiet=quiet, least=least) as bar:
        for done in range(1, (total or 9) + 1):
            bar.note("ready")
            bar.update(done, total, "so far")
    assert capsys.readouterr().err.splitlines() == [f"reading: {share}  so far" for share in lines]
