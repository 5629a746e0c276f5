"""`rowmint train` and `rowmint jobs`: start, list, watch and cancel training jobs."""

import json
from typing import Annotated

import typer

from rowmint.cli.datasets import is_file, upload_file
from rowmint.cli.hyperparameters import with_training_options
from rowmint.cli.output import (
    Bar,
    JsonOption,
    client_of,
    client_settings,
    connect,
    enum_name,
    message_json,
    print_json,
    print_list,
    print_notice,
    print_table,
    progress_bar,
    short_name,
)
from rowmint.cli.profile import print_profile
from rowmint.cli.shell_completion import complete_data, complete_families, complete_jobs, complete_models
from rowmint.cli.table_options import TableOptions, with_table_options
from rowmint.client import RowmintCallError, training_config
from rowmint.client.families import DEFAULT_FAMILY, family_fields, family_names
from rowmint.client.table_ids import id_from_name
from rowmint.errors import InvalidFieldError
from rowmint.names import validate_id
from rowmint.v1 import training_job_pb2

app = typer.Typer(help="List, show, watch and cancel training jobs.", no_args_is_help=True)

_GOOD_QUALITY = 0.8
"""Quality of a probe below which made rows are reported as unlike the table's."""

MANIFEST_SECONDS = 5.0
"""How long a sampler may take to return a manifest, which the command can do without."""

JobArgument = Annotated[str, typer.Argument(autocompletion=complete_jobs, help="Id or name of the job.")]


def losses_text(progress: training_job_pb2.TrainingProgress) -> str:
    """Return the losses of an epoch and its speed, for people."""
    losses = "  ".join(f"{name} {value:+.3f}" for name, value in sorted(progress.losses.items()))
    quality = f"  quality {progress.probe['quality']:.3f}" if "quality" in progress.probe else ""
    return f"{losses}{quality}  {progress.rows_per_second:,.0f} rows/s"


def show_event(bar: Bar, event: training_job_pb2.TrainingEvent) -> None:
    """Show an event of a job on a progress bar."""
    if event.HasField("progress"):
        bar.update(event.progress.epoch, event.progress.epochs, losses_text(event.progress))
    elif event.message:
        bar.note(event.message)


def parse_settings(texts: list[str] | None) -> dict[str, object]:
    """Return what texts of the form NAME=VALUE set.

    Raises:
        InvalidFieldError: One is not of that form.
    """
    settings: dict[str, object] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise InvalidFieldError("--set", f"{text!r} is not NAME=VALUE, such as batch_size=1000")
        settings[name.strip()] = value.strip()
    return settings


@with_training_options
@with_table_options
def train(
    context: typer.Context,
    *,
    data: Annotated[
        str,
        typer.Argument(
            autocompletion=complete_data,
            help="A file, which is uploaded first unless it was before; or the id or name of a dataset.",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            autocompletion=complete_models,
            help="Id of the model that gets a new version. Default: the file's or dataset's name.",
        ),
    ] = None,
    family: Annotated[
        str, typer.Option(autocompletion=complete_families, help=f"{', '.join(family_names())}.")
    ] = DEFAULT_FAMILY,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Set any of the training options below by its name, such as batch_size=1000; may be repeated.",
        ),
    ] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Only estimate what it would cost.")] = False,
    staged: Annotated[
        bool, typer.Option("--staged", help="Only stage the version: it is not served until it is promoted.")
    ] = False,
    wait: Annotated[bool, typer.Option(help="Wait until there is a version.")] = True,
    as_json: JsonOption = False,
    table: TableOptions,
    settings: dict[str, object],
) -> None:
    """Train a model of a table and publish it."""
    uploaded = is_file(data, table)
    if not uploaded and table.primary_key:
        settings = {**settings, "primary_key": table.primary_key}
    config = training_config(family, {**parse_settings(set_), **settings})
    named = model is not None
    if model is None:
        if data == "-":
            raise InvalidFieldError("--model", "is required when the table comes from standard input")
        model = id_from_name(data) if uploaded else short_name(data)
    validate_id(model, "--model")
    with connect(context) as client:
        dataset = data
        if uploaded:
            found = upload_file(client, data, table, once=True, quiet=as_json)
            dataset = found.name
            if not as_json:
                print_profile(found)
        if estimate:
            cost = client.estimate(dataset, model, config)
            _print_estimate(cost, as_json)
            if not as_json:
                _print_steps(cost.steps_per_epoch, family)
            return
        job = client.train(dataset, model, config, staged=staged)
        if wait:
            try:
                with progress_bar(f"training {model}", quiet=as_json) as bar:
                    job = client.wait_job(job, on_event=lambda event: show_event(bar, event))
            except KeyboardInterrupt:
                name = short_name(job.name)
                print_notice(
                    f"{name} still runs; `rowmint jobs watch {name}` follows it, `rowmint jobs cancel {name}` stops it"
                )
                raise
    _print_job(job, as_json)
    if as_json:
        return
    if job.model_version and _has_batches(family):
        _print_steps(_steps_per_epoch(context, job.model_version), family)
    _print_advice(job, named=named)


