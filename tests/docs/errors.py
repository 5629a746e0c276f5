"""docs/errors.md: every reason, from the contract's comments, the table of status codes, and what to do about each."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from rowmint.errors import Reason
from rowmint.rpc.status import CODES
from tests.docs.pages import DOCS, GENERATED, ROOT, table

PAGE = DOCS / "errors.md"
_CONTRACT = ROOT / "protos" / "rowmint" / "v1" / "error.proto"


@dataclass(frozen=True)
class Advice:
    """What a caller does about a reason.

    Attributes:
        again: Whether the same call may succeed later.
        action: What to do, without an end stop.
    """

    again: str
    action: str


_NO = "no"
_YES = "yes"
_RESUMED = "as a resumed call"
_LATER = "where it carries RetryInfo"

ADVICE: Mapping[Reason, Advice] = {
    Reason.INVALID_FIELD: Advice(_NO, "correct the field it names"),
    Reason.REQUEST_ID_REUSED: Advice(_NO, "take a new `request_id` for a new request"),
    Reason.RESOURCE_NOT_FOUND: Advice(_NO, "check the name; list what there is"),
    Reason.RESOURCE_EXISTS: Advice(_NO, "choose another id, or use what exists"),
    Reason.WRONG_STATE: Advice(_NO, "wait for the state the call needs, or bring it about"),
    Reason.EMPTY_STREAM: Advice(_NO, "send at least one message"),
    Reason.WRITE_OFFSET: Advice(_RESUMED, "resume from `committed_size`"),
    Reason.CHECKSUM: Advice(_RESUMED, "the bytes were damaged on the network: resume from `committed_size`"),
    Reason.DIGEST_MISMATCH: Advice(_NO, "the file changed, or was damaged on the network: upload it again"),
    Reason.FENCED: Advice(_NO, "stop: a newer writer has the upload or the job"),
    Reason.INVALID_DATA: Advice(_NO, "fix the line and column it names, or declare the dialect"),
    Reason.COLUMN_NOT_FOUND: Advice(_NO, "use one of the names it lists"),
    Reason.VALUE_NOT_FOUND: Advice(_NO, "use one of the values it lists; the model has seen no other"),
    Reason.INVALID_CONDITION: Advice(_NO, "the conditions exclude each other, or do not suit the column: change them"),
    Reason.ACCEPTANCE_TOO_LOW: Advice(
        _NO, "loosen the condition it names, or set `allow_partial`; rows before `next_row` were delivered"
    ),
    Reason.ROW_RANGE: Advice(_NO, "stay within the stream; a continued stream starts on the header's grid"),
    Reason.LIMIT: Advice(_LATER, "request less, try later, or raise the setting it names"),
    Reason.DATA_LOSS: Advice(_NO, "restore the stored bytes from a backup, or delete the version or dataset"),
    Reason.UNAVAILABLE: Advice(_YES, "try again after the time in RetryInfo, at another replica where there is one"),
    Reason.CANCELLED: Advice(_NO, "nothing: the caller, or another one, cancelled it"),
    Reason.INTERNAL: Advice(_NO, "report it with the log's entry of that `error_id`"),
    Reason.TRAINING_FAILED: Advice(_NO, "change the configuration as the message says"),
    Reason.STREAM_MISMATCH: Advice(_NO, "the model or plan differs from the header's: start the stream again"),
    Reason.UNAUTHENTICATED: Advice(
        _LATER,
        "send a valid API key or token, or present a certificate; a call that ran when its credentials ended carries"
        " RetryInfo: resume it with new ones",
    ),
    Reason.PERMISSION_DENIED: Advice(_NO, "have the service's administrator grant the role that the message names"),
    Reason.UNTRUSTED_MODEL: Advice(_NO, "have the version signed (`rowmint models sign`), or name one that is"),
}

_TEMPLATE = """# Errors

{generated}

Every failed call carries a `google.rpc.ErrorInfo` of domain `rowmint` with one of these reasons. Beside it are, where
they apply, a `google.rpc.BadRequest` with the fields at fault and a `google.rpc.RetryInfo` with the time after which
the same call may succeed; gRPC's own retry reads the trailer `grpc-retry-pushback-ms`, which says the same. The message
of the status is one line: what happened, where, and what to do next. A failed job has the same reasons in its `error`.

A failure without an ErrorInfo of this domain came from the network or a proxy: resume, or call again. The Python client
does so by itself; it raises `RowmintCallError` with `code`, `reason`, `message`, `metadata`, `violations` and
`retry_after`. Over JSON the body is the `google.rpc.Status`, details included.

{reasons}

Metadata are texts for programs. Texts longer than 200 bytes are cut. Neither messages nor metadata hold a secret, a
path, or a cell beyond those the caller sent and those the model's schema shows to its readers.
"""


def contract() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return what the contract's comments say of each reason: its meaning, and the names of its metadata."""
    found = {}
    source = _CONTRACT.read_text(encoding="utf-8")
    for comment, name in re.findall(r"((?: *//.*\n)+) *ERROR_REASON_(\w+) = \d+;", source):
        said = " ".join(line.strip().removeprefix("//").strip() for line in comment.splitlines())
        meaning, _, metadata = said.partition(" Metadata: ")
        found[name] = (meaning, tuple(re.findall(r"`(\w+)`", metadata)))
    return found


def render() -> str:
    """Return the page."""
    said = contract()
    rows = []
    for reason in Reason:
        meaning, metadata = said[reason.value]
        advice = ADVICE[reason]
        keys = ", ".join(f"`{key}`" for key in metadata)
        rows.append((f"`{reason.value}`", CODES[reason].name, advice.again, meaning, keys, advice.action))
    reasons = table(("reason", "gRPC status", "again?", "meaning", "metadata", "what to do"), rows)
    return _TEMPLATE.format(generated=GENERATED, reasons=reasons)
