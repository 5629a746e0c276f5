"""Scoring rows: the exact log-probability of their known cells."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rowmint.client.interceptor import Metadata
from rowmint.client.models import ModelCalls
from rowmint.client.row_exchange import AnswerStream, RowExchange
from rowmint.v1 import model_pb2, sampling_pb2
from rowmint.v1.sampling_service_pb2_grpc import SamplingServiceStub


@dataclass(frozen=True)
class RowScore:
    """The score of one row.

    Attributes:
        row: Its index.
        log_probability: Natural logarithm of the probability of its known cells under the model, of the density of
            those that the model does not round; minus infinity where the model never makes such a row.
    """

    row: int
    log_probability: float

    @property
    def impossible(self) -> bool:
        """Whether the model never makes a row with these cells."""
        return self.log_probability == -math.inf


class _ScoringExchange(RowExchange[RowScore]):
    """The messages of `ScoreRows`.

    Args:
        version: The model version.
        rows: The partial rows; read as they are needed.
    """

    method = "rowmint.v1.SamplingService/ScoreRows"
    pinned = ("model_version", "model_digest")

    def config(self, header: sampling_pb2.SampleHeader | None) -> sampling_pb2.ScoreRowsRequest:
        config = sampling_pb2.ScoreRowsConfig(model=self._version.name, start_row=self.next_row)
        if header is not None:
            config.model = header.model_version
            config.expected_model_digest = header.model_digest
        return sampling_pb2.ScoreRowsRequest(config=config)

    def request(self) -> sampling_pb2.ScoreRowsRequest:
        return sampling_pb2.ScoreRowsRequest()

    def call(self, stub: SamplingServiceStub, messages: Iterator[Any], metadata: Metadata) -> Any:
        return stub.ScoreRows(messages, metadata=metadata)

    def answers(self, response: sampling_pb2.ScoreRowsResponse) -> Sequence[sampling_pb2.RowScore]:
        return response.rows.scores

    def read(self, answer: sampling_pb2.RowScore) -> RowScore:
        if not math.isfinite(answer.log_probability):
            raise ValueError(f"its score is {answer.log_probability}")
        return RowScore(answer.row, -math.inf if answer.impossible else answer.log_probability)


class ScoreStream(AnswerStream[RowScore]):
    """Scores in the order of the rows given."""


class ScoringCalls(ModelCalls):
    """The part of the client that scores rows."""

    def score_rows(self, model: str | model_pb2.ModelVersion, rows: Iterable[Mapping[str, object]]) -> ScoreStream:
        """Score rows by the exact log-probability of their known cells, in nats.

        Args:
            model: A version, its name, or a model by name or id: bare for its latest, `@alias`, `@sha256:digest`. Its
                `capabilities.likelihood` must be true.
            rows: For each row its known cells by column; None for a cell known to be missing; the columns that are left
                out are summed over, and ids are ignored.

        Returns:
            An iterator of `RowScore`, in the order given.

        Raises:
            RowmintCallError: The service refused, or no replica was reachable for too long.
            ColumnNotFoundError: A row names an unknown column.
            InvalidFieldError: A cell is not one of its column's.
        """
        version = model if isinstance(model, model_pb2.ModelVersion) else self.get_version(model)
        return ScoreStream(self._connection, version, _ScoringExchange(version, rows))