def _has_batches(family: str) -> bool:
    return "batch_size" in family_fields()[family].fields_by_name


def _steps_per_epoch(context: typer.Context, version: str) -> int:
    """Return how many steps an epoch of a fit had, as the version's manifest says; 0 where it cannot be read."""
    try:
        with client_of(client_settings(context), patience=MANIFEST_SECONDS) as client:
            manifest = json.loads(client.get_version(version).manifest_json)
            return int(manifest["training"]["steps_per_epoch"])
    except (RowmintCallError, KeyError, TypeError, ValueError):
        return 0


def _print_steps(steps_per_epoch: int, family: str) -> None:
    """Say where an epoch is one step, in which little is learned."""
    if steps_per_epoch == 1 and _has_batches(family):
        print_notice(
            "each epoch is a single step, as the training rows fill one batch only: little is learned in an epoch;"
            " a smaller --batch-size makes more steps of the same rows"
        )


def _print_advice(job: training_job_pb2.TrainingJob, *, named: bool) -> None:
    """Say what of a finished job may surprise: rows unlike the table's, or a version of a model made before."""
    quality = job.progress.probe.get("quality", 1.0)
    if quality < _GOOD_QUALITY:
        print_notice(
            f"quality is {quality:.2f} of 1: made rows are unlike the table's; more --epochs may help, and a smaller"
            " --batch-size where the table is small"
        )
    version = job.model_version.rpartition("/")[2]
    if not named and version.isdigit() and int(version) > 1:
        print_notice(
            f"the model {short_name(job.model)} had versions before: its id was made of the name of what was trained;"
            " --model names another"
        )


def _print_estimate(estimate: training_job_pb2.TrainingEstimate, as_json: bool) -> None:
    if as_json:
        print_json(message_json(estimate))
        return
    print_table(
        ("encoded width", "steps an epoch", "seconds an epoch", "seconds in all", "peak memory, MB"),
        [
            (
                estimate.encoded_width,
                f"{estimate.steps_per_epoch:,}",
                f"{estimate.seconds_per_epoch:,.1f}",
                f"{estimate.total_seconds:,.0f}",
                f"{estimate.peak_memory_bytes / 1e6:,.0f}",
            )
        ],
    )


def _print_job(job: training_job_pb2.TrainingJob, as_json: bool) -> None:
    if as_json:
        print_json(message_json(job))
        return
    facts = [enum_name(job, "state"), enum_name(job, "phase")]
    if job.HasField("progress"):
        facts.append(f"epoch {job.progress.epoch} of {job.progress.epochs}: {losses_text(job.progress)}")
    if job.model_version:
        facts.append(f"{'staged' if job.staged else 'published'} {short_name(job.model_version)}")
    if job.HasField("error"):
        facts.append(f"{job.error.message} ({job.error.reason})")
    print_notice(f"{short_name(job.name)}: {', '.join(fact for fact in facts if fact)}")


@app.command("list")
def list_(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the jobs, newest first."""
    with connect(context) as client:
        jobs = list(client.list_jobs())
    print_list(
        ("job", "state", "phase", "dataset", "model", "version", "created"),
        jobs,
        lambda job: (
            short_name(job.name),
            enum_name(job, "state"),
            enum_name(job, "phase"),
            short_name(job.dataset),
            short_name(job.model),
            job.model_version.rpartition("/")[2],
            job.create_time.ToJsonString(),
        ),
        as_json=as_json,
    )


@app.command()
def show(context: typer.Context, job: JobArgument, as_json: JsonOption = False) -> None:
    """Show one job."""
    with connect(context) as client:
        _print_job(client.get_job(job), as_json)


@app.command()
def watch(
    context: typer.Context,
    job: JobArgument,
    after: Annotated[int, typer.Option(min=0, help="Number of the last event that is known already.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Print a job's events until it ends. Each is printed once."""
    with connect(context) as client:
        for event in client.watch(job, after):
            if as_json:
                print_json(message_json(event))
                continue
            facts = [f"{event.sequence}", enum_name(event, "state"), enum_name(event, "phase"), event.message]
            if event.HasField("progress"):
                facts.append(f"epoch {event.progress.epoch}/{event.progress.epochs}  {losses_text(event.progress)}")
            typer.echo("  ".join(fact for fact in facts if fact))


@app.command()
def cancel(context: typer.Context, job: JobArgument, as_json: JsonOption = False) -> None:
    """Cancel a job."""
    with connect(context) as client:
        _print_job(client.cancel_job(job), as_json)
