"""--help is made from the configuration, so that it names every group, choice and option."""

import re

import pytest
from omegaconf import OmegaConf

from imgclf.runs.resume import flat
from tests.conftest import PROJECT

GROUPS = sorted(path.name for path in (PROJECT / "conf").iterdir() if path.is_dir())


@pytest.fixture
def words(script, monkeypatch):
    def read(name):
        monkeypatch.setenv("COLUMNS", "80")
        result = script(name, "--help").ok()
        assert all(len(line) <= 80 for line in result.out.splitlines())
        return set(re.findall(r"[\w.*-]+", result.out))

    return read


def leaves(file) -> set[str]:
    config = OmegaConf.to_container(OmegaConf.load(file))
    config.pop("defaults", None)
    config.pop("hydra", None)
    return {
        name for name in flat(config) if "_target_" not in name and not re.search(r"_partial_|_convert_|_dir$", name)
    }


def test_train_names_every_group_choice_and_option(words):
    words = words("train.py")
    assert set(GROUPS) <= words
    for group in GROUPS:
        for file in (PROJECT / "conf" / group).glob("*.yaml"):
            assert file.stem in words, f"{group}={file.stem}"
            if group in ("data", "model", "loss", "classifier", "optimizer", "augmentation", "trainer"):
                assert {f"{group}.{name}" for name in leaves(file)} <= words, file.name
    assert leaves(PROJECT / "conf" / "train.yaml") <= words


def test_evaluate_names_every_option(words):
    assert leaves(PROJECT / "conf" / "evaluate.yaml") <= words("evaluate.py")


@pytest.mark.parametrize("name", ["check", "compare", "demo", "export", "benchmark"])
def test_help_of_a_small_command_fits_a_terminal(name, script):
    lines = script(f"imgclf/{name}.py", "--help").ok().out.splitlines()
    assert f"python -m imgclf.{name}" in "".join(lines)
    assert all(len(line) <= 80 for line in lines)
