"""Writes the generated pages, and the client's data file, again: `python -m tests.docs`, or `make docs`."""

from tests.docs import configuration, errors, families, field_limits, hyperparameters, traceability
from tests.docs.pages import README

for page in (configuration, errors, families, field_limits, hyperparameters, traceability):
    page.PAGE.write_text(page.render(), encoding="utf-8")
README.write_text(families.readme(), encoding="utf-8")
