"""Upload of datasets: from messages to committed segments."""

import hashlib
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import google_crc32c

from rowmint.errors import (
    ChecksumError,
    DigestMismatchError,
    FencedError,
    InvalidFieldError,
    LimitError,
    ResourceExistsError,
    UnavailableError,
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
from trainer_service.object_keys import segment_key

SEGMENT_BYTES = 8 << 20
MESSAGE_BYTES = 2 << 20
_SHA256_BYTES = 32


@dataclass(frozen=True)
class UploadLimits:
    """Limits of a project; None for no limit.

    Attributes:
        open_uploads: Maximum number of UPLOADING datasets.
        project_bytes: Maximum total bytes of datasets; those of uploads until they are READY, then those of the table.
    """

    open_uploads: int | None = None
    project_bytes: int | None = None


class UploadService:
    """Creates datasets and opens writers to them. Thread-safe.

    Args:
        ledger: The datasets.
        store: The data store.
        segment_bytes: Size at which a segment is committed.
        segment_seconds: Age of its first byte at which a segment is committed.
        limits: Limits of each project.
        clock: Monotonic seconds.
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
        former_digests: Collection[bytes] = (),
    ) -> DatasetRecord:
        """Create a dataset in state UPLOADING; see `DatasetLedger.create`.

        Raises:
            InvalidFieldError: A declared column, pattern or the primary key is invalid.
            LimitError: The project has too many UPLOADING datasets.
            RequestIdReusedError: The request_id was used with a different body.
            ResourceExistsError: A dataset with this name exists.
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
            former_digests=former_digests,
            max_open=self.limits.open_uploads,
        )

    def open(self, name: DatasetName) -> "Writer":
        """Open a writer that starts at the dataset's committed size; older writers are fenced.

        Raises:
            ResourceNotFoundError: There is no such dataset.
        """
        return Writer(self, self.ledger.take_writer(name))


