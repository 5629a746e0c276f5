"""Files of rows: the formats that `rowmint sample` writes, made from a stream as it comes, in bounded memory.

What the services stream is written as it is, byte for byte: CSV, NDJSON and the Arrow stream. The others are made of it
here: TSV, a JSON array, Arrow and Feather files, Parquet.
"""

import contextlib
import io
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING, Any, cast

from rowmint.client.sample_stream import SampleProgress, SampleStream
from rowmint.errors import InvalidFieldError

if TYPE_CHECKING:
    import pyarrow as pa

_GROUP_BYTES = 64 << 20
"""Bytes in memory of a row group of Parquet: what one writing thread holds."""


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that appears under its name only when it is complete; a device or pipe is written directly."""
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
        return
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            yield file
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@dataclass(frozen=True)
class FileFormat:
    """A format of files.

    Attributes:
        name: Its name.
        streamed: The format in which the service streams the rows; see `rowmint.client.sampling.FORMATS`.
        compression: Compression of the whole file, `gzip` or `zstd`; empty for none.
    """

    name: str
    streamed: str
    compression: str = ""

    def write(self, stream: SampleStream, file: IO[bytes], progress: SampleProgress | None = None) -> None:
        """Write a stream's rows to a binary file.

        Args:
            stream: Sampled in the format `streamed`, from the beginning of a file.
            file: The file.
            progress: Called with the rows received so far and the rows requested.
        """
        with _compressed(file, self.compression) as sink:
            match self.name:
                case "tsv":
                    _write_lines(stream, sink, progress, _TabSeparated())
                case "json":
                    _write_json(stream, sink, progress)
                case "feather":
                    _write_batches(stream, sink, progress, _arrow_file)
                case "parquet":
                    _write_batches(stream, sink, progress, _parquet_file)
                case _:
                    stream.write_to(sink, progress)


FILE_FORMATS = {
    "csv": "csv",
    "tsv": "csv",
    "ndjson": "ndjson",
    "json": "ndjson",
    "arrow": "arrow",
    "feather": "arrow",
    "parquet": "arrow",
}
"""Formats of files, and the format in which each is streamed. `arrow` is the Arrow stream, `feather` the Arrow file."""

_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "json",
    ".arrows": "arrow",
    ".arrow": "feather",
    ".feather": "feather",
    ".parquet": "parquet",
}
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_TEXTS = ("csv", "tsv", "ndjson", "json")


def file_format(given: str | None, path: str | None) -> FileFormat:
    """Return the format in which a file is written.

    Args:
        given: A name of `FILE_FORMATS`; None to take it from the suffix, and CSV where there is none.
        path: Name of the file; None for standard output.

    Raises:
        InvalidFieldError: The format is unknown or not that of the suffix, or the suffix is none that is written.
    """
    if given is not None and given not in FILE_FORMATS:
        raise InvalidFieldError("--format", f"{given!r} is unknown; choose one of {', '.join(FILE_FORMATS)}")
    suffixes = [] if path is None else [suffix.lower() for suffix in PurePath(path).suffixes]
    compression = _COMPRESSIONS.get(suffixes[-1], "") if suffixes else ""
    if compression:
        suffixes.pop()
    named = _SUFFIXES.get(suffixes[-1]) if suffixes else None
    # Both are Arrow; the suffix means the file.
    alike = {given, named} == {"arrow", "feather"}
    if given is not None and named is not None and given != named and not alike:
        raise InvalidFieldError("--format", f"is {given}, but the suffix of {path} is that of {named}; change one")
    name = given or named
    if name is None:
        if suffixes:
            known = f"{', '.join(_SUFFIXES)}; text also with .gz or .zst"
            raise InvalidFieldError(
                "--output", f"{path}: no such files are written; use one of the suffixes {known}, or give --format"
            )
        name = "csv"
    if compression and name not in _TEXTS:
        raise InvalidFieldError(
            "--output", f"{path}: {name} files are not compressed as a whole; leave the last suffix out"
        )
    return FileFormat(name, FILE_FORMATS[name], compression)


@contextlib.contextmanager
def _compressed(file: IO[bytes], compression: str) -> Iterator[IO[bytes]]:
    if not compression:
        yield file
        return
    import pyarrow as pa  # noqa: PLC0415 - it loads numpy where there is one; most commands need neither.

    with pa.CompressedOutputStream(pa.PythonFile(_Left(file), mode="w"), compression) as sink:
        yield cast(IO[bytes], sink)


class _Left(io.RawIOBase):
    """A file that is left open when a stream over it is closed."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        return self._file.write(data)


