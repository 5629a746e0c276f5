"""Whether a model makes rows: it is drawn from before it is published, and before it is served."""

from dataclasses import replace

from rowmint.artifact import Model
from rowmint.sampling.formats import RowFormat
from rowmint.sampling.plan import compile_plan
from rowmint.sampling.rows import RowSource
from rowmint.sampling.spec import SampleSpec
from rowmint.sampling.stream import open_stream


def draw_first_row(model: Model) -> None:
    """Make every column of row 0: look-up tables and kernels are made ready, and a model that cannot draw raises.

    What it raises depends on what is wrong with the model.
    """
    plan = compile_plan(model.digest, model.synthesizer, ())
    RowSource(model, plan, 0, model.schema.names).block(0, 1)


def verify_model(model: Model) -> None:
    """Make row 0 in every format, as a sampler would, so that nothing is published that cannot be sampled.

    What it raises depends on what is wrong with the model.
    """
    spec = SampleSpec(1, seed=0)
    for row_format in RowFormat:
        for _ in open_stream(model, replace(spec, row_format=row_format)).messages():
            pass
