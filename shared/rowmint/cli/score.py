"""`rowmint score`: how probable rows are under a model."""

import json
import math
from typing import Annotated

import typer

from rowmint.cli.models import VersionArgument
from rowmint.cli.output import connect, print_notice, progress_bar
from rowmint.cli.row_streams import OutputOption, open_input, open_output, read_partial_rows
from rowmint.client import RowScore


def _json_line(score: RowScore) -> str:
    number = None if score.impossible else score.log_probability
    return json.dumps({"row": score.row, "log_probability": number, "impossible": score.impossible}) + "\n"


def score(
    context: typer.Context,
    *,
    model: VersionArgument,
    file: Annotated[
        str, typer.Argument(help="CSV of the rows, empty where a cell is not known; - for standard input.")
    ] = "-",
    output: OutputOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write each score as a JSON object; of an impossible row it is null.")
    ] = False,
) -> None:
    """Write the log-probability of each row under the model, in nats; -inf for one that it never makes.

    Cells that are not known are summed over. The model's family must have exact likelihoods, as circuit has.
    """
    with connect(context) as client:
        version = client.get_version(model)
        names = [column.name for column in version.schema.columns]
        done, impossible, total = 0, 0, 0.0
        with (
            open_input(file) as source,
            progress_bar(f"scoring with {model}", quiet=as_json) as bar,
            client.score_rows(version, read_partial_rows(source, names)) as stream,
            open_output(output) as sink,
        ):
            if not as_json:
                sink.write(b"log_probability\n")
            for one in stream:
                sink.write((_json_line(one) if as_json else f"{one.log_probability!r}\n").encode())
                done += 1
                impossible += one.impossible
                total += 0.0 if one.impossible else one.log_probability
                bar.update(done, None, f"{done:,} rows")
    if not as_json:
        if impossible:
            print_notice(f"{impossible:,} rows are impossible: the model never makes them")
        mean = total / (done - impossible) if done > impossible else math.nan
        print_notice(f"{done:,} rows scored with {version.name}, on average {mean:.4f} nats a possible row")
