import json
import shutil

import pytest

from imgclf.evaluation.evaluate import match_classes
from tests.conftest import write_xrays

XRAYS = ["NORMAL", "PNEUMONIA"]


@pytest.mark.parametrize(
    ("names", "known", "class_map", "expected"),
    [
        (XRAYS, XRAYS, None, [0, 1]),
        (["pneumonia", "Normal"], XRAYS, None, [1, 0]),
        (["Normal"], XRAYS, None, [0]),  # some classes may be missing
        (["hot_dog", "ice cream"], ["Ice-Cream", "Hot Dog"], None, [1, 0]),
        (["A", "a"], ["a", "A", "b"], None, [1, 0]),  # names that are the same but for their case
        (["sick", "Normal"], XRAYS, {"sick": "PNEUMONIA"}, [1, 0]),
        (["bacteria", "virus", "normal"], XRAYS, {"bacteria": "PNEUMONIA", "virus": "PNEUMONIA"}, [1, 1, 0]),
        (["1", "0"], ["0", "1"], {1: 0, 0: 1}, [0, 1]),  # as a command line reads them
    ],
)
def test_classes_are_matched_by_name(names, known, class_map, expected):
    assert match_classes(names, known, class_map) == expected


@pytest.mark.parametrize(
    ("names", "class_map", "parts"),
    [
        (["Normal", "Lung_Opacity"], None, ["1 of the data's 2", "Lung_Opacity", "class_map={Lung_Opacity: NAME}"]),
        (["Normal", "normal"], None, ["Normal, normal", "same class"]),
        (["Normal"], {"normal": "NORMAL"}, ["class_map={normal: NORMAL}"]),
        (["Normal"], {"Normal": "HEALTHY"}, ["class_map={Normal: HEALTHY}"]),
    ],
)
def test_what_cannot_be_matched_is_refused(names, class_map, parts):
    with pytest.raises(ValueError, match="class_map") as error:
        match_classes(names, XRAYS, class_map)
    assert all(part in str(error.value) for part in parts)


def test_folders_of_other_names_give_the_same_metrics(train, script, tiny_data, tmp_path):
    small = ("data=image_folder", f"data.root={tiny_data}/chest_xray", "data.image_size=32")
    assert train(*small, "model=mlp", "model.hidden=[8]", "hydra.run.dir=run").code == 0
    write_xrays(tmp_path / "away" / "test", 30)
    shutil.copytree(tmp_path / "away" / "test", tmp_path / "away" / "train")
    for part in ("train", "test"):
        for old, new in (("NORMAL", "well"), ("PNEUMONIA", "Pneumonia")):
            (tmp_path / "away" / part / old).rename(tmp_path / "away" / part / new)
    away = ("ckpt=run/checkpoints/best.ckpt", "data=image_folder", "data.root=away", "data.image_size=32")
    assert "data.class_map={well: NAME}" in script("evaluate.py", *away, "hydra.run.dir=refused").error
    result = script("evaluate.py", *away, "data.class_map={well: NORMAL}", "hydra.run.dir=mapped")
    assert result.code == 0, result.err
    found, own = (json.loads((tmp_path / run / "metrics.json").read_text()) for run in ("mapped", "run"))
    assert found == pytest.approx({name: own[name] for name in found})
