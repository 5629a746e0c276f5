"""`rowmint sample` and `rowmint complete`: synthetic rows, and the unknown cells of rows."""

import csv
import json
from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import typer

from rowmint.cli.cells import csv_field, csv_line, json_object
from rowmint.cli.models import VersionArgument
from rowmint.cli.output import connect, message_json, print_json, print_notice, print_table, progress_bar
from rowmint.cli.row_streams import OutputOption, open_input, open_output, read_partial_rows
from rowmint.client import CompletedRow, SamplePlan, SampleStream
from rowmint.client.row_files import file_format
from rowmint.client.values import text_column
from rowmint.schema import ColumnSpec

_MANY_ROWS = 1_000_000
"""Rows from which on a stream shows its progress in logs."""


def sample(
    context: typer.Context,
    *,
    model: VersionArgument,
    rows: Annotated[int, typer.Option("--rows", "-n", help="Number of rows of the whole stream.")],
    output: OutputOption = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            "-w",
            help="Conditions that each row satisfies: 'origin = JFK', 'dep_delay between 60 and 90',"
            " 'carrier in (AA, UA)', 'x != 1', 'x is null', '\"build year\" > 24', joined by `and`. May be repeated;"
            " all must hold.",
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            help="Shares of a column's values among the rows, for models that meet conditions exactly: 'income ="
            " <=50K:50, >50K:50', 'age = ..30:1, 30..60:2, 60..:1' (from the lower bound to below the upper),"
            " 'carrier = AA|UA:3, null:1'. What has no share never occurs."
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="Columns delivered, separated by commas; a name with a comma in double quotes. Default: all."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the stream. Default: one is drawn, and printed.")] = None,
    start_row: Annotated[int | None, typer.Option(help="First row delivered. Default: 0.")] = None,
    end_row: Annotated[int | None, typer.Option(help="Row after the last one delivered. Default: --rows.")] = None,
    format: Annotated[  # noqa: A002  # the option's name
        str | None,
        typer.Option(
            help="csv, tsv, ndjson, json, arrow (stream), feather (Arrow file) or parquet. Default: by the suffix of"
            " --output, else csv."
        ),
    ] = None,
    allow_partial: Annotated[
        bool,
        typer.Option("--allow-partial", help="Leave out rows whose candidate budget is exhausted."),
    ] = False,
    escape_formulas: Annotated[
        bool,
        typer.Option("--escape-formulas", help="CSV: put an apostrophe before cells that look like formulas."),
    ] = False,
    max_reuse: Annotated[
        int | None,
        typer.Option(
            help="Most rows that may share a candidate, a power of two up to 64: faster under rare conditions, and the"
            " rows are not independent. Default: 1."
        ),
    ] = None,
    parallel: Annotated[
        int,
        typer.Option(help="Calls read at once, 1 to 64; the rows are the same, read faster."),
    ] = 1,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan", help="Print what the stream would be made of, such as the probability of the conditions; no rows."
        ),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="With --output, print a report in JSON; with --plan, the plan; without, write the rows as JSON lines.",
        ),
    ] = False,
) -> None:
    """Stream synthetic rows. Every row satisfies the conditions exactly."""
    to_stdout = output is None or output == "-"
    if format is None and to_stdout and as_json:
        format = "ndjson"  # noqa: A001
    written = file_format(format, None if to_stdout else output)
    with connect(context) as client:
        request = client.sample_request(
            model,
            rows,
            where=where,
            weights=weights,
            columns=() if columns is None else _column_names(columns),
            seed=seed,
            start_row=start_row,
            end_row=end_row,
            format=written.streamed,
            allow_partial=allow_partial,
            csv_escape_formulas=escape_formulas,
            max_reuse=max_reuse,
        )
        if plan:
            _print_plan(client.plan_sample(request), as_json)
            return
        with client.sample_stream(request, parallel) as stream:
            with (
                open_output(output) as file,
                progress_bar(f"sampling {model}", quiet=as_json, least=_MANY_ROWS) as bar,
            ):
                written.write(stream, file, lambda done, total: bar.update(done, total, f"{done:,} rows"))
            _report(stream, output, as_json, to_stdout)


