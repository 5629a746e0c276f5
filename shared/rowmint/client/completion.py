"""Completing rows of which some cells are known."""

import queue
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

import grpc

from rowmint.client.connection import Connection
from rowmint.client.interceptor import Metadata
from rowmint.client.models import ModelCalls
from rowmint.client.resumable_call import BrokenAttemptError, ResumableCall
from rowmint.client.values import typed_value
from rowmint.errors import ColumnNotFoundError, DataLossError, InvalidConditionError, InvalidFieldError
from rowmint.rpc.values import value_to_cell
from rowmint.schema import Cell, near_names
from rowmint.v1 import model_pb2, sampling_pb2, schema_pb2
from rowmint.v1.sampling_service_pb2_grpc import SamplingServiceStub

# Rows sent and not yet answered: enough to keep a replica busy, few enough to send again when it dies.
_WINDOW = 1_024
_MESSAGE_ROWS = 128

_SUPPORT = {
    sampling_pb2.COMPLETION_SUPPORT_MATCHED: "matched",
    sampling_pb2.COMPLETION_SUPPORT_WIDENED: "widened",
    sampling_pb2.COMPLETION_SUPPORT_UNSUPPORTED: "unsupported",
}


class CompletedRow(dict[str, Cell]):
    """One row: its cells by column, in the schema's order; known cells are as they were given.

    Attributes:
        row: Its index.
        effective_sample_size: Kish's effective number of candidates it was drawn from; near 1 says that few candidates
            resemble the row, 0 that none does.
        tolerance: Kernel width used, in standard deviations; wider than requested where no candidate was near.
        support: Whether candidates agree with the known cells: ``matched``; ``widened``, only at a wider tolerance or
            with known cells taken as near that are not equal; or ``unsupported``, none does, and the known cells say
            little about the others. ``unspecified`` from samplers that do not say.
    """

    def __init__(self, row: sampling_pb2.CompletedRow, columns: Iterable[str]) -> None:
        cells = (value_to_cell(value, f"values[{index}]", max_text=None) for index, value in enumerate(row.values))
        super().__init__(zip(columns, cells, strict=True))
        self.row = row.row
        self.effective_sample_size = row.effective_sample_size
        self.tolerance = row.tolerance
        self.support = _SUPPORT.get(row.support, "unspecified")


def partial_row(known: Mapping[str, object], schema: schema_pb2.TableSchema, index: int) -> sampling_pb2.PartialRow:
    """Return the message for a row.

    Args:
        known: Known cells by column; None for a cell that is known to be missing; absent columns are completed.
        schema: The table's columns.
        index: The row's index, for errors.

    Raises:
        ColumnNotFoundError: A column does not exist.
        InvalidFieldError: A cell is not one of its column's.
    """
    columns = {column.name: column for column in schema.columns}
    row = sampling_pb2.PartialRow()
    for name, cell in known.items():
        if name not in columns:
            raise ColumnNotFoundError(name, near_names(name, list(columns)))
        try:
            row.known[name].CopyFrom(typed_value(cell, columns[name]))
        except InvalidConditionError as error:
            raise InvalidFieldError(f"rows[{index}].{name}", error.message) from error
    return row


