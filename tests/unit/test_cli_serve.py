"""`rowmint serve` with services that only report their health, and `rowmint demo` with fake ones in this process."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import grpc
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from rowmint.cli import demo as demo_module
from rowmint.cli.app import app
from rowmint.cli.demo import open_flights
from rowmint.cli.demo_figures import Figure, FigureChoice, delayed_from_jfk, read_flights, shares
from rowmint.cli.serve import Supervisor, counted_up, is_serving
from tests.acceptance.processes import free_port
from tests.unit.fake_rows import VERSION
from tests.unit.fake_sampler import DemoSampler
from tests.unit.fake_services import start
from tests.unit.fake_trainer import FakeTrainer

ROOT = Path(__file__).parents[2]


def write_service(folder, role, *, dies=False):
    """Write the module of a service that only reports its health."""
    text = f"from tests.unit.fake_service import main\nmain({role!r}, dies={dies})\n"
    (folder / f"{role}_service.py").write_text(text)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder whose `trainer_service` and `sampler_service` only report their health."""
    for role in ("trainer", "sampler"):
        write_service(tmp_path, role)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'shared'}")
    return tmp_path


@pytest.fixture
def started(monkeypatch):
    """The services that `rowmint serve` starts in this process."""
    found = []
    start_one = Supervisor.start

    def record(supervisor, role, address):
        found.append(start_one(supervisor, role, address))
        return found[-1]

    monkeypatch.setattr(Supervisor, "start", record)
    return found


