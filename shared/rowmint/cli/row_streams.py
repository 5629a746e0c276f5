"""What commands that stream rows read and write: files of known cells, a file or standard output."""

import contextlib
import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Annotated

import typer

from rowmint.client.row_files import whole_file
from rowmint.errors import ColumnNotFoundError, InvalidDataError
from rowmint.errors import DataProblem as Problem
from rowmint.schema import near_names

OutputOption = Annotated[str | None, typer.Option("--output", "-o", help="File to write. Default: standard output.")]


@contextlib.contextmanager
def open_output(path: str | None) -> Iterator[IO[bytes]]:
    """Open the file that a command writes; standard output for none, and for -."""
    if path is None or path == "-":
        stream = typer.get_binary_stream("stdout")
        yield stream
        stream.flush()
    else:
        with whole_file(Path(path)) as file:
            yield file


@contextlib.contextmanager
def open_input(path: str) -> Iterator[io.TextIOBase]:
    """Open a text file that a command reads; standard input for -."""
    if path == "-":
        wrapper = io.TextIOWrapper(typer.get_binary_stream("stdin"), encoding="utf-8-sig", newline="")
        yield wrapper
        # Standard input stays open.
        wrapper.detach()
    else:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            yield file


def read_partial_rows(file: io.TextIOBase, known: list[str]) -> Iterator[Mapping[str, str]]:
    """Yield the known cells of each row of a CSV; an empty cell is unknown."""
    reader = csv.reader(file, strict=True)
    try:
        header = next(reader, None)
        if not header:
            raise InvalidDataError([Problem("the input has no header; name the columns in its first line", line=1)])
        for name in header:
            if name not in known:
                raise ColumnNotFoundError(name, near_names(name, known))
        if len(set(header)) != len(header):
            raise InvalidDataError([Problem("a column is named twice; name each once", line=1)])
        for cells in reader:
            if len(cells) != len(header):
                problem = f"{len(cells)} fields where the header has {len(header)}; make them equal"
                raise InvalidDataError([Problem(problem, line=reader.line_num)])
            yield {name: cell for name, cell in zip(header, cells, strict=True) if cell}
    except csv.Error as error:
        raise InvalidDataError([Problem(f"is not CSV: {error}", line=reader.line_num)]) from error
    except UnicodeDecodeError as error:
        raise InvalidDataError([Problem("is not UTF-8; convert the file")]) from error
