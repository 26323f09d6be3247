"""Settings: wrong values are refused before anything starts."""

import pytest

from covidtf.config import ROOT, AugmentConfig, CTConfig, DataConfig, DeepConfig, TrainConfig
from covidtf.files import DataError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"smoke": "false"}, "`smoke` must be bool. Received: 'false'"),
        ({"epochs": True}, "`epochs` must be int"),
        ({"epochs": 0}, "`epochs` must be at least 1"),
        ({"learning_rate": float("nan")}, "`learning_rate` must be at least"),
        ({"network": "ResNet19"}, "`network` must be one of"),
        ({"experiment": "../elsewhere"}, "`experiment` must match"),
        ({"epochs": 3, "head_epochs": 4}, "`head_epochs` must be at most `epochs`"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    """Each kind of wrong value ends in an error that says what was wanted and what came."""
    with pytest.raises(ValueError, match=message):
        TrainConfig(**settings)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (CTConfig, {"most_slices": 3, "least_slices": 4}, "`most_slices` must be at least `least_slices`"),
        (CTConfig, {"least_lung": 1.0}, "`least_lung` must be at most"),
        (CTConfig, {"folds": 2}, "`folds` must be 0, or at least 3"),
        (DeepConfig, {"folds": 5, "fold": 5}, "`folds` must be 0, or at least 3 and more than `fold`"),
        (DeepConfig, {"fold": 1}, "more than `fold`"),
        (DeepConfig, {"stages": "2,3"}, "`stages` must match"),
        (DeepConfig, {"beta": 1.0}, "`beta` must be at most"),
        (DeepConfig, {"epochs": 3, "head_epochs": 4}, "`head_epochs` must be at most `epochs`"),
    ],
)
def test_wrong_settings_of_ct_are_refused(kind, settings, message):
    """What a step would only find out after hours of work is said before it starts."""
    with pytest.raises(ValueError, match=message):
        kind(**settings)


def test_smoke_shrinks_and_moves_the_output():
    """A smoke run is one epoch and writes beside, never into, the folder of the full run."""
    full, smoke = TrainConfig(), TrainConfig(smoke=True)
    assert (full.epochs, smoke.epochs) == (100, 1)
    assert full.experiment_folder == ROOT / "runs" / "phantom-xray"
    assert smoke.experiment_folder == ROOT / "runs" / "smoke" / "phantom-xray"


def test_run_id_depends_on_what_decides_the_result():
    """Another learning rate is another run; another place to write to, or 1 for 1.0, is not."""
    assert TrainConfig(learning_rate=1e-3).run_id != TrainConfig().run_id
    assert TrainConfig(out="elsewhere").run_id == TrainConfig().run_id
    assert AugmentConfig(ratio=1).digest() == AugmentConfig(ratio=1.0).digest()


def test_absent_data_folder_is_said(monkeypatch, tmp_path):
    """Without a folder of public images the error says which variable names it."""
    monkeypatch.delenv("COVIDTF_DATA", raising=False)
    with pytest.raises(DataError, match="COVIDTF_DATA"):
        _ = DataConfig(dataset="sample").source_folder
    with pytest.raises(DataError, match="no such folder"):
        _ = DataConfig(dataset="sample", data_folder=str(tmp_path / "absent")).source_folder
