"""The `rowmint` command: its parts, its options, and how its errors are told."""

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from rowmint.cli import audit, datasets, jobs, keys, models
from rowmint.cli.demo import demo
from rowmint.cli.health import health
from rowmint.cli.output import Target, print_error
from rowmint.cli.sample import complete, sample
from rowmint.cli.serve import serve
from rowmint.cli.tracing import traced_command
from rowmint.client import Credentials, RowmintCallError
from rowmint.client.connection import SAMPLER, TRAINER
from rowmint.errors import RowmintError


class RowmintGroup(TyperGroup):
    """Tells every error as one line on stderr; exit codes: 1 refused or failed, 2 misused, 130 interrupted."""

    def main(
        self, args: Sequence[str] | None = None, prog_name: str | None = None, *_: Any, **extra: Any
    ) -> Any:  # typer's own signature differs between its versions
        """Run the command and exit."""
        extra["standalone_mode"] = False
        try:
            code = super().main(args, prog_name, **extra)
        except (RowmintError, RowmintCallError) as error:
            print_error(str(error))
            code = 1
        except BrokenPipeError:
            # Whoever read our output has enough; what Python would still flush goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 1
        except OSError as error:
            name = f"{error.filename}: " if error.filename is not None else ""
            print_error(f"{name}{error.strerror or error}")
            code = 1
        except typer.Abort:
            print_error("aborted")
            code = 1
        except Exception as error:  # noqa: BLE001  # raised again unless it is a misuse
            code = _tell_misuse(error)
        sys.exit(code if isinstance(code, int) else 0)


def _tell_misuse(error: Exception) -> int:
    """Tell a command line that cannot be read; any other error is raised again."""
    # The class is click's or typer's own, by typer's version; its methods are the same.
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stdout.write(f"{error}\n")
        return 2
    if not hasattr(error, "format_message"):
        raise error
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "rowmint"
    print_error(f"{error.format_message().rstrip('.')}; `{path} --help` explains")
    return 2


app = typer.Typer(
    cls=RowmintGroup,
    help="Stream tables in, fit synthesizers, stream synthetic rows out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def root(
    context: typer.Context,
    *,
    trainer: Annotated[str, typer.Option(envvar="ROWMINT_TRAINER", help="Address of the trainer.")] = TRAINER,
    sampler: Annotated[
        str, typer.Option(envvar="ROWMINT_SAMPLER", help="Addresses of the samplers, with commas between them.")
    ] = SAMPLER,
    project: Annotated[str, typer.Option(envvar="ROWMINT_PROJECT", help="Project that ids stand in.")] = "default",
    balancing: Annotated[
        str,
        typer.Option(
            envvar="ROWMINT_BALANCING",
            help="How one of several samplers is chosen: weighted (by the load it tells of) or round_robin.",
        ),
    ] = "weighted",
    tls: Annotated[
        bool, typer.Option("--tls", envvar="ROWMINT_TLS", help="Use TLS; any of the three files below says so, too.")
    ] = False,
    authorities: Annotated[
        Path | None,
        typer.Option("--ca", envvar="ROWMINT_CA", help="Authorities of the services (PEM); else those of this system."),
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(envvar="ROWMINT_CERTIFICATE", help="Certificate that is shown to the services (PEM).")
    ] = None,
    key: Annotated[Path | None, typer.Option(envvar="ROWMINT_KEY", help="Its private key (PEM).")] = None,
    server_name: Annotated[
        str,
        typer.Option(envvar="ROWMINT_SERVER_NAME", help="Name in the services' certificates, if not their address."),
    ] = "",
    token_file: Annotated[
        Path | None,
        typer.Option(
            envvar="ROWMINT_TOKEN_FILE",
            help="File of an API key or bearer token; ROWMINT_TOKEN holds one itself.",
        ),
    ] = None,
) -> None:
    """Stream tables in, fit synthesizers, stream synthetic rows out."""
    credentials = partial(
        Credentials.from_files,
        tls=tls,
        authorities=authorities,
        certificate=certificate,
        key=key,
        token=os.environ.get("ROWMINT_TOKEN", ""),
        token_file=token_file,
        server_name=server_name,
    )
    context.obj = Target(trainer, sampler, project, balancing, credentials)
    context.with_resource(traced_command(context.invoked_subcommand or ""))


app.command()(serve)
app.command()(health)
app.add_typer(datasets.app, name="datasets")
app.command()(jobs.train)
app.add_typer(jobs.app, name="jobs")
app.add_typer(models.app, name="models")
app.add_typer(keys.app, name="keys")
app.command()(sample)
app.command()(complete)
app.add_typer(audit.app, name="audit")
app.command()(demo)


def main() -> None:
    """Run the `rowmint` command."""
    app()
