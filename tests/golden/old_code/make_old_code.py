"""Makes `registry_0001.zip`: the registry's code as it was before the second revision of its schemas.

Run it in a clone that has the commit: ``python tests/golden/old_code/make_old_code.py``. What is in the file is what a
process still runs that was started before its database was migrated.
"""

import io
import subprocess
import tarfile
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
ARCHIVE = HERE / "registry_0001.zip"
COMMIT = "64936d3"
# What `import rowmint.registry` loads. The old revisions are not in it: old code makes no schema here.
PARTS = ("__init__.py", "errors.py", "names.py", "schema.py", "registry")


def main() -> None:
    """Write the file anew."""
    paths = [f"shared/rowmint/{part}" for part in PARTS]
    command = ["git", "archive", "--format=tar", COMMIT, "--", *paths]
    packed = subprocess.run(command, check=True, capture_output=True, cwd=HERE.parents[2]).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as source, zipfile.ZipFile(ARCHIVE, "w") as target:
        for member in sorted((member for member in source if member.isfile()), key=lambda found: found.name):
            # A fixed time, so that the same code gives the same file; compressed, so that a search and replace over the
            # repository finds nothing in it.
            entry = zipfile.ZipInfo(member.name.removeprefix("shared/"))
            target.writestr(entry, source.extractfile(member).read(), zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    main()
