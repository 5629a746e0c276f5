"""`rowmint serve` and `rowmint demo` with fake services, as processes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from rowmint.cli.app import app
from rowmint.cli.demo import free_addresses, open_flights, read_delayed
from rowmint.cli.marginals import Marginal, compare, shares
from rowmint.cli.serve import counted_up, is_serving

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder whose `trainer_service` and `sampler_service` are the fakes."""
    for module, role in (("trainer_service", "trainer"), ("sampler_service", "demo-sampler")):
        (tmp_path / f"{module}.py").write_text(f"from tests.unit.client_fakes import main\nmain({role!r})\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'shared'}")
    return tmp_path


@pytest.fixture
def serving(folder):
    """A running `rowmint serve` of a trainer and two samplers, and what it said."""
    ports = []
    while len(ports) != 3 or ports[2] != ports[1] + 1:
        ports = [int(address.rpartition(":")[2]) for address in free_addresses(2)]
        ports.append(ports[1] + 1)
    command = ["serve", "--json", "--trainer-port", str(ports[0]), "--sampler-port", str(ports[1]), "--samplers", "2"]
    process = subprocess.Popen(
        [sys.executable, "-c", "from rowmint.cli import main; main()", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process, json.loads(process.stdout.readline()), ports
    finally:
        # Told, not killed: it must end the services, which hold its output open.
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


def children(process):
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def test_services_are_started_told_and_stopped(serving, folder):
    process, told, ports = serving
    assert told == {
        "trainer": f"127.0.0.1:{ports[0]}",
        "samplers": [f"127.0.0.1:{ports[1]}", f"127.0.0.1:{ports[2]}"],
        "home": str(folder / ".rowmint"),
    }
    for address in (told["trainer"], *told["samplers"]):
        with grpc.insecure_channel(address) as channel:
            assert is_serving(channel)
    pids = children(process)
    assert len(pids) == 3
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (0, "")
    assert sorted(errors.splitlines()) == ["demo-sampler serves", "demo-sampler serves", "trainer serves"]
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []


def test_one_that_dies_ends_all(serving):
    process, _, _ = serving
    pids = children(process)
    os.kill(pids[1], signal.SIGKILL)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    (error,) = [line for line in errors.splitlines() if not line.endswith(" serves")]
    assert error.startswith("rowmint: the sampler at 127.0.0.1:")
    assert "was ended by signal 9" in error
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []


def test_a_service_that_cannot_start_is_told(folder):
    (folder / "trainer_service.py").write_text("raise SystemExit(3)\n")
    done = CliRunner().invoke(app, ["serve", "--trainer-port", free_addresses(1)[0].rpartition(":")[2]])
    assert done.exit_code == 1
    assert "ended with exit code 3" in done.stderr


def test_a_port_in_use_is_told(serving, folder):
    _, _, ports = serving
    done = CliRunner().invoke(app, ["serve", "--trainer-port", str(ports[0])])
    assert done.exit_code == 1
    assert "choose another port with --trainer-port" in done.stderr


@pytest.mark.parametrize(
    ("listen", "number", "expected"),
    [
        ("127.0.0.1:9464", 0, "127.0.0.1:9464"),
        ("127.0.0.1:9464", 2, "127.0.0.1:9466"),
        ("[::1]:9464", 1, "[::1]:9465"),
        ("127.0.0.1:0", 3, "127.0.0.1:0"),
        ("", 3, ""),
        ("nonsense", 1, "nonsense"),
    ],
)
def test_each_service_has_a_port_of_its_own_for_its_metrics(listen, number, expected):
    assert counted_up(listen, number) == expected


def test_the_demo_runs_to_its_end(folder):
    done = CliRunner().invoke(app, ["demo", "--rows", "20000", "--epochs", "5", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["dataset"]["committed_size"] == 31_053_850
    assert report["training"]["version"] == "projects/default/models/flights/versions/1"
    assert len(report["training"]["losses"]) == 5
    assert len(set(report["resumed"]["sha256"].values())) == 1
    assert report["resumed"]["killed"] != report["resumed"]["finished_on"]
    made = sorted(path.name for path in (folder / "demo-output").iterdir())
    assert made == ["jfk_delayed.csv", "jfk_delayed_resumed.csv"]


def test_the_demo_tells_its_steps(folder):
    done = CliRunner().invoke(app, ["demo", "--rows", "20000", "--epochs", "5", "--keep", "--output", "out"])
    assert done.exit_code == 0, done.output
    for part in ("epoch 5/5", "the first five rows", "share of", "acceptance 50.00%", "the two files are identical"):
        assert part in done.stdout
    assert any(path.name.startswith("home-") for path in (folder / "out").iterdir())


def test_the_real_flights_are_found_and_read():
    with open_flights() as file:
        table = read_delayed(file)
    assert table.num_rows == 8_401
    assert min(table["dep_delay"].to_pylist()) == 61
    assert set(table["origin"].to_pylist()) == {"JFK"}


def test_the_missing_package_is_told(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(Exception, match=r"pip install 'rowmint\[demo\]'"), open_flights():
        pass


def test_marginals_are_put_side_by_side():
    # Eleven numbers: each quantile is one of them, so that nothing is interpolated.
    real = pa.table({"c": ["a", "a", "b", *[None] * 9], "x": pa.array([*map(float, range(1, 12)), None])})
    synthetic = pa.table({"c": ["a", "c", "c", "c"], "x": pa.array([None] * 4, pa.float64())})
    assert shares(real["c"]) == {"a": 2 / 3, "b": 1 / 3}
    assert compare(real, synthetic, categorical=["c"], numerical=["x"], top=1) == [
        Marginal("c", "share of a", 2 / 3, 0.25, is_share=True),
        Marginal("x", "mean", 6.0, None, is_share=False),
        Marginal("x", "10 % quantile", 2.0, None, is_share=False),
        Marginal("x", "median", 6.0, None, is_share=False),
        Marginal("x", "90 % quantile", 10.0, None, is_share=False),
        Marginal("x", "missing", 1 / 12, 1.0, is_share=True),
    ]
    assert Marginal("x", "mean", 1234.56, None, is_share=False).texts == ("x", "mean", "1,234.6", "-")
