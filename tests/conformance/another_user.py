"""Reads a registry of SQLite files as another user, each time it is requested.

``python another_user.py URL UID GID`` answers each line on its input with a line: the number of the model's latest
version, or what is wrong. Everything is imported and used once before the user is changed, as the other one may not be
able to read where Python's modules are. Where this user cannot change, it reads as the one that it is.
"""

import json
import os
import sys
import tempfile

from rowmint.errors import RowmintError
from rowmint.names import ModelName
from rowmint.registry import ModelLedger, migrate, open_models_registry, open_registry

MODEL = ModelName("p", "m")


def latest(models: ModelLedger) -> int | str | None:
    """Return the number of the latest version, or the message of what is wrong."""
    try:
        return models.get(MODEL).latest
    except RowmintError as error:
        return error.message


def main(url: str, uid: str, gid: str) -> None:
    """Answer until the input ends."""
    with tempfile.TemporaryDirectory() as folder:
        first = open_registry(f"sqlite:///{folder}")
        migrate(first.engine)
        latest(first.models)
        first.close()
    if os.geteuid() == 0:
        os.setgroups([int(gid)])
        os.setgid(int(gid))
        os.setuid(int(uid))
    reader = open_models_registry(url)
    sys.stdout.write(json.dumps(os.getuid()) + "\n")
    sys.stdout.flush()
    for _ in sys.stdin:
        sys.stdout.write(json.dumps(latest(reader.models)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