class _CompletionExchange:
    """The messages of `CompleteRows`; see `rowmint.client.resumable_call.Exchange`.

    Rows are sent ahead of the answers, up to `_WINDOW` of them; those not yet answered are kept for the next attempt.

    Args:
        version: The model version.
        rows: The partial rows; read as they are needed.
        config: What the first attempt begins with.
    """

    method = "rowmint.v1.SamplingService/CompleteRows"
    pinned: tuple[str, ...] = ("model_version", "model_digest", "plan_digest", "seed")

    def __init__(
        self,
        version: model_pb2.ModelVersion,
        rows: Iterable[Mapping[str, object]],
        config: sampling_pb2.CompleteRowsConfig,
    ) -> None:
        self.start_row = self.next_row = config.start_row
        self._version = version
        self._columns = [column.name for column in version.schema.columns]
        self._config = config
        self._source = iter(rows)
        self._read = 0
        self._exhausted = False
        self._pending: deque[sampling_pb2.PartialRow] = deque()
        self._outbox: queue.SimpleQueue[sampling_pb2.CompleteRowsRequest | None] = queue.SimpleQueue()

    def begin(self, channel: grpc.Channel, header: sampling_pb2.SampleHeader | None, metadata: Metadata) -> Any:
        config = sampling_pb2.CompleteRowsConfig()
        config.CopyFrom(self._config)
        config.start_row = self.next_row
        if header is not None:
            config.model = header.model_version
            config.seed = header.seed
            config.expected_model_digest = header.model_digest
            config.expected_plan_digest = header.plan_digest
        self._outbox = queue.SimpleQueue()
        self._outbox.put(sampling_pb2.CompleteRowsRequest(config=config))
        waiting = list(self._pending)
        for first in range(0, len(waiting), _MESSAGE_ROWS):
            self._send(waiting[first : first + _MESSAGE_ROWS])
        if self._exhausted:
            self._outbox.put(None)
        self._fill()
        return SamplingServiceStub(channel).CompleteRows(iter(self._outbox.get, None), metadata=metadata)

    def receive(self, response: sampling_pb2.CompleteRowsResponse, peer: str) -> Iterator[tuple[CompletedRow, bool]]:
        for row in response.rows.rows:
            if row.row != self.next_row or not self._pending:
                raise BrokenAttemptError(
                    DataLossError(f"{peer} sent row {row.row} where {self.next_row} was next; try again")
                )
            completed = self._completed(row, peer)
            self._pending.popleft()
            self.next_row += 1
            yield completed, True
        self._fill()

    def _completed(self, row: sampling_pb2.CompletedRow, peer: str) -> CompletedRow:
        try:
            return CompletedRow(row, self._columns)
        except (InvalidFieldError, ValueError) as error:
            raise BrokenAttemptError(
                DataLossError(f"row {row.row} came damaged from {peer}: {error}; try again")
            ) from error

    def finish(self, summary: sampling_pb2.SampleSummary, header: sampling_pb2.SampleHeader, peer: str) -> bool:
        if summary.next_row != self.next_row:
            raise BrokenAttemptError(
                DataLossError(f"{peer} ended at row {summary.next_row}, but {self.next_row} was next; try again")
            )
        return self._exhausted and not self._pending

    def end(self) -> None:
        # Ends the thread that sends.
        self._outbox.put(None)

    def _send(self, rows: list[sampling_pb2.PartialRow]) -> None:
        self._outbox.put(sampling_pb2.CompleteRowsRequest(rows=sampling_pb2.PartialRows(rows=rows)))

    def _fill(self) -> None:
        """Send what the window has room for."""
        while not self._exhausted and len(self._pending) + _MESSAGE_ROWS <= _WINDOW:
            rows: list[sampling_pb2.PartialRow] = []
            while len(rows) < _MESSAGE_ROWS:
                known = next(self._source, None)
                if known is None:
                    self._exhausted = True
                    break
                rows.append(partial_row(known, self._version.schema, self._read))
                self._read += 1
            self._pending.extend(rows)
            if rows:
                self._send(rows)
            if self._exhausted:
                self._outbox.put(None)


class CompletionStream:
    """Completed rows in the order given, resumed at another replica wherever a call breaks. For one thread.

    Args:
        connection: The channels.
        version: The model version.
        rows: The partial rows; read as they are needed.
        config: What the first attempt begins with.

    Attributes:
        version: The model version.
    """

    def __init__(
        self,
        connection: Connection,
        version: model_pb2.ModelVersion,
        rows: Iterable[Mapping[str, object]],
        config: sampling_pb2.CompleteRowsConfig,
    ) -> None:
        self.version = version
        exchange = _CompletionExchange(version, rows, config)
        self._call = ResumableCall(exchange, connection.route(), connection.retry)
        self._run = iter(self._call)

    @property
    def address(self) -> str:
        """The replica that is read from, or was last; as `SampleStream.address`."""
        return self._call.address

    @property
    def resumes(self) -> int:
        """How often the stream was resumed by another call."""
        return self._call.resumes

    def __iter__(self) -> Iterator[CompletedRow]:
        return self._run

    def __next__(self) -> CompletedRow:
        return next(self._run)

    def close(self) -> None:
        """End the stream; the call that runs is cancelled."""
        self._call.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class CompletionCalls(ModelCalls):
    """The part of the client that completes rows."""

    def complete_rows(
        self,
        model: str | model_pb2.ModelVersion,
        rows: Iterable[Mapping[str, object]],
        *,
        seed: int | None = None,
        tolerance: float | None = None,
        candidates: int | None = None,
    ) -> CompletionStream:
        """Complete rows of which some cells are known.

        Args:
            model: A version, its name, or a model by name or id: bare for its latest, `@alias`, `@sha256:digest`.
            rows: For each row its known cells by column; None for a cell known to be missing; the rest is completed.
            seed: Seed; None for one drawn by the service.
            tolerance: Kernel width for known numbers, in standard deviations, above 0 to 10; None for 0.1.
            candidates: Candidates compared for each row, a power of two, 256 to 65,536; None for 4,096.

        Returns:
            An iterator of `CompletedRow`, in the order given.

        Raises:
            RowmintCallError: The service refused, or no replica was reachable for too long.
            ColumnNotFoundError: A row names an unknown column.
            InvalidFieldError: A cell is not one of its column's.
        """
        version = model if isinstance(model, model_pb2.ModelVersion) else self.get_version(model)
        config = sampling_pb2.CompleteRowsConfig(
            model=version.name, seed=seed, tolerance=tolerance, candidates=candidates
        )
        return CompletionStream(self._connection, version, rows, config)
