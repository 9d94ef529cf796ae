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
            result = train(*recipe, f"hydra.run.dir={folders[recipe]}")
            assert result.code == 0, result.err
        return folders[recipe]

    return get
