"""A worker: what it has imported when a command comes, and what a fit without networks does without."""

import json
import subprocess
import sys

import pytest

from tests.waiting import wait_until

# A worker that notes when it warms up, rather than import what takes seconds.
_NOTES = """
import sys
from pathlib import Path
from trainer_service.jobs import warm_up, worker
warm_up.import_fitting = Path(sys.argv[1]).touch
warm_up._IDLE_SECONDS = float(sys.argv[2])
worker.main()
"""
_FITS = """
import sys
from pathlib import Path
from tests.tables_to_fit import fit_table, full_table
from trainer_service.config import TrainingConfig
from trainer_service.fitting.families.independent.config import IndependentConfig
fit_table(full_table(), TrainingConfig(IndependentConfig(), seed=1), Path(sys.argv[1]))
print([name for name in ("torch", "ctgan", "sdv") if name in sys.modules])
"""


@pytest.mark.parametrize("rests", [True, False])
def test_a_worker_warms_up_only_where_no_command_comes_at_once(tmp_path, rests):
    mark = tmp_path / "warm"
    command = {"do": "estimate", "settings": {"home": str(tmp_path)}, "dataset_uid": "", "config": {}}
    arguments = [sys.executable, "-c", _NOTES, str(mark), "0" if rests else "600"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        assert json.loads(worker.stdout.readline()) == {"ready": True}
        if rests:
            wait_until(mark.exists, "the warming up")
        # It takes the end of its input for the end of its parent: that is left open.
        worker.stdin.write(json.dumps(command) + "\n")
        worker.stdin.flush()
        assert json.loads(worker.stdout.readline())["error"]["reason"] == "UNAVAILABLE"
        assert worker.wait(60) == 0
    assert mark.exists() is rests
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == [".lock"]


def test_a_model_without_networks_is_fitted_without_torch(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _FITS, str(tmp_path)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
