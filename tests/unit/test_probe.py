"""Probes: how like real rows some rows are, and which real rows they are compared with."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rowmint.codecs import CategoryCodec, NumericCodec
from rowmint.codecs.numeric import ALPHA_ONE
from rowmint.errors import TrainingFailedError
from rowmint.schema import ColumnKind, DataType, TableSchema
from tests.tables_to_fit import CTGAN, FAMILIES, ITERATIVE, TVAE, TableToFit, column, encode_rows, full_table
from trainer_service.config import TrainingConfig
from trainer_service.fitting import FitContext
from trainer_service.fitting.encoding import table
from trainer_service.fitting.encoding.encoded_table import EncodedRows, EncodedTable
from trainer_service.fitting.families import FamilyConfig, family_named
from trainer_service.fitting.families.independent.config import IndependentConfig
from trainer_service.fitting.monitoring.monitor import TrainingMonitor, make_monitor
from trainer_service.fitting.monitoring.probe import MAX_PAIRS, PROBE_ROWS, Probe, Score
from trainer_service.fitting.options import EncodingOptions


def category(size: int) -> CategoryCodec:
    return CategoryCodec(size, size, False, np.zeros(0, np.uint64))


def number(modes: int) -> NumericCodec:
    empty = np.zeros(0)
    centers = np.arange(modes) * 10.0
    return NumericCodec(False, 0, 1, 0, False, False, -10.0, 10.0 * modes, centers, np.full(modes, 4.0), empty)


CODECS = (category(4), category(4), number(3))


def dependent(rows: int, seed: int) -> EncodedRows:
    """Two categories that mostly agree, and a number whose mode and side follow them."""
    random = np.random.Generator(np.random.Philox(seed))
    first = random.choice(4, rows, p=[0.4, 0.3, 0.2, 0.1])
    second = np.where(random.random(rows) < 0.8, first, random.integers(0, 4, rows))
    alpha = np.where(first == 0, -1, 1) * random.random(rows)
    return EncodedRows(np.stack([first, second, np.minimum(first, 2)], axis=1), alpha[:, None].astype(np.float32))


def probe_of(real: EncodedRows, other: EncodedRows | None = None) -> Probe:
    return Probe(CODECS, real, real if other is None else other, held_out=False)


def rows_of(*columns: list[int]) -> EncodedRows:
    return EncodedRows(np.array(columns).T, np.zeros((len(columns[0]), 0), np.float32))


def test_real_rows_are_like_real_rows() -> None:
    score = probe_of(dependent(4096, 1), dependent(4096, 2)).score(dependent(4096, 3))
    assert score.shapes == pytest.approx(1, abs=0.01)
    assert score.pairs == pytest.approx(1, abs=0.01)
    assert score.distinct == pytest.approx(1, abs=0.2)
    assert not score.collapsed


def test_independent_columns_have_the_shapes_but_not_the_pairs() -> None:
    made = dependent(4096, 3)
    random = np.random.Generator(np.random.Philox(4))
    for index in range(3):
        order = random.permutation(4096)
        made.choices[:, index] = made.choices[order, index]
        if index == 2:
            made.alpha[:] = made.alpha[order]
    score = probe_of(dependent(4096, 1), dependent(4096, 2)).score(made)
    assert score.shapes == pytest.approx(1, abs=0.01)
    assert score.pairs < 0.7
    assert score.quality == (score.shapes + score.pairs) / 2


def test_rows_all_alike_are_reported_as_collapsed() -> None:
    real = dependent(4096, 1)
    one = EncodedRows(np.repeat(real.choices[:1], 4096, axis=0), np.repeat(real.alpha[:1], 4096, axis=0))
    # What is different within a tenth of the real values does not count as different.
    spread = EncodedRows(one.choices, one.alpha * np.linspace(0.9999, 1, 4096, dtype=np.float32)[:, None])
    wide = tuple(category(4096) for _ in CODECS)
    many = rows_of(*(list(range(4096)) for _ in CODECS))
    for probe, made in (
        (Probe(wide, many, many, held_out=False), rows_of([5] * 4096, [5] * 4096, [5] * 4096)),
        (Probe(wide, many, many, held_out=False), rows_of(*(list(range(80)) * 51 + [0] * 16 for _ in CODECS))),
    ):
        assert probe.score(made).collapsed
    assert not Probe(wide, many, many, held_out=False).score(rows_of(*([*range(100)] * 41 for _ in CODECS))).collapsed
    assert probe_of(real).score(one) == probe_of(real).score(spread)
    assert probe_of(real).score(one).distinct < probe_of(real).score(real).distinct == 1
    assert probe_of(real).score(one).quality < 0.5


def test_scores_are_those_of_the_definition() -> None:
    codecs = (category(2), category(2))
    real = rows_of([0, 0, 1, 1], [0, 0, 1, 1])
    made = rows_of([0, 0, 0, 1], [0, 1, 0, 1])
    # Columns: |.75-.5| = .25 and 0. Pairs: (0,0) .5 for .5, (0,1) .25 for 0, (1,1) .25 for .5.
    assert Probe(codecs, real, real, held_out=False).score(made) == Score(0.875, 0.75, 1.0)
    # Two real samples lie as far apart: it is chance.
    assert Probe(codecs, real, made, held_out=False).score(made) == Score(1.0, 1.0, 1.0)
    # What one column is nearer than chance is no credit for another.
    assert Probe(codecs, real, rows_of([0, 0, 1, 1], [0, 0, 0, 0]), held_out=False).score(made).shapes == 0.875


def test_numbers_count_by_tenths_of_the_real_ones() -> None:
    one = np.zeros((4, 1), int)
    real = EncodedRows(one, np.array([[-0.5], [-0.5], [0.5], [0.5]], np.float32))
    # Real values are -2 and 2, cut at -2, -1.2, 0, 1.2 and 2; these are 0.4, where no real one is, and 3.6.
    made = EncodedRows(one, np.array([[0.1], [0.1], [0.9], [0.9]], np.float32))
    score = Probe((number(1),), real, real, held_out=False).score(made)
    assert score == Score(0.5, 1.0, 1.0)


def test_missing_numbers_are_a_cell_of_their_own() -> None:
    codec = dataclasses.replace(number(1), nullable=True, points=np.array([7.0]))
    real = EncodedRows(np.array([[0], [0], [1], [2]]), np.zeros((4, 1), np.float32))
    probe = Probe((codec,), real, real, held_out=False)
    assert probe.score(real) == Score(1.0, 1.0, 1.0)
    assert probe.score(EncodedRows(np.full((4, 1), 2), real.alpha)).shapes == 0.25
    assert probe.score(EncodedRows(np.full((4, 1), 1), real.alpha)).shapes == 0.25


def test_rare_cells_count_together_and_unknown_ones_with_them() -> None:
    codecs = (category(200), category(2))
    real = rows_of([*range(100), *range(64)], [0] * 164)
    probe = Probe(codecs, real, real, held_out=False)
    # The 36 cells of one row are one; which of them is met makes no difference, nor does one that no real row has.
    made = rows_of([*range(64), *range(64), *[199] * 36], [0] * 164)
    assert probe.score(made) == Score(1.0, 1.0, 65 / 100)


def test_a_table_of_one_column_has_no_pairs() -> None:
    for codec in (category(4), number(3)):
        real = EncodedRows(np.arange(3)[:, None], np.full((3, int(codec.scalar)), 0.5, np.float32))
        assert Probe((codec,), real, real, held_out=False).score(real) == Score(1.0, 1.0, 1.0)
        other = EncodedRows(np.zeros((3, 1), int), real.alpha)
        assert Probe((codec,), real, real, held_out=False).score(other).shapes == pytest.approx(1 / 3)


@pytest.mark.parametrize("columns", [20, 21, 60])
def test_of_many_pairs_some_are_taken_over_all_columns(columns: int) -> None:
    real = rows_of(*[[0, 1]] * columns)
    probe = Probe(tuple(category(2) for _ in range(columns)), real, real, held_out=False)
    assert len(set(probe._pairs)) == len(probe._pairs) == min(MAX_PAIRS, math.comb(columns, 2))
    assert {place for pair in probe._pairs for place in pair} == set(range(columns))


def test_scores_are_reported_by_name() -> None:
    assert Score(1.0, 1 / 3, 0.5).to_json() == {"quality": 0.66667, "shapes": 1.0, "pairs": 0.33333, "distinct": 0.5}
    assert (Score(1.0, 1.0, 0.0199).collapsed, Score(1.0, 1.0, 0.02).collapsed) == (True, False)


def encoded(config: TrainingConfig, cells: TableToFit, folder: Path, **options: Any) -> EncodedTable:
    return encode_rows(cells, config, folder, **options)


def monitor(codes: EncodedTable, config: TrainingConfig) -> TrainingMonitor:
    return make_monitor(
        codes,
        seed=config.seed,
        probe_epochs=config.probe_epochs,
        patience=config.patience,
        keep_best=config.keep_best,
    )


@pytest.mark.parametrize("family", ITERATIVE)
@pytest.mark.parametrize("name", ["city", "state", "paid", "age", "noise", "same", "void", "nothing"])
def test_a_fit_to_one_column_is_probed(family: str, name: str, tmp_path: Path) -> None:
    config = TrainingConfig(FAMILIES[family], seed=1, threads=1)
    codes = encoded(config, full_table().only(name), tmp_path)
    fitter: Any = family_named(family).make_fitter(codes, config.family, FitContext(tmp_path, seed=1))
    if not family_named(family).networks:  # which begins at random
        for number in range(fitter.epochs * fitter.steps_per_epoch):
            fitter.step(number)
    score = monitor(codes, config).observe(fitter, fitter.epochs)
    assert score is not None
    assert score.pairs == 1
    # The marginals are set as at export, whatever a network has learned; where in its mode a number lies is not.
    assert score.shapes == pytest.approx(1, abs=1 if name in ("age", "noise") else 0.03)
    assert not score.collapsed


def numbered(rows: int) -> TableToFit:
    """A table whose rows can be distinguished."""
    return TableToFit(
        {"x": list(range(rows)), "city": [("Oslo", "Rome")[index % 2] for index in range(rows)]},
        TableSchema(
            (
                column("x", ColumnKind.NUMERICAL, DataType.INT64),
                column("city", ColumnKind.CATEGORICAL, DataType.STRING),
            )
        ),
    )


def numbers(codes: EncodedRows, codec: NumericCodec) -> list[int]:
    fixed = np.rint(codes.alpha[:, 0].astype(np.float64) * ALPHA_ONE).astype(np.int64)
    return codec.decode(codes.choices[:, 0].astype(np.intp), fixed).values.tolist()


def test_held_out_rows_are_probed_with_and_never_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "BATCH_ROWS", 128)  # both kinds of rows over several batches
    config = TrainingConfig(CTGAN, seed=1, holdout_fraction=0.3)
    codes = encoded(config, numbered(1000), tmp_path)
    (codec, _) = codes.codecs
    assert isinstance(codec, NumericCodec)
    trained = numbers(EncodedRows(codes.choices, codes.alpha), codec)
    held_out = numbers(codes.held_out, codec)
    others = set(range(1000)) - set(trained)
    # A number beyond those that train is decoded as the last of them.
    assert sorted(held_out) == np.clip(sorted(others), min(trained), max(trained)).tolist()
    assert codes.rows == len(set(trained)) == len(trained) == sum(codes.counts[0])
    probe = monitor(codes, config).probe
    assert probe is not None
    assert (probe.held_out, probe.rows) == (True, len(held_out))
    # Each held-out row is one of the probe's real ones: it lies no distance from them.
    assert probe._distances(probe._cells(codes.held_out))[1].tolist() == [0.0]


def test_no_more_rows_are_kept_than_a_probe_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "BATCH_ROWS", 128)
    config = TrainingConfig(CTGAN, seed=1, holdout_fraction=0.3)
    codes = encoded(config, numbered(1000), tmp_path, held_out_rows=90)
    assert len(codes.held_out.choices) == len(codes.held_out.alpha) == 90
    assert 600 < codes.rows < 800  # the others do not train either
    assert EncodingOptions.held_out_rows <= PROBE_ROWS


def test_where_no_row_is_held_out_training_rows_are_probed_with(tmp_path: Path) -> None:
    config = TrainingConfig(TVAE, seed=1)
    codes = encoded(config, numbered(300), tmp_path)
    assert codes.held_out.choices.shape == (0, 2)
    probe = monitor(codes, config).probe
    assert probe is not None
    assert (probe.held_out, probe.rows) == (False, PROBE_ROWS)
    assert probe.score(codes.at(np.arange(300))).quality == pytest.approx(1, abs=0.05)
    assert monitor(codes, dataclasses.replace(config, probe_epochs=0)).probe is None


def test_a_monitor_does_as_the_configuration_says(tmp_path: Path) -> None:
    config = TrainingConfig(TVAE, seed=1, probe_epochs=3)
    codes = encoded(config, numbered(300), tmp_path)
    for fields, expected in (
        ({}, (3, 0, False)),
        ({"keep_best": True}, (3, 0, True)),
        ({"patience": 2}, (3, 2, True)),  # it stops because it was better before
        ({"probe_epochs": 1, "patience": 2, "keep_best": True}, (1, 2, True)),
    ):
        made = monitor(codes, dataclasses.replace(config, **fields))
        assert (made.every, made.patience, made.keep_best) == expected


@pytest.mark.parametrize("family", [CTGAN, IndependentConfig()])
def test_held_out_cells_that_no_training_row_has_are_encoded_too(
    family: FamilyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = numbered(400)
    config = TrainingConfig(family, seed=1, holdout_fraction=0.2)
    held_out = encoded(dataclasses.replace(config, family=CTGAN), cells, tmp_path).held_out
    codec = encoded(dataclasses.replace(config, family=CTGAN), cells, tmp_path).codecs[0]
    assert isinstance(codec, NumericCodec)
    first, second, third = numbers(held_out, codec)[5:8]  # none beyond those that train
    # Far beyond what trains, missing, and a category of its own.
    cells.cells["x"][first], cells.cells["x"][second] = 10**6, None
    cells.cells["city"][third] = "Paris"
    codes = encoded(config, cells, tmp_path)
    assert codes.codecs[1].choices == 2
    sizes = [codec.choices for codec in codes.codecs]
    assert (codes.held_out.choices < sizes).all()
    assert (np.abs(codes.held_out.alpha) <= 1).all()
    if isinstance(family, IndependentConfig):
        return
    made = codes.codecs[0]
    assert isinstance(made, NumericCodec)
    far = (made.positions(np.array([10**6])) - made.centers) / made.widths
    place = numbers(held_out, codec).index(first)
    # The mode that is nearest, in its own widths, at its edge.
    assert (codes.held_out.choices[place, 0], codes.held_out.alpha[place, 0]) == (far.argmin(), 1)


def test_a_holdout_that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    config = TrainingConfig(TVAE, seed=1, holdout_fraction=0.5)
    with pytest.raises(TrainingFailedError, match="lower holdout_fraction"):
        encoded(config, numbered(2), tmp_path)
