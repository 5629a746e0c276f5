"""A choice among families: what is begun, compared, kept, recorded, resumed; and what fails."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rowmint.artifact import Artifact, read_manifest
from rowmint.errors import CancelledError, InvalidFieldError, TrainingFailedError, UnavailableError
from tests.tables_to_fit import DIGEST, SMALL_EXPORT, TVAE, fit_table, full_table, load
from trainer_service.config import TrainingConfig
from trainer_service.fitting import auto, families
from trainer_service.fitting.auto import AutoFit
from trainer_service.fitting.candidates import RULE, CandidateScore, Choice
from trainer_service.fitting.context import FitContext
from trainer_service.fitting.encoding.table import Holdout, Table
from trainer_service.fitting.engine import estimate
from trainer_service.fitting.families.auto.config import AutoConfig
from trainer_service.fitting.families.independent import INDEPENDENT
from trainer_service.fitting.families.tvae import TVAE as TVAE_FAMILY
from trainer_service.fitting.families.tvae.config import TvaeConfig
from trainer_service.fitting.monitoring.progress import FitEvent, Phase
from trainer_service.fitting.monitoring.two_sample import TwoSampleScore

TABLE = full_table(400).only("city", "state", "age", "price")
SMALL = full_table(60).only("city", "age")


class TinyConfig(TvaeConfig):
    """A network that is fitted in a moment."""

    def __init__(self) -> None:
        super().__init__(**dataclasses.asdict(TVAE))


TINY = dataclasses.replace(TVAE_FAMILY, config=TinyConfig)


@pytest.fixture(autouse=True)
def _tiny_families(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "FAMILIES", (TINY, INDEPENDENT))


def config(*names: str, seconds: int = 600, **fields: Any) -> TrainingConfig:
    return TrainingConfig(AutoConfig(seconds, names), **{"seed": 5, "probe_epochs": 1, **fields})


def said(artifact: Artifact) -> dict[str, Any]:
    found: dict[str, Any] = read_manifest(artifact.manifest, artifact.manifest_digest)["training"]["auto"]
    return found


class Kept:
    """Keeps checkpoints in memory; stops the fit after so many of them."""

    def __init__(self, stop_after: int | None = None, newest: bytes | None = None) -> None:
        self.newest = newest
        self.numbers: list[int] = []
        self._stop_after = stop_after

    @property
    def stopped(self) -> bool:
        return self._stop_after is not None and len(self.numbers) >= self._stop_after

    def load(self) -> bytes | None:
        return self.newest

    def due(self) -> bool:
        return not self.stopped

    def save(self, step: int, data: bytes) -> None:
        self.newest = data
        self.numbers.append(step)


def chosen(
    requested: TrainingConfig, folder: Path, kept: Kept | None = None, table: Any = TABLE
) -> tuple[Artifact, list[FitEvent]]:
    folder.mkdir(exist_ok=True)
    events: list[FitEvent] = []
    stopped = (lambda: False) if kept is None else (lambda: kept.stopped)
    return fit_table(table, requested, folder, events.append, stopped, checkpoints=kept), events


def lasting(body: Any) -> Any:
    """Return a JSON value without what differs between two fits that are the same."""
    if isinstance(body, Mapping):
        return {
            name: lasting(value)
            for name, value in body.items()
            if name not in ("seconds", "estimated_seconds", "duration_seconds", "resumed_steps")
        }
    return [lasting(one) for one in body] if isinstance(body, list) else body


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, list[FitEvent]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(families, "FAMILIES", (TINY, INDEPENDENT))
        return chosen(config("independent", "tvae"), tmp_path_factory.mktemp("whole"))


def test_candidates_are_fitted_and_compared_and_the_manifest_says_how(whole: tuple[Artifact, list[FitEvent]]) -> None:
    artifact, _ = whole
    found = said(artifact)
    assert [one["family"] for one in found["candidates"]] == ["independent", "tvae"]
    assert [one["outcome"] for one in found["candidates"]] == ["fitted", "fitted"]
    first, second = (one["score"] for one in found["candidates"])
    assert found["comparison"] == {"rows": first["rows"], "missing": "", "rule": RULE}
    # 400 rows: 18.75 % are kept out, so that 75 are expected.
    assert 50 <= first["rows"] == second["rows"] <= 100
    assert all(0.4 < one["auc"] <= 1 and 0 <= one["standard_error"] < 0.1 for one in (first, second))
    better = CandidateScore(**second).replaces(CandidateScore(**first))[0]
    assert found["chosen"] == ("tvae" if better else "independent")
    assert found["candidates"][0]["estimated_seconds"] is None
    assert found["candidates"][1]["estimated_seconds"] > 0
    assert (found["seconds_allowed"], found["seconds"] > 0) == (600, True)


def test_the_model_is_one_of_the_family_that_is_kept(whole: tuple[Artifact, list[FitEvent]]) -> None:
    artifact, _ = whole
    body = json.loads(artifact.manifest)
    kept = body["training"]["auto"]["chosen"]
    assert body["generator"]["family"] == body["training"]["family"] == kept
    assert body["capabilities"] == families.family_named(kept).capabilities.to_json()
    assert body["training"]["config"]["holdout_fraction"] == body["training"]["holdout"]["fraction"] == 0.1875
    assert kept in body["training"]["config"]
    assert load(artifact).digest == artifact.model_digest


def test_the_model_is_that_of_the_family_fitted_alone(whole: tuple[Artifact, list[FitEvent]], tmp_path: Path) -> None:
    artifact, _ = whole
    family = families.family_named(said(artifact)["chosen"])
    alone = config("independent", "tvae").candidate(family, 0.1875)
    assert fit_table(TABLE, alone, tmp_path).model_digest == artifact.model_digest


def test_events_name_the_candidate_and_come_in_phases(whole: tuple[Artifact, list[FitEvent]]) -> None:
    artifact, events = whole
    phases = [event.phase for event in events]
    assert list(dict.fromkeys(phases)) == [Phase.ENCODING, Phase.FITTING, Phase.VERIFYING]
    assert phases == sorted(phases, key=list(Phase).index)
    messages = [event.message for event in events if event.message]
    assert messages[0].endswith("rows kept out of training compare 2 candidates")
    assert any(message.startswith("independent (1 of 2): encoding") for message in messages)
    assert any(message.startswith("tvae (2 of 2): fitting tvae") for message in messages)
    assert any(message.startswith("tvae fitted, C2ST AUC 0.") for message in messages)
    kept = said(artifact)["chosen"]
    assert messages[-1] == f"{kept} is kept, of independent, tvae"
    assert [event.epoch for event in events if event.losses][:2] == [1, 2]
    # The progress reported last is that of the model that is kept.
    training = read_manifest(artifact.manifest)["training"]
    assert (events[-1].losses, events[-1].epoch) == (training["final_losses"], training["epochs"])
    assert (events[-1].rows_per_second > 0) == bool(events[-1].losses)


@pytest.mark.parametrize("saved", [2, 3, 4, 7, 11])
def test_a_choice_is_resumed_in_the_candidate_that_was_fitted(
    whole: tuple[Artifact, list[FitEvent]], saved: int, tmp_path: Path
) -> None:
    first = Kept(stop_after=saved)
    with pytest.raises(CancelledError):
        chosen(config("independent", "tvae"), tmp_path / "first", first)
    assert first.newest is not None
    second = Kept(newest=first.newest)
    artifact, events = chosen(config("independent", "tvae"), tmp_path / "second", second)
    assert lasting(read_manifest(artifact.manifest)) == lasting(read_manifest(whole[0].manifest))
    assert artifact.weights == whole[0].weights
    messages = [event.message for event in events]
    assert "resumed: independent had been done" in messages
    assert not any("independent (1 of 2)" in message for message in messages)
    assert any(message == f"tvae (2 of 2): resumed after {saved - 4} steps" for message in messages) == (saved > 3)
    numbers = [*first.numbers, *second.numbers]
    assert numbers == list(range(1, len(numbers) + 1))
    # Seconds of the earlier attempt count.
    assert said(artifact)["seconds"] > Choice.from_bytes(first.newest)[0].seconds


def test_a_choice_that_is_done_is_not_made_again(tmp_path: Path, whole: tuple[Artifact, list[FitEvent]]) -> None:
    kept = Kept()
    chosen(config("independent", "tvae"), tmp_path / "first", kept)
    again = Kept(newest=kept.newest)
    artifact, events = chosen(config("independent", "tvae"), tmp_path / "second", again)
    assert lasting(read_manifest(artifact.manifest)) == lasting(read_manifest(whole[0].manifest))
    assert "resumed: independent, tvae had been done" in [event.message for event in events]
    assert again.numbers == []


def test_a_checkpoint_that_cannot_be_used_is_left_aside(whole: tuple[Artifact, list[FitEvent]], tmp_path: Path) -> None:
    artifact, events = chosen(config("independent", "tvae"), tmp_path, Kept(newest=b"of another version"))
    assert lasting(read_manifest(artifact.manifest)) == lasting(read_manifest(whole[0].manifest))
    assert any(event.message.startswith("begun again: the checkpoint cannot be used") for event in events)


def test_a_table_too_small_to_compare_keeps_the_first_candidate(tmp_path: Path) -> None:
    artifact, events = chosen(config("tvae", "independent"), tmp_path, table=SMALL)
    found = said(artifact)
    assert [(one["family"], one["outcome"], one["score"]) for one in found["candidates"]] == [
        ("tvae", "fitted", None),
        ("independent", "skipped", None),
    ]
    missing = found["comparison"]["missing"]
    assert missing.endswith("of 60 rows out of training, 50 are needed to compare")
    assert (found["comparison"]["rows"], found["candidates"][1]["reason"]) == (0, f"not compared: {missing}")
    # Then nothing is kept out of training for it.
    assert read_manifest(artifact.manifest)["training"]["rows"] == 60
    assert events[0].message == f"the first candidate that can be fitted is kept: {missing}"


def test_rows_kept_out_are_as_requested(tmp_path: Path) -> None:
    artifact, _ = chosen(config("independent", holdout_fraction=0.4), tmp_path)
    training = read_manifest(artifact.manifest)["training"]
    assert training["holdout"]["fraction"] == 0.4
    assert training["auto"]["comparison"]["rows"] == 400 - training["rows"]


def test_an_estimate_sums_the_candidates_that_fit_into_the_time(tmp_path: Path) -> None:
    path = TABLE.write(tmp_path / "t.parquet")
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def estimated(requested: TrainingConfig) -> Any:
        # A clock that ticks at every look: the same for every estimate of the same.
        ticks = iter(range(10_000))
        return estimate(path, TABLE.schema, requested, scratch, clock=lambda: float(next(ticks)), export=SMALL_EXPORT)

    both, first = estimated(config("tvae", "independent")), estimated(config("tvae", "independent", seconds=1))
    alone = [estimated(config("tvae", "independent").candidate(family, 0.1875)) for family in (TINY, INDEPENDENT)]
    assert both.total_seconds == pytest.approx(sum(one.total_seconds for one in alone))
    assert first.total_seconds == alone[0].total_seconds
    assert both.encoded_width == max(one.encoded_width for one in alone)
    assert both.peak_memory_bytes == max(one.peak_memory_bytes for one in alone)
    assert both.steps_per_epoch == 0
    assert [path for path in scratch.iterdir() if path.is_dir()] == []


# From here on fits are given and so are their scores.


@dataclass
class Given:
    """What fits and estimates give, and a clock that only they move.

    Attributes:
        artifacts: By family, or what fitting it raises.
        took: Seconds that a fit takes, by family.
        estimates: Seconds that it is estimated to take, by family.
        areas: By the order of the comparisons.
        now: The clock.
        begun: The candidates begun, in order.
    """

    artifacts: Mapping[str, Artifact | BaseException]
    took: Mapping[str, float] = field(default_factory=dict)
    estimates: Mapping[str, float] = field(default_factory=dict)
    areas: list[float] = field(default_factory=list)
    now: float = 0.0
    begun: list[str] = field(default_factory=list)

    def fit(self, requested: TrainingConfig, _context: FitContext) -> Artifact:
        name = requested.family_name
        self.begun.append(name)
        self.now += self.took.get(name, 1.0)
        found = self.artifacts[name]
        if isinstance(found, BaseException):
            raise found
        return found

    def estimate(self, requested: TrainingConfig, _folder: Path) -> float:
        return self.estimates.get(requested.family_name, 1.0)

    def two_sample(self, *_: Any, **__: Any) -> TwoSampleScore:
        return TwoSampleScore(self.areas.pop(0), 0.01, 80)


class OtherConfig(TinyConfig):
    """Another family of the same kind."""


@pytest.fixture
def run(
    whole: tuple[Artifact, list[FitEvent]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Artifact]:
    other = dataclasses.replace(TINY, name="other", config=OtherConfig)
    monkeypatch.setattr(families, "FAMILIES", (TINY, INDEPENDENT, other))
    path = TABLE.write(tmp_path / "t.parquet")
    table = Table(path, TABLE.schema.columns, Holdout.none())
    assert pq.read_metadata(path).num_rows == 400

    def run(given: Given, requested: TrainingConfig, kept: Kept | None = None) -> Artifact:
        monkeypatch.setattr(auto, "two_sample", given.two_sample)
        checkpoints = Kept() if kept is None else kept
        context = FitContext(tmp_path, requested.seed, checkpoints=checkpoints, clock=lambda: given.now)
        return AutoFit(table, requested, DIGEST, context, fit=given.fit, estimate=given.estimate).run()

    return run


@pytest.fixture
def models(whole: tuple[Artifact, list[FitEvent]]) -> dict[str, Artifact | Exception]:
    """Whatever: which model is kept is read in the manifest."""
    return dict.fromkeys(("tvae", "independent", "other"), whole[0])


def outcomes(artifact: Artifact) -> list[tuple[str, str]]:
    return [(one["family"], one["outcome"]) for one in said(artifact)["candidates"]]


@pytest.mark.parametrize(
    ("areas", "kept"),
    [([0.9, 0.8, 0.7], "other"), ([0.7, 0.8, 0.9], "tvae"), ([0.9, 0.7, 0.8], "independent"), ([0.7] * 3, "tvae")],
)
def test_the_best_candidate_is_kept(
    run: Callable[..., Artifact], models: dict[str, Artifact | Exception], areas: list[float], kept: str
) -> None:
    artifact = run(Given(models, areas=list(areas)), config("tvae", "independent", "other"))
    assert said(artifact)["chosen"] == kept
    assert [one["score"]["auc"] for one in said(artifact)["candidates"]] == areas


def test_a_candidate_is_begun_only_if_its_estimate_fits_into_what_is_left(
    run: Callable[..., Artifact], models: dict[str, Artifact | Exception]
) -> None:
    given = Given(
        models, took={"tvae": 70.0}, estimates={"independent": 31.0, "other": 30.0}, areas=[0.9, 0.8], now=1000.0
    )
    artifact = run(given, config("tvae", "independent", "other", seconds=100))
    assert given.begun == ["tvae", "other"]
    assert outcomes(artifact) == [("tvae", "fitted"), ("independent", "skipped"), ("other", "fitted")]
    skipped = said(artifact)["candidates"][1]
    assert skipped["reason"] == "its estimate is 31 s, and of 100 s only 30 s are left"
    assert (skipped["estimated_seconds"], skipped["score"]) == (31.0, None)
    assert [one["seconds"] for one in said(artifact)["candidates"]] == [70.0, 0.0, 1.0]
    assert said(artifact)["seconds"] == 71.0


def test_the_first_candidate_is_begun_whatever_it_takes(
    run: Callable[..., Artifact], models: dict[str, Artifact | Exception]
) -> None:
    given = Given(models, took={"tvae": 70.0}, areas=[0.9])
    artifact = run(given, config("tvae", "independent", seconds=1))
    assert outcomes(artifact) == [("tvae", "fitted"), ("independent", "skipped")]
    assert said(artifact)["candidates"][1]["reason"] == "its estimate is 1 s, and of 1 s only 0 s are left"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TrainingFailedError("the fit diverged"), "the fit diverged"),
        (InvalidFieldError("training_job.dataset", "has too few rows"), "training_job.dataset: has too few rows"),
        (MemoryError(), "not enough memory"),
        (ZeroDivisionError("in a library"), "ZeroDivisionError; the trainer's log says more"),
    ],
)
@pytest.mark.parametrize("failing", ["tvae", "independent"])
def test_a_candidate_that_fails_is_recorded_and_the_others_are_fitted(
    run: Callable[..., Artifact],
    models: dict[str, Artifact | Exception],
    error: Exception,
    reason: str,
    failing: str,
) -> None:
    names = ("tvae", "independent", "other")
    artifact = run(Given({**models, failing: error}, areas=[0.8, 0.9]), config(*names))
    found = said(artifact)
    assert outcomes(artifact) == [(name, "failed" if name == failing else "fitted") for name in names]
    assert [one["reason"] for one in found["candidates"] if one["family"] == failing] == [reason]
    assert found["chosen"] == next(name for name in names if name != failing)


def test_a_model_that_cannot_be_loaded_is_a_failure(
    run: Callable[..., Artifact], models: dict[str, Artifact | Exception], whole: tuple[Artifact, list[FitEvent]]
) -> None:
    damaged = dataclasses.replace(whole[0], weights=whole[0].weights[:-1])
    artifact = run(Given({**models, "tvae": damaged}, areas=[0.8]), config("tvae", "independent"))
    assert outcomes(artifact) == [("tvae", "failed"), ("independent", "fitted")]


class Killed(BaseException):
    """What ends the process of a fit, as the kernel does where memory runs out."""


def test_a_candidate_that_ends_attempts_is_passed_over(
    run: Callable[..., Artifact], models: dict[str, Artifact | Exception]
) -> None:
    kept = Kept()
    given = Given({**models, "independent": Killed()}, areas=[0.8, 0.9])
    requested = config("tvae", "independent", "other")
    for _ in range(2):
        with pytest.raises(Killed):
            run(given, requested, kept)
    artifact = run(given, requested, kept)
    assert given.begun == ["tvae", "independent", "independent", "other"]
    assert outcomes(artifact) == [("tvae", "fitted"), ("independent", "failed"), ("other", "fitted")]
    assert said(artifact)["candidates"][1]["reason"].startswith("2 attempts have ended in it")
    assert said(artifact)["chosen"] == "tvae"
    assert kept.numbers == sorted(kept.numbers)


def test_where_all_candidates_fail_the_job_says_why(run: Callable[..., Artifact]) -> None:
    failures = {"tvae": TrainingFailedError("it diverged"), "independent": TrainingFailedError("column 'x' is bad")}
    with pytest.raises(TrainingFailedError) as caught:
        run(Given(failures), config("tvae", "independent"))
    assert caught.value.message == "no candidate could be fitted: tvae: it diverged; independent: column 'x' is bad"


@pytest.mark.parametrize(
    "error", [CancelledError("the fit was cancelled"), UnavailableError("the store is away"), OSError(28, "disk full")]
)
def test_what_ends_the_job_is_no_failure_of_a_candidate(
    run: Callable[..., Artifact], models: dict[str, Artifact | Exception], error: Exception
) -> None:
    given = Given({**models, "tvae": error})
    with pytest.raises(type(error)):
        run(given, config("tvae", "independent"))
    assert given.begun == ["tvae"]
