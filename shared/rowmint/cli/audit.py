"""`rowmint audit`: read audit logs."""

from pathlib import Path
from typing import Annotated

import typer

from rowmint.cli.output import JsonOption, print_error, print_json, print_notice, print_table
from rowmint.security.audit_verify import Verdict, parse_head, verify

app = typer.Typer(help="Read audit logs.", no_args_is_help=True)


@app.callback()
def audit() -> None:
    """Read audit logs."""


@app.command("verify")
def verify_(
    path: Annotated[Path, typer.Argument(help="Folder of audit logs, or one file.", exists=True, resolve_path=True)],
    since: Annotated[
        list[str] | None,
        typer.Option(
            help="SEQUENCE:HASH of a record, noted earlier from the service's log or this command: records removed from"
            " the end since are found. May be repeated."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check audit logs. Records that were edited, removed, inserted or moved are reported, with exit code 1."""
    verdict = verify(path, [parse_head(text) for text in since or ()])
    if as_json:
        print_json(_verdict_json(verdict))
    else:
        _print_verdict(verdict)
    for problem in verdict.problems:
        print_error(str(problem))
    if verdict.problems:
        raise typer.Exit(1)


def _print_verdict(verdict: Verdict) -> None:
    rows = [
        (one.file, f"{one.records:,}", one.first_time, one.last_time, one.head if one.records else "")
        for one in verdict.files
    ]
    print_table(("file", "records", "first", "last", "head"), rows)
    for one in verdict.files:
        if one.torn_bytes:
            print_notice(
                f"{one.file}: {one.torn_bytes:,} bytes after the last record are incomplete: a write is in progress,"
                " or was interrupted"
            )


def _verdict_json(verdict: Verdict) -> dict[str, object]:
    return {
        "files": [
            {
                "file": one.file,
                "records": one.records,
                "first_time": one.first_time,
                "last_time": one.last_time,
                "head": str(one.head) if one.records else "",
                "torn_bytes": one.torn_bytes,
            }
            for one in verdict.files
        ],
        "problems": [{"file": one.file, "line": one.line, "message": one.message} for one in verdict.problems],
    }
