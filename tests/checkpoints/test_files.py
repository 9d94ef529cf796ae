import os
import pickle
import zipfile
from functools import partial

import pytest
import torch

from imgclf import load
from imgclf.checkpoints.files import METADATA_KEY, AtomicCheckpointIO, read_checkpoint


def save(content, path):
    AtomicCheckpointIO().save_checkpoint(content, path)
    return path


def test_a_failed_write_leaves_the_earlier_checkpoint(content, tmp_path):
    path = save(content, tmp_path / "best.ckpt")
    before = path.read_bytes()
    with pytest.raises((pickle.PicklingError, AttributeError)):
        save({**content, "unpicklable": lambda: 0}, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["best.ckpt"]


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_pickled_payload_is_refused_and_not_run(content, tmp_path):
    torch.save({**content, "payload": Payload(tmp_path / "executed")}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="refused"):
        read_checkpoint(tmp_path / "a.ckpt")
    assert not (tmp_path / "executed").exists()


def truncate(path, keep):
    path.write_bytes(path.read_bytes()[:keep])


@pytest.mark.parametrize(
    "damage",
    [
        partial(truncate, keep=0),
        partial(truncate, keep=1000),
        lambda path: path.write_text("hello"),
        lambda path: torch.save(torch.zeros(3), path),
        lambda path: torch.save({"state_dict": {}}, path),
        lambda path: torch.save({"state_dict": {}, METADATA_KEY: "no dictionary"}, path),
        lambda path: zipfile.ZipFile(path, "w").close(),
    ],
)
def test_damaged_and_foreign_files_get_one_line_that_begins_with_the_path(damage, content, tmp_path):
    path = save(content, tmp_path / "a.ckpt")
    damage(path)
    with pytest.raises(ValueError, match=r"a\.ckpt: ") as raised:
        load(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


def squeeze(path):
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, member in members.items():
            archive.writestr(name, member)


def test_a_compressed_archive_and_an_endless_pickle_are_refused(content, tmp_path):
    content["more"] = torch.zeros(10**6)
    path = save(content, tmp_path / "a.ckpt")
    squeeze(path)
    assert path.stat().st_size < 10**5
    with pytest.raises(ValueError, match=r"refused.*compressed"):
        load(path)
    with pytest.raises(ValueError, match=r"refused.* bytes that are not tensors"):
        load(save({**content, "more": "a" * 10**7}, path))


def test_a_checkpoint_of_version_0_1_gets_one_clear_line(content, tmp_path):
    del content[METADATA_KEY]["preprocessing"]
    path = save(content, tmp_path / "a.ckpt")
    for reader in (read_checkpoint, load):
        with pytest.raises(ValueError, match=r"made by imgclf 0\.1.*train it again") as raised:
            reader(path)
        assert str(raised.value).startswith(f"{path}: ")


@pytest.mark.parametrize("address", ["https://example.org/best.ckpt", "file:///etc/passwd", "s3://bucket/best.ckpt"])
def test_an_address_is_no_file(address):
    with pytest.raises(FileNotFoundError, match="no such file"):
        load(address)


def test_a_folder_and_a_missing_file_say_what_to_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"folder.*checkpoints/best\.ckpt"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"none\.ckpt: no such file"):
        load(tmp_path / "none.ckpt")
