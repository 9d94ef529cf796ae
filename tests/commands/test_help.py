"""--help is written by hand, so it is held against the configuration it describes."""

import re

import pytest
from omegaconf import OmegaConf

from tests.conftest import PROJECT

GROUPS = sorted(path.name for path in (PROJECT / "conf").iterdir() if path.is_dir() and path.name != "hydra")


@pytest.fixture
def words(script):
    def read(name):
        result = script(name, "--help")
        assert result.code == 0, result.err
        assert all(len(line) <= 120 for line in result.out.splitlines())
        return set(re.findall(r"[\w.*-]+", result.out.replace("...", " ")))

    return read


def test_train_names_every_group_choice_and_option(words):
    words = words("train.py")
    assert set(GROUPS) <= words
    for group in GROUPS:
        for file in (PROJECT / "conf" / group).glob("*.yaml"):
            assert file.stem in words, f"{group}={file.stem}"
            if group in ("data", "model", "loss", "classifier", "optimizer", "augmentation", "trainer"):
                options = {name for name in OmegaConf.load(file) if name != "defaults" and name[0] != "_"}
                known = {word.removeprefix(f"{group}.") for word in words}
                assert options - {"data_dir", "cache_dir", "dataset"} <= known, file.name
    config = OmegaConf.load(PROJECT / "conf" / "train.yaml")
    assert set(config) - {"defaults", "hydra", "data"} <= words
    assert {f"data.{name}" for name in config.data} <= words


def test_evaluate_names_every_option(words):
    config = OmegaConf.load(PROJECT / "conf" / "evaluate.yaml")
    assert set(config) - {"defaults", "hydra"} <= words("evaluate.py")
