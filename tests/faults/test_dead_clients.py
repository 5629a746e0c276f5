"""A client that is killed in an upload, with or without the trainer: another process resumes with the same file."""

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rowmint.client import Client
from rowmint.names import DatasetName
from tests.acceptance.processes import Services
from tests.crash.scenario import CSV
from tests.crash.storage import Storage
from tests.waiting import wait_until

# Sends the first part of a file through a pipe that is never closed, in messages of a segment each.
UPLOADER = """
import sys
from rowmint.client import Client, datasets
datasets.MESSAGE_BYTES = 16_384
with Client(sys.argv[1]) as client:
    client.upload(sys.stdin.buffer, "customers", format="csv", primary_key="customer")
"""


@pytest.mark.parametrize(("how", "trainer_dies"), [("file", False), ("stdin", True)])
def test_another_process_resumes_the_upload(services: Services, tmp_path: Path, trainer_dies: bool, how: str) -> None:
    storage = Storage(tmp_path)
    trainer = services.start("trainer_service", storage.trainer())
    (tmp_path / "customers.csv").write_bytes(CSV)
    with storage.open() as inside:

        def committed() -> int:
            found = inside.registry.datasets.list("default").items
            return found[0].committed_size if found else 0

        with subprocess.Popen([sys.executable, "-c", UPLOADER, trainer.address], stdin=subprocess.PIPE) as uploader:
            assert uploader.stdin is not None
            uploader.stdin.write(CSV[:100_000])
            uploader.stdin.flush()
            wait_until(lambda: committed() > 0, "a segment")
            if trainer_dies:
                trainer.kill()
            uploader.send_signal(signal.SIGKILL)
        kept = committed()
        assert 0 < kept < len(CSV)
        if trainer_dies:
            services.start("trainer_service", storage.trainer(), port=trainer.port)
        command = [sys.executable, "-m", "rowmint.cli", "--trainer", trainer.address, "datasets", "resume", "customers"]
        done = subprocess.run(
            [*command, "-" if how == "stdin" else str(tmp_path / "customers.csv"), "--json"],
            input=CSV if how == "stdin" else None,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["row_count"] == 3_000
        found = inside.registry.datasets.get(DatasetName("default", "customers"))
        assert (found.row_count, found.sha256) == (3_000, hashlib.sha256(CSV).digest())
        assert committed() >= kept
        inside.settle()
        with Client(trainer.address) as client:
            assert client.resume_upload("customers", CSV).row_count == 3_000