def _print_plan(plan: SamplePlan, as_json: bool) -> None:
    facts = {
        "condition_probability": plan.condition_probability,
        "acceptance": plan.acceptance,
        "conditioned_column": plan.conditioned_column,
        "tile_size": plan.tile_size,
        "block_size": plan.block_size,
        "tile_budget": plan.tile_budget,
    }
    if as_json:
        print_json({**facts, "header": message_json(plan.header)})
        return
    header = plan.header
    named = {
        "model version": header.model_version,
        "seed": header.seed,
        "plan digest": header.plan_digest.hex(),
        "distinct candidates": f"{header.distinct_candidates:,}",
        "rows per candidate": header.rows_per_candidate,
    }
    shown = {name.replace("_", " "): "unknown" if fact is None else fact for name, fact in facts.items()}
    print_table(("plan", ""), [(name, fact) for name, fact in (named | shown).items() if fact != ""])


def _column_names(text: str) -> list[str]:
    """Return the names in a line of CSV."""
    return [name.strip() for name in next(csv.reader([text], skipinitialspace=True))]


def _report(stream: SampleStream, output: str | None, as_json: bool, to_stdout: bool) -> None:
    missing = sum(one.end_row - one.start_row for one in stream.missing)
    header = stream.header
    if as_json and not to_stdout:
        report = {
            "output": output,
            "rows": stream.rows_requested - missing,
            "missing": missing,
            "candidates": stream.candidates,
            "accepted": stream.accepted,
            "distinct_candidates": stream.distinct_candidates,
            "rows_per_candidate": stream.rows_per_candidate,
            "resumes": stream.resumes,
            "header": message_json(header),
        }
        print_json(report)
    elif not as_json:
        facts = [f"{stream.rows_requested - missing:,} rows of {header.model_version}", f"seed {header.seed}"]
        if stream.acceptance is not None and stream.acceptance < 1:
            facts.append(f"{stream.acceptance:.1%} of {stream.candidates:,} candidates accepted")
        if stream.rows_per_candidate > 1:
            facts.append(
                f"from {stream.distinct_candidates:,} candidates, each for up to {stream.rows_per_candidate} rows"
            )
        if missing:
            facts.append(f"{missing:,} rows missing")
        if stream.resumes:
            facts.append(f"resumed {stream.resumes} time{'s' if stream.resumes > 1 else ''}")
        print_notice(", ".join(facts))


def _json_row(row: CompletedRow, columns: Sequence[ColumnSpec]) -> bytes:
    facts = {
        "row": row.row,
        "support": row.support,
        "effective_sample_size": row.effective_sample_size,
        "tolerance": row.tolerance,
    }
    return f'{json.dumps(facts)[:-1]}, "values": {json_object(row, columns)}}}\n'.encode()


def complete(
    context: typer.Context,
    *,
    model: VersionArgument,
    file: Annotated[
        str, typer.Argument(help="CSV of the known cells, empty where unknown; - for standard input.")
    ] = "-",
    output: OutputOption = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the rows. Default: one is drawn.")] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="Kernel width for known numbers, in standard deviations. Default: 0.1.")
    ] = None,
    candidates: Annotated[int | None, typer.Option(help="Candidates compared for each row. Default: 4096.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write each row as a JSON object, with its effective sample size.")
    ] = False,
) -> None:
    """Complete rows of which some cells are known. The other cells are drawn from the model given those."""
    with connect(context) as client:
        version = client.get_version(model)
        columns = [text_column(column) for column in version.schema.columns]
        names = [column.name for column in columns]
        done, found = 0, Counter[str]()
        with (
            open_input(file) as source,
            progress_bar(f"completing with {model}", quiet=as_json) as bar,
            client.complete_rows(
                version, read_partial_rows(source, names), seed=seed, tolerance=tolerance, candidates=candidates
            ) as stream,
            open_output(output) as sink,
        ):
            if not as_json:
                sink.write((",".join(map(csv_field, names)) + "\n").encode())
            for row in stream:
                if as_json:
                    sink.write(_json_row(row, columns))
                else:
                    sink.write(csv_line(row, columns).encode())
                done += 1
                found[row.support] += 1
                bar.update(done, None, f"{done:,} rows")
    if not as_json:
        if found["widened"]:
            print_notice(f"of {found['widened']:,} rows the known cells are only near to what was learned")
        if found["unsupported"]:
            print_notice(
                f"of {found['unsupported']:,} rows the known cells are outside what was learned: they say little about"
                " the other cells"
            )
        print_notice(f"{done:,} rows completed with {version.name}")
