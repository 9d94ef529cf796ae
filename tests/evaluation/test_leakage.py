import torch

from tests.conftest import SMALL
from tests.evaluation.conftest import metrics


def test_a_checkpoint_that_does_not_say_its_data_or_names_foreign_ones(run, script, tmp_path):
    checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    for data, message in (
        (None, "does not say what data"),
        ({"_target_": "os.system"}, r"refused: it names os.system"),
    ):
        checkpoint["imgclf"]["data"] = data
        torch.save(checkpoint, tmp_path / "a.ckpt")
        assert message in script("evaluate.py", f"ckpt={tmp_path}/a.ckpt").error
        named = ("data=noisy_digits", "data.variation=rot", f"hydra.run.dir=named{data is None}")
        assert script("evaluate.py", f"ckpt={tmp_path}/a.ckpt", *named).code == 0
        assert metrics(tmp_path / f"named{data is None}") == metrics(run)
    assert "split=val" in script("evaluate.py", f"ckpt={tmp_path}/a.ckpt", *named[:2], "split=val").error


def test_images_that_were_trained_on_are_in_no_other_split(run, script):
    ckpt = f"ckpt={run / 'checkpoints' / 'best.ckpt'}"
    for option in ("split_seed=1", "val_fraction=0.2"):
        error = script("evaluate.py", ckpt, "split=val", f"data.{option}").error
        assert f"{option}: " in error
        assert "val images" in error
        assert script("evaluate.py", ckpt, f"data.{option}").code == 0  # the test images are the official ones
    assert script("evaluate.py", ckpt, "split=val", "data.batch_size=7", "data.variation=rot").code == 0
    larochelle = "data=noisy_mnist", "data.protocol=larochelle"
    assert "protocol=larochelle: " in script("evaluate.py", ckpt, *larochelle).error
    assert "ckpt=[A,B] for their mean" in script("evaluate.py", "-m", "ckpt=a,b").error


def test_the_fold_of_another_network_may_have_been_trained_on(train, script, tmp_path):
    folds = ("data.folds=3", "data.fold=0,1,2", "hydra.sweep.dir=sweep")
    assert train(*SMALL, "-m", *folds).code == 0
    first, second = (tmp_path / "sweep" / str(fold) / "checkpoints" / "best.ckpt" for fold in range(2))
    assert script("evaluate.py", f"ckpt={first}", "split=val").code == 0
    assert "fold=1: the val images may be" in script("evaluate.py", f"ckpt={first}", "split=val", "data.fold=1").error
    assert "split=val: one network may" in script("evaluate.py", f"ckpt=[{first},{second}]", "split=val").error
