"""Writes the generated pages again: `python -m tests.docs`, or `make docs`."""

from tests.docs import configuration, errors, traceability

for page in (configuration, errors, traceability):
    page.PAGE.write_text(page.render(), encoding="utf-8")
