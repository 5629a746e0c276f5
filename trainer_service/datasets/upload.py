"""Receiving a dataset's bytes: from messages to committed segments."""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import google_crc32c

from rowmint.errors import (
    ChecksumError,
    DigestMismatchError,
    FencedError,
    InvalidFieldError,
    LimitError,
    WriteOffsetError,
    WrongStateError,
)
from rowmint.failpoints import reach
from rowmint.names import DatasetName
from rowmint.objects import ObjectStore
from rowmint.registry import DatasetLedger, DatasetRecord, DatasetState, SegmentRecord
from rowmint.schema import ColumnSpec, validate_declared
from trainer_service import metrics
from trainer_service.datasets.declarations import validate_before_data
from trainer_service.datasets.segments import read_segment
from trainer_service.object_keys import segment_key

SEGMENT_BYTES = 8 << 20
MESSAGE_BYTES = 2 << 20
_SHA256_BYTES = 32


@dataclass(frozen=True)
class UploadLimits:
    """What a project may have; None for any number.

    Attributes:
        open_uploads: Datasets that wait for their bytes.
        project_bytes: Bytes of all datasets, uploads counted until their table is there.
    """

    open_uploads: int | None = None
    project_bytes: int | None = None


class UploadService:
    """Creates datasets and opens writers to them. Safe for any number of threads.

    Args:
        ledger: The datasets.
        store: The data store.
        segment_bytes: A segment is committed once it has this many bytes.
        segment_seconds: A segment is committed once its first byte is this old.
        limits: What a project may have.
        clock: Seconds that never run backwards.
    """

    def __init__(
        self,
        ledger: DatasetLedger,
        store: ObjectStore,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        segment_seconds: float = 1.0,
        limits: UploadLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ledger = ledger
        self.store = store
        self.clock = clock
        self.segment_bytes = segment_bytes
        self.segment_seconds = segment_seconds
        self.limits = UploadLimits() if limits is None else limits

    def create(
        self,
        project: str,
        dataset_id: str,
        *,
        data_format: Mapping[str, Any],
        overrides: tuple[ColumnSpec, ...] = (),
        primary_key: str = "",
        request_id: str = "",
        request_digest: bytes = b"",
    ) -> DatasetRecord:
        """Create a dataset that waits for its bytes; see `DatasetLedger.create`.

        Raises:
            InvalidFieldError: A declared column or the primary key contradicts itself, or a pattern cannot be read.
            LimitError: Too many datasets of the project wait for their bytes.
            RequestIdReusedError: The request_id was used with another body.
            ResourceExistsError: There is a dataset of this name.
        """
        validate_declared(overrides)
        validate_before_data(overrides, primary_key)
        return self.ledger.create(
            project,
            dataset_id,
            data_format=data_format,
            overrides=overrides,
            primary_key=primary_key,
            request_id=request_id,
            request_digest=request_digest,
            max_open=self.limits.open_uploads,
        )

    def open(self, name: DatasetName) -> "Writer":
        """Return a writer that starts at the dataset's committed size; every older writer is fenced.

        Raises:
            ResourceNotFoundError: There is no such dataset.
        """
        return Writer(self, self.ledger.take_writer(name))


class Writer:
    """One upload stream. Used by one thread at a time; after an error other than a wrong digest it is closed.

    Bytes appended are buffered and committed in segments: an immutable object first, then one registry row that counts
    only while no newer writer has been opened. What is committed stays, whatever happens to the stream.

    Args:
        service: What it was opened by.
        record: The dataset, with this writer's epoch.
    """

    def __init__(self, service: UploadService, record: DatasetRecord) -> None:
        self._service = service
        self._record = record
        self._next_index = record.segment_count
        self._committed = record.committed_size
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._first_at = 0.0
        self._open = record.state is DatasetState.UPLOADING

    @property
    def committed_size(self) -> int:
        """Bytes that are safe."""
        return self._committed

    @property
    def record(self) -> DatasetRecord:
        """The dataset as it was when the writer was opened, or finished."""
        return self._record

    def append(self, write_offset: int, data: bytes, crc32c: int | None) -> int:
        """Take one message and return the bytes committed so far.

        On a refusal everything taken before is committed, so that the error's committed size is where to go on.

        Args:
            write_offset: Offset of the first byte in the whole upload.
            data: The bytes, at most 2 MiB.
            crc32c: CRC-32C of `data`; may be None only where that is empty.

        Raises:
            WrongStateError: The upload has ended before.
            WriteOffsetError: The message does not start where the last one ended.
            InvalidFieldError: `crc32c` is missing, or the message is too large.
            ChecksumError: The bytes do not match `crc32c`.
            FencedError: A newer writer has taken over.
        """
        expected = self._committed + self._buffered
        if not data:
            if write_offset != expected and self._open:
                self._refuse(write_offset, expected)
            return self._committed
        self._require_open()
        if write_offset != expected:
            self._refuse(write_offset, expected)
        if len(data) > MESSAGE_BYTES:
            self.close()
            raise InvalidFieldError("data", f"has {len(data)} bytes; a message carries at most {MESSAGE_BYTES}")
        if crc32c is None:
            self.close()
            raise InvalidFieldError("crc32c", "is required where there is data")
        actual = google_crc32c.value(data)
        if actual != crc32c:
            self.close()
            raise ChecksumError(
                f"the message at byte {write_offset} has CRC-32C {actual:08x}, {crc32c:08x} was said; open a new stream"
                f" from byte {self._committed}",
                metadata={"committed_size": str(self._committed)},
            )
        if not self._buffer:
            self._first_at = self._service.clock()
        self._buffer.append(data)
        self._buffered += len(data)
        self.tick()
        return self._committed

    def tick(self) -> int:
        """Commit what is due by size or age, and return the bytes committed; for a stream that has gone quiet.

        Raises:
            FencedError: A newer writer has taken over.
        """
        old = self._service.clock() - self._first_at >= self._service.segment_seconds
        if self._buffer and (old or self._buffered >= self._service.segment_bytes):
            self._flush()
        return self._committed

    def finish(self, total_size: int, sha256: bytes) -> DatasetRecord:
        """End the upload and hand it to ingest; harmless where it was ended the same way before.

        Size and hash are taken over the stored bytes, read back. Where they differ from what is said, the dataset stays
        UPLOADING with its bytes committed: a mere slip of the client's can be put right, and a truly wrong upload be
        deleted.

        Raises:
            InvalidFieldError: `sha256` is not 32 bytes, or the size is negative.
            DigestMismatchError: Size or SHA-256 is not that of the stored bytes.
            FencedError: A newer writer has taken over.
            DataLossError: Stored bytes are damaged.
        """
        if len(sha256) != _SHA256_BYTES:
            raise InvalidFieldError("finish_write.sha256", f"has {len(sha256)} bytes; must have {_SHA256_BYTES}")
        if total_size < 0:
            raise InvalidFieldError("finish_write.total_size", f"is {total_size}; must be 0 or more")
        ledger = self._service.ledger
        if self._record.state is not DatasetState.UPLOADING:
            if (self._record.total_size, self._record.sha256) != (total_size, sha256):
                raise DigestMismatchError(
                    f"{self._record.name} was finished before with another size or SHA-256 ({self._record.total_size}"
                    " bytes); create another dataset for other bytes",
                    metadata={"committed_size": str(self._committed)},
                )
            return self._record
        self._require_open()
        self._flush()
        if total_size != self._committed:
            raise DigestMismatchError(
                f"total_size {total_size} was said, {self._committed} bytes are stored; send what is missing from there"
                " on, say the right size, or delete the dataset and upload it anew",
                metadata={"committed_size": str(self._committed)},
            )
        digest = hashlib.sha256()
        for segment in ledger.segments(self._record.uid):
            digest.update(read_segment(self._service.store, segment))
        if digest.digest() != sha256:
            raise DigestMismatchError(
                f"the stored bytes have SHA-256 {digest.hexdigest()}, {sha256.hex()} was said; compare with the file,"
                " then say the right one, or delete the dataset and upload it anew",
                metadata={"committed_size": str(self._committed), "sha256": digest.hexdigest()},
            )
        self._record = ledger.finish_upload(self._record.uid, self._record.writer_epoch, total_size, sha256)
        reach("upload.finished")
        self._open = False
        return self._record

    def close(self) -> int:
        """Commit what is buffered and take no more; return the bytes committed. Closing twice is harmless.

        Raises:
            FencedError: A newer writer has taken over; what was buffered is dropped.
        """
        if self._open:
            try:
                self._flush()
            finally:
                self._open = False
        return self._committed

    def _require_open(self) -> None:
        if self._open:
            return
        state = self._record.state
        if state is DatasetState.UPLOADING:
            raise WrongStateError("this stream is closed; open a new one", metadata={"state": state})
        raise WrongStateError(f"{self._record.name} is {state}; it takes no more bytes", metadata={"state": state})

    def _refuse(self, offset: int, expected: int) -> None:
        self.close()
        raise WriteOffsetError(offset, expected, self._committed)

    def _flush(self) -> None:
        if not self._buffer:
            return
        data = b"".join(self._buffer)
        self._buffer, self._buffered = [], 0
        uid, epoch = self._record.uid, self._record.writer_epoch
        key = segment_key(uid, epoch, self._next_index)
        segment = SegmentRecord(self._next_index, self._committed, len(data), hashlib.sha256(data).digest(), key)
        try:
            self._service.store.put(key, data)
            reach("upload.segment.stored")
            limit = self._service.limits.project_bytes
            self._committed = self._service.ledger.commit_segment(uid, epoch, segment, limit)
            metrics.uploaded(self._record.name.project, len(data))
            reach("upload.segment.committed")
        except (FencedError, LimitError):
            self._open = False
            self._service.store.delete(key)
            raise
        except BaseException:
            # Whether the row was written is unknown: only a new stream can tell.
            self._open = False
            raise
        self._next_index += 1
