"""The `rowmint` command as a module: ``python -m rowmint.cli``."""

from rowmint.cli import main

if __name__ == "__main__":
    main()
