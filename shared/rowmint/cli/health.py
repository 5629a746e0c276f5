"""`rowmint health`: whether a service serves, for health checks."""

from typing import Annotated, Literal

import typer

from rowmint.cli.output import client_settings
from rowmint.cli.serve import is_serving
from rowmint.errors import UnavailableError


def health(
    context: typer.Context, service: Annotated[Literal["trainer", "sampler"], typer.Argument(help="The service.")]
) -> None:
    """Check whether a service is serving. The exit code is 0 if it is, 1 if not."""
    settings = client_settings(context)
    address = settings.trainer if service == "trainer" else str(settings.sampler)
    with settings.credentials().channel(address, address, ()) as channel:
        if not is_serving(channel):
            raise UnavailableError(f"the {service} at {address} is not serving")
    typer.echo("SERVING")
