"""Rows completed by real samplers over real gRPC: a completion that is resumed elsewhere is the one that is not.

It is, even if its version was deleted meanwhile.
"""

import pytest

from rowmint.client import Client, RowmintCallError
from rowmint.names import ModelVersionName
from rowmint.registry import open_registry
from tests.faults.golden_home import NO_TRAINER, golden_version, publish_golden
from tests.integration.served_replica import replica

FAMILY = golden_version("ctgan")
ROWS = 8_000
DRAIN_ROW = 6_000  # beyond what the client sends ahead of the answers


def known_rows():
    for row in range(ROWS):
        yield {"age": 20 + row % 60} if row % 3 else {}


def delete_version(home):
    """Delete the version, as a trainer does; it can be restored for a day, and streams of it resumed."""
    registry = open_registry(f"sqlite:///{home}/registry")
    registry.models.delete_version(ModelVersionName.parse(FAMILY), keep_seconds=86_400)
    registry.close()


def test_a_completion_that_is_resumed_gives_the_rows_of_one_call(tmp_path):
    publish_golden(tmp_path)
    with replica(tmp_path) as first, replica(tmp_path, "onnxruntime") as second:
        drained = []

        def draining():
            """Yield the rows; once some are completed, delete the version and drain the replica that completes them."""
            for row, known in enumerate(known_rows()):
                if row == DRAIN_ROW:
                    delete_version(tmp_path)
                    drained.extend(served for _, served in (first, second) if served.admission.streams)
                    for served in drained:
                        served.loop.call_soon_threadsafe(served.drain.begin)
                yield known

        with Client(NO_TRAINER, [first[0], second[0]]) as client:
            options = {"seed": 7, "candidates": 256}
            whole = list(client.complete_rows(FAMILY, known_rows(), **options))
            with client.complete_rows(FAMILY, draining(), **options) as stream:
                resumed = list(stream)
            with pytest.raises(RowmintCallError, match="there is no"):
                client.get_version(FAMILY)
        assert len(drained) == 1
        assert stream.resumes >= 1
    assert resumed == whole
    assert [row.row for row in resumed] == list(range(ROWS))
