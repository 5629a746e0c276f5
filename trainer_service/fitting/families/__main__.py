"""Prints the tables of families that the documentation holds: ``python -m trainer_service.fitting.families``."""

import sys

from trainer_service.fitting.families import family_named, family_names
from trainer_service.fitting.families.markdown import families_markdown, hyperparameters_markdown


def main() -> None:
    """Print the table of families, then that of each family's hyper-parameters."""
    parts = [families_markdown()]
    parts += [f"`{name}`\n\n{hyperparameters_markdown(family_named(name))}" for name in family_names()]
    sys.stdout.write("\n".join(parts))


if __name__ == "__main__":
    main()
