"""What a checkpoint from a stranger cannot do."""

import copy
import json
import subprocess
import sys

import pytest
import torch

from imgclf import load
from imgclf.checkpoints.files import METADATA_KEY, AtomicCheckpointIO
from imgclf.checkpoints.metadata import read_data_config
from tests.checkpoints.strangers import STRANGERS, ZOO
from tests.conftest import PROJECT


def save(content, path):
    AtomicCheckpointIO().save_checkpoint(content, path)
    return path


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "torch.load",
        "torch.hub.load",
        "torch.nn.Linear",
        "builtins.exec",
        "functools.partial",
        "imgclf.inference.load.load",
        "imgclf.models.classifier.Classifier",
        "imgclf.models.classifier.torch.load",
        "imgclf.models.cnn.CNN.__init__.__globals__",
    ],
)
def test_other_targets_are_refused_by_name(target, content, tmp_path):
    content[METADATA_KEY]["network"]["_target_"] = target
    with pytest.raises(ValueError, match=f"refused.*{target.split('.')[0]}"):
        load(save(content, tmp_path / "a.ckpt"))
    content[METADATA_KEY]["data"]["_target_"] = target
    with pytest.raises(ValueError, match=f"refused.*{target.split('.')[0]}"):
        read_data_config(save(content, tmp_path / "b.ckpt"))


def test_nested_targets_and_interpolations_are_refused(content, tmp_path):
    metadata = copy.deepcopy(content[METADATA_KEY])
    for surprise, message in (
        ([{"_target_": "os.system", "command": f"touch {tmp_path}/executed"}], r"refused.*_target_ os\.system"),
        ({"deeper": [{"_partial_": True}]}, "refused.*_partial_"),
        ("${oc.env:HOME}", r"refused.*interpolation \$\{oc\.env:HOME\}"),
        ({"defaults": ["/data: mnist"]}, "refused.*defaults"),
    ):
        for part, reader in (("network", load), ("data", read_data_config)):
            content[METADATA_KEY] = copy.deepcopy(metadata)
            content[METADATA_KEY][part]["extra"] = surprise
            with pytest.raises(ValueError, match=message):
                reader(save(content, tmp_path / "a.ckpt"))
    assert not (tmp_path / "executed").exists()


def test_a_checkpoint_that_would_download_weights_is_refused(content, tmp_path):
    network = {"_target_": ZOO, "image_shape": [1, 32, 32], "weights": "DEFAULT"}
    content[METADATA_KEY]["network"] = network
    with pytest.raises(ValueError, match=r"refused.*weights.*DEFAULT"):
        load(save(content, tmp_path / "a.ckpt"))


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("case", STRANGERS)
def test_what_a_stranger_declares_is_refused(case, content, tmp_path):
    change, message = STRANGERS[case]
    change(content)
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=rf"a\.ckpt: refused: .*({message})") as raised:
        load(tmp_path / "a.ckpt")
    assert str(raised.value).startswith(f"{tmp_path / 'a.ckpt'}: refused: ")
    assert len(str(raised.value)) < 1000


LOAD_ALL = """
import json, pathlib, resource, signal, sys, time
from imgclf import load
from imgclf.checkpoints.metadata import datamodule_classes, network_classes
network_classes(), datamodule_classes()
pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**29,) * 2)
told = {}
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.ckpt")):
    start = time.perf_counter()
    signal.alarm(5)
    try:
        load(path)
    except ValueError as error:
        told[path.stem] = str(error), time.perf_counter() - start
signal.alarm(0)
print(json.dumps(told))
"""


def test_all_are_refused_within_five_seconds_and_half_a_gigabyte(content, tmp_path):
    """All of them in one process, which may not even reserve 0.5 GB more than torch does, and 5 s for each."""
    for case, (change, _) in STRANGERS.items():
        changed = copy.deepcopy(content)
        change(changed)
        torch.save(changed, tmp_path / f"{case}.ckpt")
    done = subprocess.run([sys.executable, "-c", LOAD_ALL, str(tmp_path)], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told.keys() == STRANGERS.keys()
    assert not [line for line, _ in told.values() if "llocat" in line]
    slowest = max(seconds for _, seconds in told.values())
    print(f"{len(told)} files refused, the slowest in {slowest:.2f} s")
