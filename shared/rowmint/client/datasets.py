"""Datasets: create, upload with resumption, wait, read, delete."""

import os
import pathlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence

import google_crc32c
import grpc

from rowmint.client.byte_sources import Uploadable
from rowmint.client.compressed import plain_name
from rowmint.client.connection import Calls, pages
from rowmint.client.errors import RowmintCallError, call_error
from rowmint.client.spreadsheet import is_spreadsheet
from rowmint.client.upload_source import UploadSource
from rowmint.errors import DataProblem, InvalidDataError, InvalidFieldError, Reason
from rowmint.v1 import dataset_pb2, dataset_service_pb2, schema_pb2
from rowmint.v1.dataset_service_pb2_grpc import DatasetServiceStub

MESSAGE_BYTES = 1024 * 1024

UploadProgress = Callable[[int, int | None], None]
"""Called with the bytes sent so far and the bytes in all, None where that is not known; from another thread."""


def _known_formats() -> dict[str, dataset_pb2.DataFormat]:
    csv = dataset_pb2.DataFormat(csv=dataset_pb2.CsvFormat())
    lines = dataset_pb2.DataFormat(json=dataset_pb2.JsonFormat(orient=dataset_pb2.JSON_ORIENT_LINES))
    stream = dataset_pb2.DataFormat(arrow_stream=dataset_pb2.ArrowStreamFormat())
    file = dataset_pb2.DataFormat(arrow_file=dataset_pb2.ArrowFileFormat())
    return {
        "csv": csv,
        "tsv": dataset_pb2.DataFormat(csv=dataset_pb2.CsvFormat(delimiter="\t")),
        "json": dataset_pb2.DataFormat(json=dataset_pb2.JsonFormat()),
        "jsonl": lines,
        "ndjson": lines,
        "parquet": dataset_pb2.DataFormat(parquet=dataset_pb2.ParquetFormat()),
        # Which of the two an .arrow file is, the trainer sees from its first bytes.
        "arrow": stream,
        "arrows": stream,
        "feather": file,
    }


def data_format(given: str | dataset_pb2.DataFormat | None, file_name: str = "") -> dataset_pb2.DataFormat:
    """Return how bytes are to be read.

    Args:
        given: A message, one of csv, tsv, json, jsonl, ndjson, parquet, arrow, arrows, feather, or None to infer it
            from the suffix.
        file_name: Name of the file; empty where there is none. A suffix such as .gz after another is ignored; Excel
            workbooks are converted to JSON lines.

    Raises:
        InvalidFieldError: The format is unknown, or the name does not show it.
    """
    if isinstance(given, dataset_pb2.DataFormat):
        return given
    formats = _known_formats()
    if given is None:
        suffix = pathlib.PurePath(plain_name(file_name)).suffix.lstrip(".")
        choice = "jsonl" if is_spreadsheet(file_name) else suffix
    else:
        choice = given
    found = formats.get(choice.lower())
    if found is None:
        known = ", ".join(formats)
        if given is None:
            shown = f"cannot be inferred from {file_name!r}" if file_name else "cannot be inferred without a file name"
            raise InvalidFieldError("format", f"{shown}; choose one of {known}")
        raise InvalidFieldError("format", f"{given!r} is unknown; choose one of {known}")
    return found


def declared_dataset(
    given: str | dataset_pb2.DataFormat | None,
    name: str = "",
    *,
    columns: Sequence[schema_pb2.ColumnSpec],
    primary_key: str,
    no_primary_key: bool,
    infinite: dataset_pb2.InfinitePolicy.ValueType,
) -> dataset_pb2.Dataset:
    """Return what a caller declares of a table's bytes; arguments as of `data_format` and `DatasetCalls.upload`."""
    return dataset_pb2.Dataset(
        format=data_format(given, name),
        column_overrides=columns,
        primary_key=primary_key,
        no_primary_key=no_primary_key,
        infinite=infinite,
    )


