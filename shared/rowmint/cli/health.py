"""`rowmint health`: whether a service serves, for whoever watches over it."""

from typing import Annotated, Literal

import typer

from rowmint.cli.output import Target
from rowmint.cli.serve import is_serving
from rowmint.errors import UnavailableError


def health(
    context: typer.Context, service: Annotated[Literal["trainer", "sampler"], typer.Argument(help="Which of the two.")]
) -> None:
    """Say whether a service serves: exit code 0 if it does, 1 if not."""
    target: Target = context.obj
    address = target.trainer if service == "trainer" else target.sampler
    with target.credentials().channel(address, address, ()) as channel:
        if not is_serving(channel):
            raise UnavailableError(f"the {service} at {address} is not serving")
    typer.echo("SERVING")
