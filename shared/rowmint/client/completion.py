"""Completing rows of which some cells are known."""

import queue
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Self

import grpc

from rowmint.client.connection import Connection, Turns
from rowmint.client.errors import RowmintCallError, call_error
from rowmint.client.models import ModelCalls
from rowmint.client.tracing import StreamSpan, current_context
from rowmint.client.values import typed_value, value_to_cell
from rowmint.errors import ColumnNotFoundError, DataLossError, InvalidConditionError, InvalidFieldError
from rowmint.schema import Cell, near_names
from rowmint.v1 import model_pb2, sampling_pb2, schema_pb2
from rowmint.v1.sampling_service_pb2_grpc import SamplingServiceStub

# Rows sent and not yet answered: enough to keep a replica busy, few enough to send again when it dies.
_WINDOW = 1_024
_MESSAGE_ROWS = 128


class CompletedRow(dict[str, Cell]):
    """One row, its cells by column in the schema's order; known cells are as they were given.

    Attributes:
        row: Its index.
        effective_sample_size: Kish's effective number of candidates it was drawn from; near 1 says that few candidates
            resemble the row.
        tolerance: Kernel width used, in standard deviations; wider than asked where no candidate was near.
    """

    def __init__(self, row: sampling_pb2.CompletedRow, columns: Iterable[str]) -> None:
        super().__init__(zip(columns, map(value_to_cell, row.values), strict=True))
        self.row = row.row
        self.effective_sample_size = row.effective_sample_size
        self.tolerance = row.tolerance


def partial_row(known: Mapping[str, object], schema: schema_pb2.TableSchema, index: int) -> sampling_pb2.PartialRow:
    """Return the message for a row.

    Args:
        known: Known cells by column; None for a cell that is known to be missing; an absent column is to be made.
        schema: The columns there are.
        index: The row's index, for the message of an error.

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


class CompletionStream:
    """Completed rows in the order given; on another replica wherever a stream breaks. For one thread.

    Args:
        connection: The channels.
        version: The model version.
        rows: The partial rows; read as they are needed.
        config: What the first call begins with.

    Attributes:
        version: The model version.
        resumes: How often the stream was gone on with by another call.
    """

    def __init__(
        self,
        connection: Connection,
        version: model_pb2.ModelVersion,
        rows: Iterable[Mapping[str, object]],
        config: sampling_pb2.CompleteRowsConfig,
    ) -> None:
        self._connection = connection
        self.version = version
        self.resumes = 0
        self._config = sampling_pb2.CompleteRowsConfig()
        self._config.CopyFrom(config)
        self._source = iter(rows)
        self._read = 0
        self._pending: deque[sampling_pb2.PartialRow] = deque()
        self._next_row = self._start_row = config.start_row
        self._header: sampling_pb2.SampleHeader | None = None
        self._exhausted = False
        self._span = StreamSpan("rowmint.v1.SamplingService/CompleteRows", current_context())
        self._run = self._legs()

    def __iter__(self) -> Iterator[CompletedRow]:
        return self._run

    def __next__(self) -> CompletedRow:
        return next(self._run)

    def close(self) -> None:
        """End the stream; the call that runs is cancelled."""
        self._run.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _legs(self) -> Generator[CompletedRow, None, None]:
        """Make calls until every row is there, all of them in one span."""
        with self._span:
            yield from self._calls()

    def _calls(self) -> Generator[CompletedRow, None, None]:
        turns = Turns(self._connection.way(), self._connection.retry)
        while True:
            peer = turns.peer
            before = self._next_row
            try:
                if (yield from self._leg(peer.channel)):
                    return
                failure = RowmintCallError(
                    grpc.StatusCode.UNAVAILABLE, f"{peer} ended the stream at row {self._next_row} without a summary"
                )
            except grpc.RpcError as error:
                failure = call_error(error, str(peer))
                if not failure.retryable:
                    raise failure from None
            turns.failed(failure, progress=self._next_row > before, reached=self._header is not None)
            self.resumes += self._header is not None
            self._span.tell("resumed", {"rowmint.next_row": self._next_row, "error.type": failure.code.name})

    def _leg(self, channel: grpc.Channel) -> Generator[CompletedRow, None, bool]:
        """Make one call; return whether all rows are there."""
        outbox: queue.SimpleQueue[sampling_pb2.CompleteRowsRequest | None] = queue.SimpleQueue()
        self._config.start_row = self._next_row
        outbox.put(sampling_pb2.CompleteRowsRequest(config=self._config))
        waiting = list(self._pending)
        for begin in range(0, len(waiting), _MESSAGE_ROWS):
            outbox.put(self._rows_message(waiting[begin : begin + _MESSAGE_ROWS]))
        if self._exhausted:
            outbox.put(None)
        columns = [column.name for column in self.version.schema.columns]
        self._fill(outbox)
        call = SamplingServiceStub(channel).CompleteRows(iter(outbox.get, None), metadata=self._span.metadata)
        try:
            for response in call:
                kind = response.WhichOneof("message")
                if kind == "header":
                    self._take_header(response.header)
                    columns = [column.name for column in response.header.schema.columns] or columns
                elif kind == "rows":
                    for row in response.rows.rows:
                        if row.row != self._next_row or not self._pending:
                            raise DataLossError(f"row {row.row} was answered where {self._next_row} was next")
                        self._pending.popleft()
                        self._next_row += 1
                        yield CompletedRow(row, columns)
                    self._fill(outbox)
                elif kind == "summary":
                    self._span.annotate({"rowmint.rows": self._next_row - self._start_row})
                    return self._exhausted and not self._pending
            return False
        finally:
            # Ends the thread that sends, and the call where it still runs.
            outbox.put(None)
            call.cancel()

    def _take_header(self, header: sampling_pb2.SampleHeader) -> None:
        self._header = header
        self._config.seed = header.seed
        self._config.model = header.model_version

    def _rows_message(self, rows: list[sampling_pb2.PartialRow]) -> sampling_pb2.CompleteRowsRequest:
        return sampling_pb2.CompleteRowsRequest(rows=sampling_pb2.PartialRows(rows=rows))

    def _fill(self, outbox: "queue.SimpleQueue[sampling_pb2.CompleteRowsRequest | None]") -> None:
        """Send what the window has room for."""
        while not self._exhausted and len(self._pending) + _MESSAGE_ROWS <= _WINDOW:
            rows: list[sampling_pb2.PartialRow] = []
            while len(rows) < _MESSAGE_ROWS:
                known = next(self._source, None)
                if known is None:
                    self._exhausted = True
                    break
                rows.append(partial_row(known, self.version.schema, self._read))
                self._read += 1
            self._pending.extend(rows)
            if rows:
                outbox.put(self._rows_message(rows))
            if self._exhausted:
                outbox.put(None)


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
            rows: For each row its known cells by column; None for a cell known to be missing; absent columns are made.
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
