"""What every kind of hostile upload needs: reading it as the trainer does, and damaging it."""

import io
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rowmint.errors import DataProblem, InvalidDataError
from tests.hostile.confined import GROWTH, note
from trainer_service.datasets.formats import DataFormat
from trainer_service.datasets.ingest import ingest
from trainer_service.datasets.limits import IngestLimits

MUTANTS = 250
"""Damaged files a case."""


@dataclass(frozen=True)
class Refused:
    """What was found wrong with an upload."""

    problems: tuple[DataProblem, ...]

    @property
    def places(self) -> list[tuple[int, int, str]]:
        return [(problem.line, problem.row, problem.column) for problem in self.problems]

    @property
    def message(self) -> str:
        return self.problems[0].message


def read(data: bytes, data_format: DataFormat, limits: IngestLimits | None = None, **more: Any) -> pa.Table | Refused:
    """Ingest bytes as the trainer does; return the table or what is wrong. Any other error is raised."""
    scratch = Path(os.environ["HOSTILE_SCRATCH"])
    for file in scratch.iterdir():
        file.unlink()
    overrides = more.pop("overrides", ())
    with GROWTH.measured():
        try:
            result = ingest(
                io.BytesIO(data),
                data_format,
                overrides,
                "",
                scratch,
                limits=limits,
            )
        except InvalidDataError as error:
            for problem in error.problems:
                # It is stored and sent: of bounded length, and encodable.
                if not 0 < len(problem.message.encode()) < 2000 or len(problem.column.encode()) > 1024:
                    raise AssertionError(f"{problem.message[:2000]!r} of {problem.column[:2000]!r}") from error
            return Refused(error.problems)
    with pq.ParquetFile(result.path, memory_map=True) as file:
        if file.metadata.num_rows != result.row_count or tuple(file.schema_arrow.names) != result.schema.names:
            raise AssertionError("the finished table is not what is said of it")
        if result.row_count * len(result.schema.columns) > 1_000_000:
            return file.read(columns=[])
        table = file.read()
    table.validate(full=True)
    return table


def refused(data: bytes, data_format: DataFormat, words: str, limits: IngestLimits | None = None) -> Refused:
    """Read bytes that must be refused; `words` must stand in the first message."""
    found = read(data, data_format, limits)
    if not isinstance(found, Refused):
        raise AssertionError(f"a table of {found.num_rows} rows was made of bytes that are none")
    if words not in found.message:
        raise AssertionError(f"{words!r} is not in {found.message!r}")
    return found


def accepted(data: bytes, data_format: DataFormat, limits: IngestLimits | None = None) -> pa.Table:
    """Read bytes that must make a table."""
    found = read(data, data_format, limits)
    if isinstance(found, Refused):
        raise AssertionError(f"a table was refused: {found.problems}")
    return found


def equal(expected: object, actual: object) -> None:
    """Raise where two values differ; the cases run outside pytest."""
    if expected != actual:
        raise AssertionError(f"expected {expected!r}, found {actual!r}")


def mutants(data: bytes, seed: str, count: int = MUTANTS) -> Iterator[bytes]:
    """Yield damaged copies: bytes changed, one or several, in one place or in many, and runs of them moved about."""
    draw = random.Random(seed)
    for number in range(count):
        changed = bytearray(data)
        for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
            at = draw.randrange(len(changed))
            match draw.randrange(8):
                case 0 | 1 | 2:
                    changed[at] ^= 1 << draw.randrange(8)
                case 3 | 4:
                    changed[at] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))
                case 5:
                    width = draw.choice((2, 4, 8))
                    changed[at : at + width] = draw.choice((b"\xff", b"\x00", b"\x7f", b"\x80")) * width
                case 6:
                    del changed[at : at + draw.choice((1, 2, 4, 8))]
                case 7:
                    start = draw.randrange(len(changed))
                    changed[at:at] = changed[start : start + draw.choice((1, 4, 8, 64))]
            if not changed:
                changed = bytearray(b"\0")
        note(f"mutant {number} of {seed}: {bytes(changed[:1200]).hex()}")
        yield bytes(changed)


def fuzzed(files: dict[str, bytes], data_format: DataFormat, batches: int) -> dict[str, Callable[[], None]]:
    """Return cases that read damaged copies of files: whatever comes of it is a table or an error with its place."""

    def case(name: str, data: bytes, batch: int) -> Callable[[], None]:
        def run() -> None:
            outcomes = [type(read(mutant, data_format)) for mutant in mutants(data, f"{name} {batch}")]
            equal(MUTANTS, len(outcomes))
            # Damage that is never found, or never harmless, would be no test of the other.
            if outcomes.count(Refused) == 0:
                raise AssertionError("no damage was found")

        return run

    return {
        f"mutants of {name}, {batch}": case(name, data, batch)
        for name, data in files.items()
        for batch in range(batches)
    }
