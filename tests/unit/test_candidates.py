"""The candidates of a choice among families: the rule that one replaces another by, and checkpoints of what is done."""

import pytest

from rowmint.artifact import Artifact
from tests.golden.make import stored
from trainer_service.fitting.candidates import CandidateResult, CandidateScore, Choice, Outcome


def score(auc: float, likelihood: float | None = None, error: float = 0.01) -> CandidateScore:
    return CandidateScore(auc, error, 100, likelihood)


@pytest.mark.parametrize(
    ("later", "kept", "replaced"),
    [
        (score(0.60), score(0.70), True),
        (score(0.70), score(0.60), False),
        # A tie, in either direction.
        (score(0.595), score(0.60), False),
        (score(0.605), score(0.60), False),
        (score(0.595, -3.0), score(0.60, -2.0), False),
        (score(0.605, -2.0), score(0.60, -3.0), True),
        (score(0.605, -2.0), score(0.60), False),
        (score(0.605), score(0.60, -2.0), False),
        # Both standard errors decide what a tie is: of the difference 0.05 here, of which a tie is two.
        (score(0.60, error=0.03), score(0.69, error=0.04), False),
        (score(0.60, error=0.03), score(0.71, error=0.04), True),
        (score(0.60), score(0.65, error=0.1), False),
        (score(0.60, error=0.1), score(0.65), False),
        # Below one half is chance.
        (score(0.40), score(0.50), False),
        (score(0.40, -2.0), score(0.505, -3.0), True),
    ],
)
def test_a_later_candidate_replaces_the_one_kept_only_if_it_is_better(
    later: CandidateScore, kept: CandidateScore, replaced: bool
) -> None:
    assert later.replaces(kept)[0] is replaced


def test_the_reason_says_what_was_compared() -> None:
    assert score(0.6, error=0.03).replaces(score(0.8, error=0.04))[1] == (
        "its AUC is 0.600, that of the one kept 0.800, standard error of the difference 0.050"
    )
    assert score(0.7).replaces(score(0.7))[1].endswith("a tie, in which the earlier stays")
    assert (
        score(0.7, -2)
        .replaces(score(0.7, -3))[1]
        .endswith("a tie, decided by held-out likelihood, -2.0000 against -3.0000 nats a row")
    )


def choice() -> Choice:
    return Choice(
        [
            CandidateResult("tvae", Outcome.FITTED, "there was none before it", 3.5, None, score(0.7, -2.0)),
            CandidateResult("ctgan", Outcome.SKIPPED, "no time is left", 1.0, 700.0),
            CandidateResult("independent", Outcome.FAILED, "too few rows", 0.5),
        ],
        kept=0,
        artifact=Artifact.of(*stored("tvae")),
        progress={"epoch": 3, "epochs": 3, "losses": {"loss": 0.5}, "rows_per_second": 7.5, "probe": {}},
        seconds=5.25,
        steps=17,
        begun=1,
    )


def test_a_checkpoint_gives_back_what_was_done() -> None:
    made = choice()
    assert Choice.from_bytes(made.to_bytes(b"of the candidate")) == (made, b"of the candidate")
    assert Choice.from_bytes(made.to_bytes()) == (made, None)
    assert Choice.from_bytes(Choice().to_bytes(b"of the first")) == (Choice(), b"of the first")


def test_a_checkpoint_of_something_else_is_refused() -> None:
    good = choice().to_bytes()
    other = good.replace(b'"format": 2', b'"format": 3')
    with pytest.raises(ValueError, match="it has format 3, this version writes 2"):
        Choice.from_bytes(other)
    for bad in (b"", good[:-9], good.replace(b"tvae", b"\xff\xff\xff\xff"), good.replace(b'"kept"', b'"gone"')):
        with pytest.raises(ValueError, match="malformed"):
            Choice.from_bytes(bad)