def _write_lines(
    stream: SampleStream, sink: IO[bytes], progress: SampleProgress | None, translated: "_TabSeparated"
) -> None:
    for message in stream.messages():
        sink.write(translated.of(message.data))
        if progress is not None:
            progress(stream.next_row - stream.header.start_row, stream.rows_requested)


class _TabSeparated:
    """CSV as TSV, piece by piece: commas between fields become tabs, and a field with a tab is quoted."""

    def __init__(self) -> None:
        self._quoted = False
        self._rest = b""

    def of(self, piece: bytes) -> bytes:
        """Return what a piece becomes; the last line waits for the next piece while it is unfinished."""
        data = self._rest + piece
        end = self._end_of_lines(data)
        lines, self._rest = data[:end], data[end:]
        fields = lines.split(b'"')
        # Every other part is within quotes, and a doubled quote only leaves and enters again.
        fields[::2] = [self._outside(part) for part in fields[::2]]
        return b'"'.join(fields)

    @staticmethod
    def _end_of_lines(data: bytes) -> int:
        end = len(data)
        while end:
            end = data.rfind(b"\n", 0, end) + 1
            if data.count(b'"', 0, end) % 2 == 0:
                return end
            end -= 1
        return 0

    @staticmethod
    def _outside(part: bytes) -> bytes:
        if b"\t" not in part:
            return part.replace(b",", b"\t")
        lines = []
        for line in part.split(b"\n"):
            cells = [b'"' + cell + b'"' if b"\t" in cell else cell for cell in line.split(b",")]
            lines.append(b"\t".join(cells))
        return b"\n".join(lines)


def _write_json(stream: SampleStream, sink: IO[bytes], progress: SampleProgress | None) -> None:
    """Write NDJSON as one array, a row a line."""
    before = b"[\n"
    open_line = False
    for message in stream.messages():
        # A line feed within a cell is escaped, so each one ends a row.
        for line in message.data.splitlines(keepends=True):
            sink.write((b"" if open_line else before) + line.removesuffix(b"\n"))
            open_line = not line.endswith(b"\n")
            before = b",\n"
        if progress is not None:
            progress(stream.next_row - stream.header.start_row, stream.rows_requested)
    sink.write(b"[]\n" if before == b"[\n" else b"\n]\n")


def _write_batches(
    stream: SampleStream,
    sink: IO[bytes],
    progress: SampleProgress | None,
    opened: "Callable[[IO[bytes], pa.Schema], contextlib.AbstractContextManager[Callable[[pa.RecordBatch], None]]]",
) -> None:
    reader = stream.reader()
    with opened(sink, reader.schema) as write:
        for batch in reader:
            write(batch)
            if progress is not None:
                progress(stream.next_row - stream.header.start_row, stream.rows_requested)
    stream.read_to_end()


@contextlib.contextmanager
def _arrow_file(sink: IO[bytes], schema: "pa.Schema") -> "Iterator[Callable[[pa.RecordBatch], None]]":
    import pyarrow as pa  # noqa: PLC0415 - as above.

    with pa.ipc.new_file(pa.PythonFile(sink, mode="w"), schema) as writer:
        yield writer.write_batch


@contextlib.contextmanager
def _parquet_file(sink: IO[bytes], schema: "pa.Schema") -> "Iterator[Callable[[pa.RecordBatch], None]]":
    import pyarrow as pa  # noqa: PLC0415 - as above.
    import pyarrow.parquet as pq  # noqa: PLC0415 - as above.

    held: list[pa.RecordBatch] = []

    with pq.ParquetWriter(pa.PythonFile(sink, mode="w"), schema) as writer:

        def write(batch: pa.RecordBatch) -> None:
            held.append(batch)
            if sum(one.nbytes for one in held) >= _GROUP_BYTES:
                flush()

        def flush() -> None:
            if held:
                writer.write_table(pa.Table.from_batches(held))
                held.clear()

        yield write
        flush()