def children(process):
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def test_services_are_started_reported_and_stopped(folder):
    trainer, first = str(free_port()), str(free_port(following=1))
    second = str(int(first) + 1)
    command = ["serve", "--json", "--trainer-port", trainer, "--sampler-port", first, "--samplers", "2"]
    process = subprocess.Popen(
        [sys.executable, "-c", "from rowmint.cli import main; main()", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        report = json.loads(process.stdout.readline())
        assert report == {
            "trainer": f"127.0.0.1:{trainer}",
            "samplers": [f"127.0.0.1:{first}", f"127.0.0.1:{second}"],
            "home": str(folder / ".rowmint"),
        }
        for address in (report["trainer"], *report["samplers"]):
            with grpc.insecure_channel(address) as channel:
                assert is_serving(channel)
        pids = children(process)
        assert len(pids) == 3
    finally:
        # A signal, not a kill: it must end the services, which hold its output open.
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "")
    assert sorted(errors.splitlines()) == ["sampler serves", "sampler serves", "trainer serves"]
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []


def test_one_process_that_ends_ends_all(folder, started):
    write_service(folder, "sampler", dies=True)
    trainer, sampler = str(free_port()), str(free_port())
    done = CliRunner().invoke(app, ["serve", "--json", "--trainer-port", trainer, "--sampler-port", sampler])
    assert done.exit_code == 1
    assert f"the sampler at 127.0.0.1:{sampler} was ended by signal 9" in json.loads(done.stderr)["error"]["message"]
    assert [(one.role, one.process.poll()) for one in started] == [("trainer", 0), ("sampler", -signal.SIGKILL)]


def test_a_service_that_cannot_start_is_reported(folder):
    (folder / "trainer_service.py").write_text("raise SystemExit(3)\n")
    done = CliRunner().invoke(app, ["serve", "--trainer-port", str(free_port())])
    assert done.exit_code == 1
    assert "ended with exit code 3" in done.stderr


def test_a_port_in_use_is_reported(folder, started):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = CliRunner().invoke(app, ["serve", "--trainer-port", str(taken.getsockname()[1])])
    assert done.exit_code == 1
    assert "choose another port with --trainer-port" in done.stderr
    assert started == []


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


class ServersInProcess:
    """Stands for the demo's `Supervisor`: its services are fakes in this process."""

    def __init__(self, home, environment, logs):
        self.servers = {}

    def start(self, role, address):
        servicer = FakeTrainer() if role == "trainer" else DemoSampler()
        self.servers[address], _ = start(servicer, address)

    def wait_serving(self, timeout, stopped):
        return True

    def kill(self, address):
        self.servers.pop(address).stop(0).wait(5)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for address in list(self.servers):
            self.kill(address)


FLIGHTS = (
    f"{DemoSampler.columns}\n".encode()
    + (
        b"JFK,LAX,B6,2001,1900,100,30,19,61,70,2475\n"
        b"EWR,ORD,UA,502,500,630,NA,5,2,NA,719\n"
        b"JFK,BOS,AA,730,600,829,730,6,90,80,187\n"
    )
    * 50
)


@pytest.fixture
def demo_folder(tmp_path, monkeypatch):
    """A working folder for the demo, with its services in this process and a few flights."""

    @contextmanager
    def few_flights():
        yield io.BytesIO(FLIGHTS)

    monkeypatch.setattr(demo_module, "Supervisor", ServersInProcess)
    monkeypatch.setattr(demo_module, "open_flights", few_flights)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_demo_runs_to_its_end(demo_folder):
    done = CliRunner().invoke(app, ["demo", "--rows", "20000", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["dataset"]["committed_size"] == len(FLIGHTS)
    fits = report["training"]
    assert list(fits) == list(report["figures"])[1:] == [demo_module.FAMILY, demo_module.COMPARED]
    assert {fit["version"] for fit in fits.values()} == {VERSION}
    assert [len(fit["losses"]) for fit in fits.values()] == [5, 5]
    delay = "mean arr_delay of the flights that satisfy the conditions"
    assert report["figures"]["real"][delay] == 75.0
    assert report["figures"][demo_module.FAMILY]["clock times that are none, such as 2096"] == 0.25
    assert len(set(report["resumed"]["sha256"].values())) == 1
    assert report["resumed"]["killed"] != report["resumed"]["finished_on"]
    made = sorted(path.name for path in (demo_folder / "demo-output").iterdir())
    assert made == sorted(
        f"{name}.csv"
        for name in (
            f"{demo_module.FAMILY}_flights",
            f"{demo_module.FAMILY}_jfk_delayed",
            f"{demo_module.FAMILY}_jfk_delayed_resumed",
            f"{demo_module.COMPARED}_flights",
            f"{demo_module.COMPARED}_jfk_delayed",
        )
    )


def test_the_demo_prints_its_steps(demo_folder, monkeypatch):
    # Its services are its own, wherever the environment points.
    monkeypatch.setenv("ROWMINT_CA", "/absent")
    monkeypatch.setenv("ROWMINT_PROJECT", "acme")
    done = CliRunner().invoke(app, ["demo", "--rows", "20000", "--keep", "--output", "out"])
    assert done.exit_code == 0, done.output
    for part in (
        f"an epoch of {demo_module.COMPARED} is estimated to take 20 s: it gets 3 for a minute of fitting",
        f"training {demo_module.COMPARED} with epochs 3",
        "epoch 5/5",
        "the first five rows",
        "share of",
        "acceptance 50.00%",
        "(SIGKILL) at row",
        "sent the rest",
        "the two files are identical",
    ):
        assert part in done.stdout
    assert any(path.name.startswith("home-") for path in (demo_folder / "out").iterdir())


def test_the_real_flights_are_found_and_read():
    with open_flights() as file:
        table = delayed_from_jfk(read_flights(file))
    assert table.num_rows == 8_401
    assert min(table["dep_delay"].to_pylist()) == 61
    assert set(table["origin"].to_pylist()) == {"JFK"}


def test_the_missing_package_is_reported(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(Exception, match=r"pip install 'rowmint\[demo\]'"), open_flights():
        pass


def test_figures_are_those_a_person_would_check():
    with io.BytesIO(FLIGHTS) as file:
        flights = read_flights(file)
    choice = FigureChoice.of(flights)
    assert choice == FigureChoice(["AA", "B6", "UA"], ["BOS", "LAX", "ORD"])
    assert [figure.text for figure in choice.figures(flights, delayed_from_jfk(flights))] == [
        "75",
        *["33.3%"] * 3,
        *["187", "2,475", "719"],
        "100.0%",
        "0.0%",
        "0",
    ]


def test_figures_of_bad_flights_show_it():
    bad = b"JFK,LAX,B6,2096,1900,2530,2400,18,61,70,2475\nJFK,LAX,B6,NA,1900,100,30,19,61,NA,2476.5\n"
    flights = read_flights(io.BytesIO(f"{DemoSampler.columns}\n".encode() + bad))
    choice = FigureChoice(["B6", "UA"], ["LAX", "ORD"])
    assert choice.figures(flights, flights.slice(1)) == [
        Figure("mean arr_delay of the flights that satisfy the conditions", None),
        Figure("share of carrier B6", 1.0, is_share=True),
        Figure("share of carrier UA", 0.0, is_share=True),
        Figure("mean distance to LAX", 2475.75),
        Figure("mean distance to ORD", None),
        Figure("hour is that of sched_dep_time", 0.5, is_share=True),
        Figure("clock times that are none, such as 2096", 2 / 7, is_share=True),
        Figure("routes with two distances", 1.0),
    ]
    assert (Figure("x", None).text, Figure("x", 2475.75).text) == ("-", "2,475.8")
    assert shares(pa.chunked_array([["a", "a", "b", None]])) == {"a": 2 / 3, "b": 1 / 3}
