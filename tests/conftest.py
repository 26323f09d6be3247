"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real images named by the environment variable COVIDTF_DATA."""
    folder = Path(os.environ.get("COVIDTF_DATA", ""))
    if not os.environ.get("COVIDTF_DATA") or not folder.is_dir():
        pytest.skip("needs real images: set COVIDTF_DATA to the folder that holds covid-chestxray-dataset/")
    return folder
