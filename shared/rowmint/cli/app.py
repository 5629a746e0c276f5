"""The `rowmint` command: its parts, its options, and how it reports errors."""

import os
import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from rowmint.cli import audit, datasets, jobs, keys, models
from rowmint.cli.demo import demo
from rowmint.cli.health import health
from rowmint.cli.output import print_error, print_json_error
from rowmint.cli.sample import complete, sample
from rowmint.cli.score import score
from rowmint.cli.serve import serve
from rowmint.cli.shell_completion import join_bash_words
from rowmint.cli.tracing import traced_command
from rowmint.client import RowmintCallError
from rowmint.client.settings import VARIABLES, ClientSettings
from rowmint.errors import RowmintError

_INTERRUPTED = 130
"""What typer makes of an interrupt from the keyboard."""


class RowmintGroup(TyperGroup):
    """Reports every error as one line on stderr, JSON with `--json`.

    Exit codes: 1 refused or failed, 2 misused, 130 interrupted.
    """

    def main(
        self, args: Sequence[str] | None = None, prog_name: str | None = None, *_: Any, **extra: Any
    ) -> Any:  # typer's own signature differs between its versions
        """Run the command and exit."""
        extra["standalone_mode"] = False
        if os.environ.get("_ROWMINT_COMPLETE") == "complete_bash":
            join_bash_words(os.environ)
        as_json = "--json" in (sys.argv[1:] if args is None else args)
        try:
            code = super().main(args, prog_name, **extra)
            if code == _INTERRUPTED:
                print_error("interrupted")
        except (RowmintError, RowmintCallError) as error:
            if as_json:
                print_json_error(error.message, str(error.reason), error.metadata)
            else:
                print_error(str(error))
            code = 1
        except BrokenPipeError:
            # The reader of our output has closed it; what Python would still flush is discarded.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 1
        except OSError as error:
            name = f"{error.filename}: " if error.filename is not None else ""
            if as_json:
                print_json_error(f"{name}{error.strerror or error}")
            else:
                print_error(f"{name}{error.strerror or error}")
            code = 1
        except typer.Abort:
            print_error("aborted")
            code = 1
        except Exception as error:  # noqa: BLE001  # raised again unless it is a misuse
            code = _report_misuse(error)
        sys.exit(code if isinstance(code, int) else 0)


def _report_misuse(error: Exception) -> int:
    """Report a command line that cannot be read; any other error is raised again."""
    # The class is click's or typer's own, by typer's version; its methods are the same.
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stdout.write(f"{error}\n")
        return 2
    if not hasattr(error, "format_message"):
        raise error
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "rowmint"
    print_error(f"{error.format_message().rstrip('.')}; see `{path} --help`")
    return 2


_DEFAULTS = ClientSettings()


def _setting(name: str, text: str, *flags: str, default: str = "") -> Any:
    """Return the option of a client's setting; its help names the variable that stands in for it."""
    shown = f"; default: {default}" if default else ""
    return typer.Option(*flags, help=f"{text} [env var: {VARIABLES[name]}{shown}]", show_default=False)


app = typer.Typer(
    cls=RowmintGroup,
    help="Upload tables, train models of them, and stream synthetic rows.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"rowmint {version('rowmint')}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    *,
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
    trainer: Annotated[
        str | None, _setting("trainer", "Address of the trainer, host:port.", default=_DEFAULTS.trainer)
    ] = None,
    sampler: Annotated[
        str | None,
        _setting("sampler", "Address of the sampler; several, separated by commas.", default=str(_DEFAULTS.sampler)),
    ] = None,
    project: Annotated[str | None, _setting("project", "The project.", default=_DEFAULTS.project)] = None,
    balancing: Annotated[
        str | None,
        _setting(
            "balancing",
            "How one of several samplers is chosen: weighted (by the load it reports) or round_robin.",
            default=_DEFAULTS.balancing,
        ),
    ] = None,
    tls: Annotated[
        bool | None,
        _setting(
            "tls",
            "Use TLS; implied by --ca, --certificate, --key and --server-name.",
            "--tls/--no-tls",
        ),
    ] = None,
    authorities: Annotated[
        Path | None,
        _setting(
            "authorities",
            "PEM file of the authorities that issued the services' certificates; default: those this system trusts.",
            "--ca",
        ),
    ] = None,
    certificate: Annotated[Path | None, _setting("certificate", "PEM file of the client's certificate.")] = None,
    key: Annotated[Path | None, _setting("key", "PEM file of the certificate's private key.")] = None,
    server_name: Annotated[
        str | None,
        _setting("server_name", "Name in the services' certificates, where it is not their address."),
    ] = None,
    token_file: Annotated[
        Path | None,
        _setting("token_file", "File that holds an API key or bearer token; ROWMINT_TOKEN may hold it directly."),
    ] = None,
) -> None:
    """Upload tables, train models of them, and stream synthetic rows."""
    context.obj = partial(
        ClientSettings.load,
        {
            "trainer": trainer,
            "sampler": sampler,
            "project": project,
            "balancing": balancing,
            "tls": tls,
            "authorities": authorities,
            "certificate": certificate,
            "key": key,
            "server_name": server_name,
            "token_file": token_file,
        },
    )
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
app.command()(score)
app.add_typer(audit.app, name="audit")
app.command()(demo)


def main() -> None:
    """Run the `rowmint` command."""
    app()
