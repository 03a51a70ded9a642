"""Shared by all tests: the tools on the path, and where the training data lies if it is there."""

import os
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1]
MODELS = TOOLS.parent
sys.path.insert(0, str(TOOLS))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder with ucm/, eurosat/ and captions/."""
    folder = Path(os.environ.get("REMOTECLIPD_DATA", MODELS.parents[1] / "shared/data"))
    if not (folder / "captions").is_dir():
        pytest.skip(f"no training data at {folder}; set REMOTECLIPD_DATA")
    return folder
