"""Sampling: requests for rows, and the streams that answer them."""

import os
from collections.abc import Sequence
from pathlib import Path

from rowmint.client.models import ModelCalls
from rowmint.client.parallel import ParallelStream
from rowmint.client.row_files import whole_file
from rowmint.client.row_stream import RowStream
from rowmint.client.sample_plan import SamplePlan, sample_plan
from rowmint.client.sample_stream import SampleProgress, SampleStream
from rowmint.client.weights import Weights, weights_messages
from rowmint.client.where import Conditions, where_message
from rowmint.errors import InvalidConditionError, InvalidFieldError
from rowmint.v1 import condition_pb2, model_pb2, sampling_pb2, schema_pb2
from rowmint.v1.sampling_service_pb2_grpc import SamplingServiceStub

FORMATS = {
    "arrow": sampling_pb2.ROW_FORMAT_ARROW_STREAM,
    "csv": sampling_pb2.ROW_FORMAT_CSV,
    "ndjson": sampling_pb2.ROW_FORMAT_NDJSON,
    "columns": sampling_pb2.ROW_FORMAT_COLUMNS,
}

MAX_PARALLEL = 64


class SamplingCalls(ModelCalls):
    """The part of the client that samples rows."""

    def sample_request(
        self,
        model: str | model_pb2.ModelVersion,
        rows: int,
        *,
        where: Conditions = None,
        weights: Weights = None,
        columns: Sequence[str] = (),
        seed: int | None = None,
        start_row: int | None = None,
        end_row: int | None = None,
        format: str = "arrow",  # noqa: A002  # the field's name
        allow_partial: bool = False,
        message_bytes: int | None = None,
        csv_escape_formulas: bool = False,
        max_reuse: int | None = None,
    ) -> sampling_pb2.SampleRequest:
        """Return the request that `sample` makes; arguments as there. Conditions are typed by the version's schema."""
        if format not in FORMATS:
            raise InvalidFieldError("format", f"{format!r} is unknown; choose one of {', '.join(FORMATS)}")
        if isinstance(model, model_pb2.ModelVersion):
            name, schema = model.name, model.schema
            _require_weighable(model, weights)
        elif not weights and (where is None or isinstance(where, condition_pb2.Where) or not where):
            name, schema = self._full_name(model, "models"), schema_pb2.TableSchema()
        else:
            # The version is pinned: an alias that moves in between must not change what the values mean.
            version = self.get_version(model)
            name, schema = version.name, version.schema
            _require_weighable(version, weights)
        try:
            return sampling_pb2.SampleRequest(
                model=name,
                rows=rows,
                start_row=start_row,
                end_row=end_row,
                where=_stated(where, weights, schema),
                columns=columns,
                seed=seed,
                format=FORMATS[format],
                allow_partial=allow_partial or None,
                message_bytes=message_bytes,
                csv_escape_formulas=csv_escape_formulas or None,
                max_reuse=max_reuse,
            )
        except (ValueError, TypeError) as error:
            raise InvalidFieldError("sample", f"a number is out of range, or not a number ({error})") from error

    def sample(
        self,
        model: str | model_pb2.ModelVersion,
        rows: int,
        *,
        where: Conditions = None,
        weights: Weights = None,
        columns: Sequence[str] = (),
        seed: int | None = None,
        start_row: int | None = None,
        end_row: int | None = None,
        format: str = "arrow",  # noqa: A002  # the field's name
        allow_partial: bool = False,
        message_bytes: int | None = None,
        csv_escape_formulas: bool = False,
        max_reuse: int | None = None,
        parallel: int = 1,
    ) -> SampleStream:
        """Request rows. The stream's header is there on return; its rows arrive as they are read.

        Args:
            model: A version, its name, or a model by name or id: bare for its latest, `@alias`, `@sha256:digest`.
            rows: Length of the whole logical stream, 1 to 10^15.
            where: Conditions that each row satisfies; see `rowmint.client.where`.
            weights: Shares that values of one column have among the rows, for models of families that meet conditions
                exactly; see `rowmint.client.weights`. None for the model's own.
            columns: Names of the columns delivered, in this order; empty for all.
            seed: Seed of the stream, 0 to 2^64 - 1; None for one drawn by the service; the header has it.
            start_row: First row delivered; None for 0.
            end_row: Row after the last one delivered; None for `rows`.
            format: `arrow`, `csv`, `ndjson` or `columns`.
            allow_partial: Whether rows whose candidate budget is exhausted are left out instead of ending the stream.
            message_bytes: Size of messages aimed at, 16 KiB to 1 MiB; None for the service's default.
            csv_escape_formulas: Whether a CSV cell that a spreadsheet takes for a formula gets an apostrophe.
            max_reuse: Most rows that may share a candidate, a power of two, 1 to 64: under rare conditions a long
                stream is then faster, and its rows are not independent. None for 1, independent rows.
            parallel: Calls read at once, 1 to 64. The rows arrive in order and are, byte for byte, those of one call;
                several calls use several replicas, and several processes of one replica. Parts meet on the header's
                grid: a stream shorter than that is always one call.

        Raises:
            RowmintCallError: The service refused, or no replica was reachable.
            InvalidFieldError: `format` is unknown, or a number out of its range.
            ColumnNotFoundError: A condition or weights name an unknown column.
            InvalidConditionError: A condition or weights cannot be read.
        """
        return self.sample_stream(
            self.sample_request(
                model,
                rows,
                where=where,
                weights=weights,
                columns=columns,
                seed=seed,
                start_row=start_row,
                end_row=end_row,
                format=format,
                allow_partial=allow_partial,
                message_bytes=message_bytes,
                csv_escape_formulas=csv_escape_formulas,
                max_reuse=max_reuse,
            ),
            parallel,
        )

    def sample_stream(self, request: sampling_pb2.SampleRequest, parallel: int = 1) -> SampleStream:
        """Stream the rows of a request, such as a part of `plan_sample`.

        Args:
            request: From `sample_request` or `plan_sample`.
            parallel: Calls read at once, as in `sample`.

        Raises:
            RowmintCallError: The service refused, or no replica was reachable.
            InvalidFieldError: `parallel` is not 1 to 64.
        """
        if not 1 <= parallel <= MAX_PARALLEL:
            raise InvalidFieldError("parallel", f"is {parallel}; must be 1 to {MAX_PARALLEL}")
        connection = self._connection
        if parallel == 1:
            return RowStream(connection.route(), connection.retry, request)
        return ParallelStream(connection, request, parallel)

    def sample_to_file(
        self,
        path: str | os.PathLike[str],
        model: str | model_pb2.ModelVersion,
        rows: int,
        *,
        format: str = "csv",  # noqa: A002  # the field's name
        progress: SampleProgress | None = None,
        where: Conditions = None,
        weights: Weights = None,
        columns: Sequence[str] = (),
        seed: int | None = None,
        allow_partial: bool = False,
        csv_escape_formulas: bool = False,
        max_reuse: int | None = None,
        parallel: int = 1,
    ) -> SampleStream:
        """Write rows to a file, which appears only when it is complete; other arguments and errors as in `sample`.

        Returns:
            The stream, read to its end: its header, acceptance and number of resumptions.
        """
        if format == "columns":
            raise InvalidFieldError("format", "columns cannot be written to a file; choose arrow, csv or ndjson")
        request = self.sample_request(
            model,
            rows,
            where=where,
            weights=weights,
            columns=columns,
            seed=seed,
            format=format,
            allow_partial=allow_partial,
            csv_escape_formulas=csv_escape_formulas,
            max_reuse=max_reuse,
        )
        with self.sample_stream(request, parallel) as stream, whole_file(Path(path)) as file:
            stream.write_to(file, progress)
            return stream

    def plan_sample(self, request: sampling_pb2.SampleRequest, parts: int = 1) -> SamplePlan:
        """Plan a stream: its header, its estimated acceptance, and parts that, joined in order, are the stream.

        Args:
            request: From `sample_request`.
            parts: Number of contiguous parts, 1 to 1,024.

        Raises:
            RowmintCallError: The service refused, or no replica was reachable.
        """
        message = sampling_pb2.PlanSampleRequest(sample=request, parts=parts, ranges_only=True)
        response = self._connection.call_sampler(
            lambda channel: SamplingServiceStub(channel).PlanSample, message, admitted=True
        )
        return sample_plan(request, response)


def _require_weighable(version: model_pb2.ModelVersion, weights: Weights) -> None:
    """Let weights be requested of models alone that know them: an older sampler passes them over.

    Raises:
        InvalidConditionError: The model's family meets conditions by rejection.
    """
    if weights and version.capabilities.conditions != model_pb2.CONDITION_SUPPORT_EXACT:
        raise InvalidConditionError(
            f"{version.name} is of family {version.family}, which meets conditions by rejection: its columns cannot"
            " have weights; train a circuit, or sample under a condition for each share",
            metadata={"name": version.name},
        )


def _stated(where: Conditions, weights: Weights, schema: schema_pb2.TableSchema) -> condition_pb2.Where:
    """Return conditions and weights as one message."""
    stated = condition_pb2.Where(weights=weights_messages(weights, schema))
    stated.MergeFrom(where_message(where, schema))
    return stated
