import tomllib

import pytest

from imgclf.cli import full_names
from imgclf.help import CONF, help_text, key_values
from imgclf.runs.resume import flat
from tests.conftest import PROJECT

OPTIONS = flat(
    {
        "name": "run",
        "seed": 1,
        "data": {"seed": 1, "val_fraction": 1.5},
        "model": {"name": "resnet19", "hidden": [16, 0]},
        "augmentation": {"flip": {"p": 0.5}, "mixup": {"p": 2}},
    }
)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("val_fraction=1.5: give a number", "data.val_fraction=1.5: give a number"),
        ("hidden=[16, 0]: give a list", "model.hidden=[16, 0]: give a list"),
        ("name=resnet19: choose one of", "model.name=resnet19: choose one of"),  # not the run's own name
        ("p=2: give a number", "augmentation.mixup.p=2: give a number"),
        ("seed=1: which of the two", "seed=1: which of the two"),
        ("data.val_fraction=1.5: told already", "data.val_fraction=1.5: told already"),
        ("/a/val_fraction=2/b.png: a file", "/a/val_fraction=2/b.png: a file"),
        ("use data=noisy_digits", "use data=noisy_digits"),
        ("balance=x (val_fraction=3)", "balance=x (data.val_fraction=3)"),
    ],
)
def test_errors_call_arguments_by_the_full_names_of_their_options(message, told):
    assert full_names(message, OPTIONS) == told


def test_small_commands_take_name_value_arguments(capsys):
    assert key_values(["to='a b'", "ckpt=x=y"], "usage", ckpt="", to="") == {"ckpt": "x=y", "to": "a b"}
    assert key_values(["ckpt=a", "--help"], "usage\n", ckpt="") is None
    assert capsys.readouterr().out == "usage\n"
    for words, part in (
        (["ckpt"], "unknown argument ckpt"),
        (["kind=1"], "unknown argument kind=1"),
        ([], "ckpt is mi"),
    ):
        with pytest.raises(ValueError, match=part):
            key_values(words, "usage", ckpt="")


def test_help_is_made_from_the_comments_of_the_configuration(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "train.yaml").write_text(
        "defaults:\n  - _self_\n  - data: a  # what is classified\n\nseed: 3  # of everything\ndata:\n  size: 5\n"
    )
    (tmp_path / "data" / "a.yaml").write_text(
        "_target_: x.Y\nsize: 6\nroot: null  # a folder\ndeep:\n  er: 1  # inside\n"
    )
    (tmp_path / "data" / "b.yaml").write_text("_target_: x.Y\ndeep:\n  er: 1\n")
    lines = [" ".join(line.split()) for line in help_text(tmp_path, "train", "usage").splitlines()]
    assert "data a b: what is classified" in lines
    assert "seed=3 of everything" in lines
    assert "data.root=null a: a folder" in lines
    assert "data.deep.er=1 inside" in lines
    assert lines.count("data.size=5") == 1  # the main file's value, which is what a run has
    assert "data.size=6 a" not in lines


def test_every_folder_is_packaged():
    packages = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    rooms = {path.parent.name for path in (PROJECT / "imgclf").glob("*/__init__.py")}
    assert {"imgclf", "imgclf.conf", *(f"imgclf.{room}" for room in rooms)} == set(packages)
    assert (CONF / "train.yaml").is_file()
