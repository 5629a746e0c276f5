"""What is more than a service allows is refused with an error that names the setting to raise."""

import threading
from collections.abc import Iterator
from dataclasses import replace

import google_crc32c
import grpc
import pyarrow as pa
import pytest

from rowmint.client import Client, RowmintCallError
from rowmint.client.datasets import MESSAGE_BYTES
from rowmint.errors import InvalidDataError
from rowmint.v1.dataset_service_pb2 import WriteDatasetRequest
from rowmint.v1.dataset_service_pb2_grpc import DatasetServiceStub
from tests.acceptance.processes import Services
from tests.acceptance.refusals import refused
from tests.faults.golden_home import NO_TRAINER, golden_request
from tests.faults.process_figures import anonymous_bytes
from tests.faults.raw_streams import Undisturbed, opened
from tests.hostile.parquet_bytes import BYTE_ARRAY, DICTIONARY, RLE_DICTIONARY, ZSTD, Chunk, File, Page, run
from tests.waiting import PATIENCE, wait_until

PROJECT_BYTES = 3 * MESSAGE_BYTES


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a trainer that allows little."""
    services = Services(tmp_path_factory.mktemp("limited"))
    limits = {"ROWMINT_MAX_OPEN_UPLOADS": "2", "ROWMINT_MAX_PROJECT_BYTES": str(PROJECT_BYTES)}
    try:
        yield services.trainer(**limits, ROWMINT_MAX_MESSAGE_BYTES=str(MESSAGE_BYTES + 1024)).address
    finally:
        services.close()


def data_message(name: str, size: int, offset: int = 0) -> WriteDatasetRequest:
    data = bytes(size)
    return WriteDatasetRequest(name=name, write_offset=offset, data=data, crc32c=google_crc32c.value(data))


def test_more_datasets_that_wait_for_bytes_than_allowed(limited: str) -> None:
    with Client(limited, project="waiting") as client:
        client.create_dataset("one")
        client.create_dataset("two")
        with pytest.raises(RowmintCallError) as raised:
            client.create_dataset("three")
        assert raised.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert raised.value.reason == "LIMIT"
        assert raised.value.metadata["setting"] == "ROWMINT_MAX_OPEN_UPLOADS"
        assert "ROWMINT_MAX_OPEN_UPLOADS" in raised.value.message
        client.delete_dataset("one")
        assert client.create_dataset("three").name == "projects/waiting/datasets/three"


def test_more_bytes_of_a_project_than_allowed_leave_those_before_committed(limited: str) -> None:
    with Client(limited, project="bytes") as client:
        name = client.create_dataset("large").name
        with grpc.insecure_channel(limited) as channel:
            messages = (data_message(name, MESSAGE_BYTES, index * MESSAGE_BYTES) for index in range(20))
            refusal = refused(DatasetServiceStub(channel).WriteDataset, messages)
        assert refusal.kind == ("RESOURCE_EXHAUSTED", "LIMIT")
        assert refusal.metadata["setting"] == "ROWMINT_MAX_PROJECT_BYTES"
        assert "ROWMINT_MAX_PROJECT_BYTES" in refusal.message
        assert client.get_dataset("large").committed_size <= PROJECT_BYTES
        client.delete_dataset("large")
        assert client.upload(b"a,b\n1,2\n2,3\n", "small", format="csv", wait=False).committed_size == 12


def test_a_message_larger_than_the_trainer_takes(limited: str) -> None:
    with Client(limited, project="message") as client:
        name = client.create_dataset("wide").name
        with grpc.insecure_channel(limited) as channel, pytest.raises(grpc.RpcError) as refusal:
            DatasetServiceStub(channel).WriteDataset(iter([data_message(name, 2 * MESSAGE_BYTES)]))
        assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert client.get_dataset("wide").committed_size == 0


def test_an_upload_that_takes_more_memory_than_a_worker_may(services: Services) -> None:
    trainer = services.trainer(ROWMINT_WORKER_MEMORY_BYTES=str(640 << 20))
    entries = 15 << 20
    lexicon = Page(DICTIONARY, pa.compress(bytes(4 * entries), "zstd", asbytes=True), entries, unpacked=4 * entries)
    rows = Page(values=3, data=pa.compress(run(3, 1, 24), "zstd", asbytes=True), encoding=RLE_DICTIONARY)
    pages = (lexicon, replace(rows, unpacked=len(run(3, 1, 24))))
    bomb = File(((Chunk(pages, BYTE_ARRAY, ZSTD),) * 2,)).to_bytes()
    with Client(trainer.address) as client:
        with pytest.raises(InvalidDataError, match=r"more memory than a worker may take \(\d+ bytes, ROWMINT_WORKER"):
            client.upload(bomb, "bomb", format="parquet")
        assert client.upload(b"a,b\n1,2\n2,3\n", "small", format="csv").row_count == 2


def test_hundreds_of_streams_of_one_dataset_take_bounded_memory_and_leave_none(services: Services) -> None:
    trainer = services.trainer(ROWMINT_SEGMENT_SECONDS="600", ROWMINT_MAX_UPLOAD_STREAMS="32")
    data = bytes(MESSAGE_BYTES)
    crc, pieces = google_crc32c.value(data), 7
    with Client(trainer.address, project="memory") as client:
        name = client.create_dataset("d", format="csv").name
        before, most = anonymous_bytes(trainer.pid), 0
        for _ in range(3):
            done = threading.Event()

            def messages(done: threading.Event = done) -> Iterator[WriteDatasetRequest]:
                for index in range(pieces):
                    yield WriteDatasetRequest(name=name, write_offset=index * MESSAGE_BYTES, data=data, crc32c=crc)
                done.wait(PATIENCE)

            channels = [
                grpc.insecure_channel(trainer.address, options=[("grpc.use_local_subchannel_pool", 1)])
                for _ in range(60)
            ]
            calls = [DatasetServiceStub(channel).WriteDataset.future(messages()) for channel in channels]
            # All but the newest, and one that may still be about to learn of it, are refused or superseded.
            wait_until(lambda calls=calls: sum(not call.done() for call in calls) <= 1, "one stream is left")
            most = max(most, anonymous_bytes(trainer.pid))
            done.set()
            for call, channel in zip(calls, channels, strict=True):
                call.cancel()
                channel.close()
        assert most - before < 700 << 20
        wait_until(lambda: anonymous_bytes(trainer.pid) - before < 250 << 20, "memory is given back")


def test_a_client_whose_messages_are_too_large_says_which_setting_allows_them(services: Services) -> None:
    trainer = services.trainer(ROWMINT_MAX_MESSAGE_BYTES=str(64 * 1024))
    with (
        Client(trainer.address) as client,
        pytest.raises(RowmintCallError, match="ROWMINT_MAX_MESSAGE_BYTES") as raised,
    ):
        client.upload(bytes(MESSAGE_BYTES), "wide", format="csv")
    assert raised.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_more_rows_than_the_sampler_allows(replicas: Services, undisturbed: Undisturbed) -> None:
    sampler = replicas.sampler(ROWMINT_MAX_ROWS="1000")
    with opened(sampler.address, golden_request(undisturbed.address, 1_001)) as call:
        refusal = refused(list, call)
    assert refusal.kind == ("RESOURCE_EXHAUSTED", "LIMIT")
    assert refusal.metadata == {"limit": "1000", "setting": "ROWMINT_MAX_ROWS"}
    with Client(NO_TRAINER, sampler.address) as client:
        stream = client.sample_stream(golden_request(undisturbed.address, 1_000))
        assert sum(message.row_count for message in stream.messages()) == 1_000


def test_a_model_larger_than_the_sampler_may_keep(replicas: Services, undisturbed: Undisturbed) -> None:
    sampler = replicas.sampler(ROWMINT_MODEL_CACHE_BYTES="1000")
    with opened(sampler.address, golden_request(undisturbed.address, 10)) as call:
        refusal = refused(list, call)
    assert refusal.kind == ("RESOURCE_EXHAUSTED", "LIMIT")
    assert refusal.metadata == {"limit": "1000", "setting": "ROWMINT_MODEL_CACHE_BYTES"}
