"""Completing rows of which some cells are known."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rowmint.client.completed_rows import CompletedRow, CompletedRows
from rowmint.client.interceptor import Metadata
from rowmint.client.models import ModelCalls
from rowmint.client.row_exchange import AnswerStream, RowExchange
from rowmint.v1 import model_pb2, sampling_pb2
from rowmint.v1.sampling_service_pb2_grpc import SamplingServiceStub


class _CompletionExchange(RowExchange[CompletedRow]):
    """The messages of `CompleteRows`.

    Args:
        version: The model version.
        rows: The partial rows; read as they are needed.
        config: What the first attempt begins with.
    """

    method = "rowmint.v1.SamplingService/CompleteRows"
    pinned = ("model_version", "model_digest", "plan_digest", "seed")

    def __init__(
        self,
        version: model_pb2.ModelVersion,
        rows: Iterable[Mapping[str, object]],
        config: sampling_pb2.CompleteRowsConfig,
    ) -> None:
        super().__init__(version, rows, config.start_row)
        self._config = config
        self._completed = CompletedRows([column.name for column in version.schema.columns])

    def config(self, header: sampling_pb2.SampleHeader | None) -> sampling_pb2.CompleteRowsRequest:
        config = sampling_pb2.CompleteRowsConfig()
        config.CopyFrom(self._config)
        config.start_row = self.next_row
        if header is not None:
            config.model = header.model_version
            config.seed = header.seed
            config.expected_model_digest = header.model_digest
            config.expected_plan_digest = header.plan_digest
        return sampling_pb2.CompleteRowsRequest(config=config)

    def request(self) -> sampling_pb2.CompleteRowsRequest:
        return sampling_pb2.CompleteRowsRequest()

    def call(self, stub: SamplingServiceStub, messages: Iterator[Any], metadata: Metadata) -> Any:
        return stub.CompleteRows(messages, metadata=metadata)

    def answers(self, response: sampling_pb2.CompleteRowsResponse) -> Sequence[sampling_pb2.CompletedRow]:
        return response.rows.rows

    def read(self, answer: sampling_pb2.CompletedRow) -> CompletedRow:
        return self._completed.read(answer)


class CompletionStream(AnswerStream[CompletedRow]):
    """Completed rows in the order given."""


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
        return CompletionStream(self._connection, version, _CompletionExchange(version, rows, config))
