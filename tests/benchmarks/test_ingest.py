"""What an upload costs the trainer: memory and time by size."""

import time
from collections.abc import Iterator
from io import RawIOBase

import pytest

from rowmint.client import Client
from tests.acceptance.processes import Services, customers_csv
from tests.benchmarks.memory import PeakMemory

pytestmark = pytest.mark.timeout(3600)


class Repeated(RawIOBase):
    """A CSV file of about `size` bytes that is never on disk: a header, then the same rows over and over."""

    def __init__(self, size: int) -> None:
        header, body = customers_csv(20_000).split(b"\n", 1)
        self._header = header + b"\n"
        self._body = body
        self._size = len(self._header) + (size // len(body)) * len(body)
        self._position = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset if whence == 0 else (self._position if whence == 1 else self._size) + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = min(len(buffer), self._size - self._position)
        filled = 0
        for piece in self._pieces(count):
            buffer[filled : filled + len(piece)] = piece
            filled += len(piece)
        self._position += filled
        return filled

    def _pieces(self, count: int) -> Iterator[bytes]:
        at = self._position
        if at < len(self._header) and count:
            piece = self._header[at : at + count]
            yield piece
            at, count = at + len(piece), count - len(piece)
        while count > 0:
            begin = (at - len(self._header)) % len(self._body)
            piece = self._body[begin : begin + count]
            yield piece
            at, count = at + len(piece), count - len(piece)


@pytest.mark.parametrize("megabytes", [50, 1000])
def test_memory_of_an_upload(services: Services, megabytes: int) -> None:
    trainer = services.trainer()
    with Client(trainer.address) as client, PeakMemory(trainer.pid) as memory:
        began = time.monotonic()
        dataset = client.upload(Repeated(megabytes * 1_000_000), "large", format="csv", wait=False)
        sent = time.monotonic()
        dataset = client.wait_dataset(dataset.name)
        ready = time.monotonic()
    print(
        f"\n{megabytes} MB of CSV, {dataset.row_count} rows: upload {sent - began:.1f} s, ingest {ready - sent:.1f} s,"
        f" peak memory of all trainer processes {memory.peak / 1e6:.0f} MB"
    )
