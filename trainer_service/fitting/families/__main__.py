"""Prints the tables of families that the documentation holds: ``python -m trainer_service.fitting.families``."""

import sys

from trainer_service.fitting.families import trainables
from trainer_service.fitting.families.markdown import families_markdown, hyperparameters_markdown


def main() -> None:
    """Print the table of what can be trained, then that of the hyper-parameters of each."""
    parts = [families_markdown()]
    parts += [f"`{one.name}`\n\n{hyperparameters_markdown(one)}" for one in trainables()]
    sys.stdout.write("\n".join(parts))


if __name__ == "__main__":
    main()