def file_name(source: Uploadable) -> str:
    """Return the file that is uploaded, as the caller named it; empty where it is none."""
    return os.fspath(source) if isinstance(source, str | os.PathLike) else ""


class _WriteAttempt:
    """One stream of an upload, from one offset to the end."""

    def __init__(self, source: UploadSource, name: str, offset: int, progress: UploadProgress | None) -> None:
        self._source = source
        self._name = name
        self._offset = offset
        self._progress = progress
        self._lock = threading.Lock()
        self._ended = False
        self.failure: Exception | None = None
        """The error of the source, where it ended the stream."""

    def messages(self) -> Iterator[dataset_service_pb2.WriteDatasetRequest]:
        """Yield the messages; run by gRPC in a thread of its own."""
        name = self._name
        while data := self._next_data():
            yield dataset_service_pb2.WriteDatasetRequest(
                name=name, write_offset=self._offset, data=data, crc32c=google_crc32c.value(data)
            )
            name = ""
            self._offset += len(data)
            self._report()
        with self._lock:
            if self._ended:
                return
        yield dataset_service_pb2.WriteDatasetRequest(
            name=name,
            write_offset=self._offset,
            finish_write=dataset_service_pb2.FinishWrite(total_size=self._offset, sha256=self._source.digest()),
        )

    def _next_data(self) -> bytes:
        # An attempt that has ended must neither read nor report while the next one does.
        with self._lock:
            if self._ended:
                return b""
            try:
                return self._source.read_at(self._offset, MESSAGE_BYTES)
            except Exception as error:
                self.failure = error
                raise

    def _report(self) -> None:
        with self._lock:
            if self._progress is not None and not self._ended:
                self._progress(self._offset, self._source.size)

    def end(self) -> None:
        """Make `messages` stop; on return it no longer uses the source."""
        with self._lock:
            self._ended = True


