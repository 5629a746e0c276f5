"""What streams are to give: read in one call from a replica that is never killed, once for all clients."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import grpc

from rowmint.client import Client
from rowmint.v1 import sampling_pb2
from rowmint.v1.sampling_service_pb2_grpc import SamplingServiceStub
from tests.faults.golden_home import NO_TRAINER


def body_of(message: sampling_pb2.SampleData) -> bytes:
    """Return the rows of a message as bytes, whatever the format: cut into other messages, they are the same."""
    return message.data + b"".join(batch.SerializeToString(deterministic=True) for batch in message.batches)


@dataclass(frozen=True)
class Reference:
    """What a stream is to give.

    Attributes:
        rows: Its rows.
        sha256: SHA-256 of its rows as bytes, in hex.
    """

    rows: int
    sha256: str

    @classmethod
    def over(cls, bodies: Iterable[bytes], rows: int) -> Self:
        """Return what a stream gave that came in several pieces."""
        return cls(rows, hashlib.sha256(b"".join(bodies)).hexdigest())


class References:
    """References, kept in a folder that all clients share.

    Args:
        undisturbed: Address of a replica that is never killed.
        folder: The folder; made where it is not there.
    """

    def __init__(self, undisturbed: str, folder: Path) -> None:
        self._address = undisturbed
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def of(self, request: sampling_pb2.SampleRequest) -> Reference:
        """Return what a stream gives; its version and seed are named by number."""
        return Reference(**self._kept(request.SerializeToString(deterministic=True), lambda: self._read(request)))

    def completed(self, version: str, rows: Sequence[Mapping[str, object]], seed: int) -> str:
        """Return the SHA-256 of completed rows, see `completed_digest`."""

        def ask() -> dict[str, Any]:
            with Client(NO_TRAINER, self._address) as client, client.complete_rows(version, rows, seed=seed) as stream:
                return {"sha256": completed_digest(stream)}

        return str(self._kept(repr((version, rows, seed)).encode(), ask)["sha256"])

    def _kept(self, key: bytes, ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        file = self._folder / hashlib.sha256(key).hexdigest()
        if not file.exists():
            found = ask()
            part = file.with_name(f"{file.name}.{os.getpid()}")
            part.write_text(json.dumps(found))
            part.replace(file)
        return dict(json.loads(file.read_text()))

    def _read(self, request: sampling_pb2.SampleRequest) -> dict[str, Any]:
        rows, digest, complete = 0, hashlib.sha256(), False
        with grpc.insecure_channel(self._address, [("grpc.max_receive_message_length", 1 << 24)]) as channel:
            for response in SamplingServiceStub(channel).Sample(request, timeout=300):
                if response.HasField("data"):
                    rows += response.data.row_count
                    digest.update(body_of(response.data))
                complete = response.HasField("summary") and response.summary.complete
        if not complete:
            raise AssertionError("the undisturbed replica did not complete a stream")
        return {"rows": rows, "sha256": digest.hexdigest()}


def completed_digest(stream: Any) -> str:
    """Return the SHA-256 of completed rows: their indices and cells."""
    digest = hashlib.sha256()
    for row in stream:
        digest.update(repr((row.row, dict(row), row.effective_sample_size)).encode())
    return digest.hexdigest()
