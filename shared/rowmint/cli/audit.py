"""`rowmint audit`: read audit logs."""

from pathlib import Path
from typing import Annotated

import typer

from rowmint.cli.output import JsonOption, print_error, print_json, print_notice, print_table
from rowmint.security.audit_chain import parse_head
from rowmint.security.audit_head import logged_heads
from rowmint.security.audit_verify import Finding, Verdict, verify

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
    log: Annotated[
        list[Path] | None,
        typer.Option(
            help="Log of a service, text or JSON: every record that it reported must be there. May be repeated.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check audit logs. Records that were edited, removed, inserted or moved are reported, with exit code 1."""
    logged = [head for one in log or () for head in logged_heads(one)]
    verdict = verify(path, [*(parse_head(text) for text in since or ()), *logged])
    if as_json:
        print_json(_verdict_json(verdict))
    else:
        _print_verdict(verdict)
    for notice in verdict.notices:
        print_notice(str(notice))
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
        "problems": list(map(_finding_json, verdict.problems)),
        "notices": list(map(_finding_json, verdict.notices)),
    }


def _finding_json(finding: Finding) -> dict[str, object]:
    return {"file": finding.file, "line": finding.line, "message": finding.message}
