"""docs/families.md and README's table of families, from what each family declares."""

from rowmint.client.families import family_names
from tests.docs.pages import DOCS, GENERATED, README, text
from trainer_service.fitting.families import trainable_named
from trainer_service.fitting.families.markdown import families_markdown, hyperparameters_markdown

PAGE = DOCS / "families.md"
BEGIN, END = "<!-- generated: families -->\n", "<!-- end -->"

_TEMPLATE = """# Families

{generated}

The families of synthesizers that can be fitted, and the hyper-parameters of each. In the command they are options of
`rowmint train`, in Python keyword arguments of `Client.train`, in the contract fields of the family's message in
`protos/rowmint/v1/training_job.proto`. What *conditions*, *likelihood* and *privacy* mean is in `docs/concepts.md`.

{families}
{hyperparameters}"""


def render() -> str:
    """Return the page."""
    sections = (f"## {name}\n\n{hyperparameters_markdown(trainable_named(name))}" for name in family_names())
    return _TEMPLATE.format(generated=GENERATED, families=families_markdown(), hyperparameters="\n".join(sections))


def readme() -> str:
    """Return README's text with the table of families as it is generated now.

    Raises:
        ValueError: Its place is not marked.
    """
    before, begin, rest = text(README).partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md has no part between {BEGIN.strip()!r} and {END!r}")
    return f"{before}{begin}{families_markdown()}{end}{after}"