class Writer:
    """Writer of one upload stream. Used by one thread at a time; closed by any error but a digest mismatch.

    Appended bytes are buffered and committed in segments: first an immutable object, then a registry row, which is
    refused once a newer writer has been opened. Committed bytes stay, whatever happens to the stream. The buffer is
    filled in place, and stored from where it lies: a writer takes the bytes of a segment and of one message.

    Args:
        service: The service that opened it.
        record: The dataset, with this writer's epoch.
    """

    def __init__(self, service: UploadService, record: DatasetRecord) -> None:
        self._service = service
        self._record = record
        self._next_index = record.segment_count
        self._committed = record.committed_size
        self._buffer = bytearray()  # of a segment and a message, once there are bytes; its pages are taken as it fills
        self._buffered = 0
        self._first_time = 0.0
        # Of the whole upload, where this stream sends it from its first byte; it is read back by the ingest job only.
        self._digest = hashlib.sha256() if self._committed == 0 else None
        self._open = record.state is DatasetState.UPLOADING

    @property
    def committed_size(self) -> int:
        """Bytes committed so far."""
        return self._committed

    @property
    def epoch(self) -> int:
        """Number of this writer among those of its dataset; the one with the largest is the newest."""
        return self._record.writer_epoch

    @property
    def record(self) -> DatasetRecord:
        """The dataset as it was when the writer was opened, or finished."""
        return self._record

    def append(self, write_offset: int, data: bytes, crc32c: int | None) -> int:
        """Append the data of one message, and return the bytes committed so far.

        When a message is refused, all previous ones are committed first: the upload can resume at the error's
        `committed_size`.

        Args:
            write_offset: Offset of the first byte in the whole upload.
            data: The bytes, at most 2 MiB.
            crc32c: CRC-32C of `data`; may be None only if `data` is empty.

        Raises:
            WrongStateError: The upload has already ended.
            WriteOffsetError: The message does not start where the previous one ended.
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
            raise InvalidFieldError("data", f"has {len(data)} bytes; a message may contain at most {MESSAGE_BYTES}")
        if crc32c is None:
            self.close()
            raise InvalidFieldError("crc32c", "is required unless data is empty")
        actual = google_crc32c.value(data)
        if actual != crc32c:
            self.close()
            raise ChecksumError(
                f"the data of the message at byte {write_offset} has CRC-32C {actual:08x}, but the message says"
                f" {crc32c:08x}; resume with a new stream at byte {self._committed}",
                metadata={"committed_size": str(self._committed)},
            )
        if not self._buffered:
            self._first_time = self._service.clock()
        if self._digest is not None:
            self._digest.update(data)
        if not self._buffer:
            self._buffer = bytearray(self._service.segment_bytes + MESSAGE_BYTES)
        self._buffer[self._buffered : self._buffered + len(data)] = data
        self._buffered += len(data)
        self.tick()
        return self._committed

    def tick(self) -> int:
        """Commit the buffer if it is due by size or age, and return the bytes committed; called on idle streams.

        Raises:
            FencedError: A newer writer has taken over.
        """
        due = self._service.clock() - self._first_time >= self._service.segment_seconds
        if self._buffered and (due or self._buffered >= self._service.segment_bytes):
            self._flush()
        return self._committed

    def finish(self, total_size: int, sha256: bytes) -> DatasetRecord:
        """Finish the upload and create its ingest job. Idempotent for the same size and digest.

        Nothing is read from the store, which takes time in which no byte moves: the ingest job reads the stored bytes
        back and compares their digest before it makes a table. Where this stream sent all bytes, what it received is
        compared here. If size or digest differ, the dataset stays UPLOADING with its bytes committed, so that the
        client can correct the values or delete the dataset.

        Raises:
            InvalidFieldError: `sha256` is not 32 bytes, or the size is negative.
            DigestMismatchError: Size or SHA-256 is not that of the stored bytes.
            FencedError: A newer writer has taken over.
        """
        if len(sha256) != _SHA256_BYTES:
            raise InvalidFieldError("finish_write.sha256", f"has {len(sha256)} bytes; must have {_SHA256_BYTES}")
        if total_size < 0:
            raise InvalidFieldError("finish_write.total_size", f"is {total_size}; must be 0 or more")
        ledger = self._service.ledger
        if self._record.state is not DatasetState.UPLOADING:
            if (self._record.total_size, self._record.sha256) != (total_size, sha256):
                raise DigestMismatchError(
                    f"{self._record.name} was already finished with a different size or SHA-256"
                    f" ({self._record.total_size} bytes); create another dataset for other bytes",
                    metadata={"committed_size": str(self._committed)},
                )
            return self._record
        self._require_open()
        self._flush()
        if total_size != self._committed:
            raise DigestMismatchError(
                f"total_size is {total_size}, but {self._committed} bytes are stored; send the missing bytes, correct"
                " the size, or delete the dataset and upload it again",
                metadata={"committed_size": str(self._committed)},
            )
        if self._digest is not None and self._digest.digest() != sha256:
            received = self._digest.hexdigest()
            raise DigestMismatchError(
                f"the received bytes have SHA-256 {received}, but finish_write says {sha256.hex()}; compare it with the"
                " file's, then correct it, or delete the dataset and upload it again",
                metadata={"committed_size": str(self._committed), "sha256": received},
            )
        self._record = ledger.finish_upload(self._record.uid, self._record.writer_epoch, total_size, sha256)
        reach("upload.finished")
        self._open = False
        return self._record

    def close(self) -> int:
        """Commit the buffer and close the writer; return the bytes committed. Idempotent.

        Raises:
            FencedError: A newer writer has taken over; the buffer is discarded.
        """
        try:
            if self._open:
                self._flush()
        finally:
            self.discard()
        return self._committed

    def discard(self) -> None:
        """Close the writer without its buffer: a newer one has been opened, and nothing of it could be committed."""
        self._open = False
        self._buffer, self._buffered = bytearray(), 0

    def _require_open(self) -> None:
        if self._open:
            return
        state = self._record.state
        if state is DatasetState.UPLOADING:
            raise WrongStateError("this stream is closed; open a new one", metadata={"state": state})
        raise WrongStateError(
            f"{self._record.name} is {state}; bytes can be written only while it is UPLOADING",
            metadata={"state": state},
        )

    def _refuse(self, offset: int, expected: int) -> None:
        self.close()
        raise WriteOffsetError(offset, expected, self._committed)

    def _flush(self) -> None:
        if not self._buffered:
            return
        with memoryview(self._buffer) as whole, whole[: self._buffered].toreadonly() as data:
            self._buffered = 0
            self._commit(data)

    def _commit(self, data: memoryview) -> None:
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
        except ResourceExistsError as error:
            # The registry was restored from a backup and knows nothing of an earlier writer; the next has other keys.
            self._open = False
            raise UnavailableError(f"{error.message}; resume with a new stream", retry_after=1.0) from error
        except BaseException:
            # Whether the row was committed is unknown; a new stream reads the committed size.
            self._open = False
            raise
        self._next_index += 1