class DatasetCalls(Calls):
    """The part of the client for datasets."""

    def create_dataset(
        self,
        dataset_id: str | None = None,
        *,
        format: str | dataset_pb2.DataFormat = "csv",  # noqa: A002  # the field's name
        columns: Sequence[schema_pb2.ColumnSpec] = (),
        primary_key: str = "",
        no_primary_key: bool = False,
        infinite: dataset_pb2.InfinitePolicy.ValueType = dataset_pb2.INFINITE_POLICY_UNSPECIFIED,
    ) -> dataset_pb2.Dataset:
        """Create a dataset that waits for its bytes.

        Args:
            dataset_id: Last part of its name; None for one made by the service.
            format: How the bytes are to be read.
            columns: Declared columns; the others are inferred from the data.
            primary_key: Name of the primary key column, or empty.
            no_primary_key: Whether the table has none, and none is to be proposed.
            infinite: What is done with infinite numbers; by default they are refused.

        Raises:
            RowmintCallError: The service refused.
        """
        declared = declared_dataset(
            format,
            columns=columns,
            primary_key=primary_key,
            no_primary_key=no_primary_key,
            infinite=infinite,
        )
        return self._create_declared(dataset_id, declared)

    def _create_declared(self, dataset_id: str | None, declared: dataset_pb2.Dataset) -> dataset_pb2.Dataset:
        """Create a dataset of which `declared` says how its bytes are read; else as `create_dataset`."""
        request = dataset_service_pb2.CreateDatasetRequest(
            parent=self.project,
            dataset_id="" if dataset_id is None else dataset_id,
            dataset=declared,
            request_id=str(uuid.uuid4()),
        )
        return self._connection.call_trainer(lambda channel: DatasetServiceStub(channel).CreateDataset, request)

    def upload(
        self,
        source: Uploadable,
        dataset_id: str | None = None,
        *,
        format: str | dataset_pb2.DataFormat | None = None,  # noqa: A002  # the field's name
        columns: Sequence[schema_pb2.ColumnSpec] = (),
        primary_key: str = "",
        no_primary_key: bool = False,
        infinite: dataset_pb2.InfinitePolicy.ValueType = dataset_pb2.INFINITE_POLICY_UNSPECIFIED,
        sheet: str | None = None,
        progress: UploadProgress | None = None,
        wait: bool = True,
        timeout: float | None = None,
    ) -> dataset_pb2.Dataset:
        """Create a dataset and upload its bytes; a broken stream is resumed from the committed bytes.

        Args:
            source: A path, bytes, a binary file object, or a table in memory: of pyarrow, pandas, polars, or any that
                exports Arrow streams. Files of gzip, bzip2 and Zstandard are decompressed, Excel workbooks converted.
            dataset_id: Last part of its name; None for one made by the service.
            format: How the bytes are to be read; None to infer it from the file's suffix.
            columns: Declared columns; the others are inferred from the data.
            primary_key: Name of the primary key column, or empty.
            no_primary_key: Whether the table has none, and none is to be proposed.
            infinite: What is done with infinite numbers; by default they are refused.
            sheet: Name of the sheet, of an Excel workbook that has several.
            progress: Called with bytes sent and bytes in all.
            wait: Whether to wait until the table is READY.
            timeout: Seconds to wait for that; None for as long as it takes.

        Returns:
            The dataset: READY, or with its bytes all received where `wait` is false.

        Raises:
            RowmintCallError: The service refused, or was not reachable for too long.
            InvalidDataError: The bytes are not a table.
            TimeoutError: The table was not READY in time.
            OSError: The source cannot be read.
        """
        reader = UploadSource(source, sheet=sheet)
        try:
            declared = declared_dataset(
                format or reader.format or None,
                reader.name,
                columns=columns,
                primary_key=primary_key,
                no_primary_key=no_primary_key,
                infinite=infinite,
            )
            created = self._create_declared(dataset_id, declared)
            dataset = self.write_dataset(created.name, reader, progress=progress)
        finally:
            reader.close()
        return self._wait_named(dataset.name, timeout, file_name(source)) if wait else dataset

    def resume_upload(
        self,
        dataset: str,
        source: Uploadable,
        *,
        progress: UploadProgress | None = None,
        wait: bool = True,
        timeout: float | None = None,
    ) -> dataset_pb2.Dataset:
        """Resume an upload that this process or another has left; other arguments and errors as in `upload`.

        Args:
            dataset: Its name or id.
            source: The same bytes, from the first one on; those that are stored already are read, and not sent.
            progress: Called with bytes sent and bytes in all.
            wait: Whether to wait until the table is READY.
            timeout: Seconds to wait for that; None for as long as it takes.

        Raises:
            InvalidFieldError: The source ends before the stored bytes do.
            RowmintCallError: There is no such dataset, it accepts no bytes in its state, or its bytes differ.
        """
        found = self.get_dataset(dataset)
        reader = UploadSource(source)
        try:
            found = self.write_dataset(found.name, reader, offset=found.committed_size, progress=progress)
        finally:
            reader.close()
        return self._wait_named(found.name, timeout, file_name(source)) if wait else found

    def write_dataset(
        self, name: str, source: UploadSource, *, offset: int = 0, progress: UploadProgress | None = None
    ) -> dataset_pb2.Dataset:
        """Stream the bytes of `source`, from `offset` on, into a dataset that waits for them; see `upload`."""
        connection = self._connection
        retry = connection.retry
        failures = 0
        furthest = offset
        while True:
            try:
                return self._write_once(name, source, offset, progress)
            except RowmintCallError as error:
                failure = error
            failures += 1
            try:
                offset = self._resume_offset(name, failure)
            except _FinishedError as finished:
                return finished.dataset
            if offset > furthest:
                furthest, failures = offset, 1
            if failures >= retry.attempts:
                raise failure.given_up(failures)
            retry.wait(failures, failure.retry_after)

    def _write_once(
        self, name: str, source: UploadSource, offset: int, progress: UploadProgress | None
    ) -> dataset_pb2.Dataset:
        trainer = self._connection.trainer
        attempt = _WriteAttempt(source, name, offset, progress)
        try:
            return DatasetServiceStub(trainer.channel).WriteDataset(attempt.messages()).dataset
        except grpc.RpcError as error:
            attempt.end()
            raise (call_error(error, str(trainer)) if attempt.failure is None else attempt.failure) from None
        finally:
            attempt.end()

    def _resume_offset(self, name: str, failure: RowmintCallError) -> int:
        """Return the offset from which a broken upload is resumed.

        Raises:
            RowmintCallError: It cannot be resumed: the failure is not transient.
            _FinishedError: All bytes are stored; only the answer was lost.
        """
        committed = failure.metadata.get("committed_size", "")
        if failure.reason == Reason.WRITE_OFFSET and committed.isdigit():
            return int(committed)
        # A wrong checksum is the network's doing: it was right when the message was made.
        if not failure.retryable and failure.reason != Reason.CHECKSUM:
            raise failure
        dataset = self.get_dataset(name)
        if dataset.state != dataset_pb2.DATASET_STATE_UPLOADING:
            raise _FinishedError(dataset)
        return dataset.committed_size

    def wait_dataset(self, dataset: str, timeout: float | None = None) -> dataset_pb2.Dataset:
        """Wait until a dataset is READY.

        Args:
            dataset: Its name or id.
            timeout: Seconds; None for as long as it takes.

        Raises:
            InvalidDataError: The bytes are not a valid table; `problems` lists what is wrong.
            TimeoutError: It was not READY in time.
            RowmintCallError: The service refused, or was not reachable.
        """
        return self._wait_named(dataset, timeout, "")

    def _wait_named(self, dataset: str, timeout: float | None, file: str) -> dataset_pb2.Dataset:
        """Wait as `wait_dataset` does; an error of the data also names the file, unless `file` is empty."""
        end = None if timeout is None else time.monotonic() + timeout
        pause = 0.05
        while True:
            found = self.get_dataset(dataset)
            if found.state == dataset_pb2.DATASET_STATE_READY:
                return found
            if found.state == dataset_pb2.DATASET_STATE_FAILED:
                raise InvalidDataError(
                    [DataProblem(one.message, one.line, one.row, one.column) for one in found.errors]
                    or [DataProblem("could not be read, and the service gave no reason")],
                    found.name,
                    file,
                )
            if end is not None and time.monotonic() + pause > end:
                state = dataset_pb2.DatasetState.Name(found.state).removeprefix("DATASET_STATE_")
                raise TimeoutError(f"{found.name} is {state} after {timeout:g} s, not READY; wait longer")
            self._connection.retry.sleep(pause)
            pause = min(pause * 1.5, 1.0)

    def get_dataset(self, dataset: str) -> dataset_pb2.Dataset:
        """Read one dataset by name or id."""
        request = dataset_service_pb2.GetDatasetRequest(name=self._full_name(dataset, "datasets"))
        return self._connection.call_trainer(lambda channel: DatasetServiceStub(channel).GetDataset, request)

    def list_datasets(self) -> Iterator[dataset_pb2.Dataset]:
        """Yield the project's datasets, newest first."""

        def page(token: str) -> dataset_service_pb2.ListDatasetsResponse:
            request = dataset_service_pb2.ListDatasetsRequest(parent=self.project, page_token=token)
            return self._connection.call_trainer(lambda channel: DatasetServiceStub(channel).ListDatasets, request)

        for one in pages(page):
            yield from one.datasets

    def delete_dataset(self, dataset: str) -> None:
        """Delete a dataset and all that was derived from it, except published models."""
        request = dataset_service_pb2.DeleteDatasetRequest(name=self._full_name(dataset, "datasets"))
        self._connection.delete_on_trainer(lambda channel: DatasetServiceStub(channel).DeleteDataset, request)


class _FinishedError(Exception):
    """An upload turned out to be complete."""

    def __init__(self, dataset: dataset_pb2.Dataset) -> None:
        super().__init__(dataset.name)
        self.dataset = dataset
