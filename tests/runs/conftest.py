"""Undisturbed runs, which others are compared with."""

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Undisturbed runs, made once each."""
    folders = {}

    def get(train, *recipe) -> Path:
        if recipe not in folders:
            folders[recipe] = tmp_path_factory.mktemp("whole") / "run"
            train(*recipe, f"hydra.run.dir={folders[recipe]}").ok()
        return folders[recipe]

    return get
