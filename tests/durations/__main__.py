"""The table of seconds by test file, written from reports of runs or compared with them.

python -m tests.durations write TIER=REPORT.xml ...    (rows of other tiers are kept)
python -m tests.durations check TIER=REPORT.xml ...    (ends with 1 where a file has become far slower)
"""

import sys
from pathlib import Path

from tests.durations.comparison import slower_files
from tests.durations.report import TABLE, read_table, rows_of, seconds_by_file, write_table

ROOT = Path(__file__).parents[2]


def main(command: str, *arguments: str) -> int:
    """Write or check; return the exit status."""
    reports = dict(argument.split("=", 1) for argument in arguments)
    measured = {tier: seconds_by_file(Path(report), ROOT) for tier, report in reports.items()}
    table = read_table()
    if command == "write":
        kept = [row for row in table if row.tier not in measured]
        write_table([*kept, *(row for tier, seconds in measured.items() for row in rows_of(tier, seconds))])
        return 0
    if command != "check":
        sys.stderr.write(f"{command!r} is neither write nor check\n{__doc__}")
        return 2
    slower = [line for tier, seconds in measured.items() for line in slower_files(tier, seconds, table)]
    for line in slower:
        sys.stderr.write(f"durations: {line}\n")
    for tier, seconds in measured.items():
        sys.stdout.write(f"durations: tier {tier!r} took {sum(seconds.values()):.0f} s in {len(seconds)} files\n")
    return 1 if slower else 0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.stderr.write(f"usage of {TABLE.name}:\n{__doc__}")
        sys.exit(2)
    sys.exit(main(*sys.argv[1:]))
