"""What the tests of evaluation share: a trained run, and a look into its metrics."""

import json

import pytest


def metrics(folder, split="test") -> dict[str, float]:
    """The metrics of one split in a run folder's metrics.json."""
    values = json.loads((folder / "metrics.json").read_text())
    return {name: value for name, value in values.items() if name.startswith(f"{split}/")}


@pytest.fixture
def run(train, tmp_path):
    """The folder of a finished run."""
    result = train("data=noisy_digits", "data.variation=rot", "model=mlp", "model.hidden=[32]", "hydra.run.dir=run")
    assert result.code == 0, result.err
    return tmp_path / "run"
