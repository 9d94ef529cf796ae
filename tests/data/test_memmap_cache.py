import multiprocessing
import os
import pickle
import resource
import time

import numpy as np
import pytest
import torch
from PIL import Image

from imgclf.data import memmap_cache
from imgclf.data.datasets import ImageDataset
from imgclf.data.memmap_cache import Form, MemmapImageDataset, decode_files, read_image

SHAPE = (1, 8, 8)


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(5):
        Image.new("L", (8, 8), 10 * i).save(folder / f"{i}.png")
    return sorted(folder.iterdir())


def build(files, tmp_path, shape=SHAPE):
    cache, faults, bits = decode_files(files, [file.name for file in files], Form(shape), tmp_path / "cache", "here")
    assert bits == 16
    return cache, faults


def values(path) -> list[int]:
    return MemmapImageDataset(path, torch.arange(5)).images[:, 0, 0, 0].tolist()


@pytest.fixture
def reads(monkeypatch):
    """Names of the files that were decoded."""
    names, read = [], read_image
    monkeypatch.setattr(memmap_cache, "read_image", lambda file, *form: names.append(file.name) or read(file, *form))
    return names


def test_files_are_decoded_once(files, tmp_path, reads):
    first, faults = build(files, tmp_path)
    assert values(first) == [0, 10, 20, 30, 40]
    assert faults == {}
    assert build(files, tmp_path) == (first, {})
    assert len(reads) == 5


def test_a_changed_file_and_another_size_are_decoded_anew_and_old_caches_go(files, tmp_path):
    first, _ = build(files, tmp_path)
    other, _ = build(files, tmp_path, (3, 4, 4))
    assert first.exists()  # of another shape, so another place
    Image.new("L", (8, 8), 200).save(files[2])
    second, _ = build(files, tmp_path)
    assert values(second) == [0, 10, 200, 30, 40]
    assert not first.exists()
    assert other.exists()
    os.utime(files[0], ns=(1, 1))  # the same content, but who knows
    assert build(files, tmp_path)[0] != second
    left = sorted(path.suffix for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock")
    assert left == [".json", ".json", ".npy", ".npy"]


@pytest.mark.parametrize("damage", ["cut", "half header", "empty", "no list of faults", "other shape"])
def test_a_damaged_cache_is_built_again(damage, files, tmp_path, reads):
    path, _ = build(files, tmp_path)
    if damage == "no list of faults":
        path.with_suffix(".json").unlink()
    elif damage == "other shape":
        np.save(path, np.zeros((5, 1, 8, 7), np.uint8))
    else:
        path.write_bytes(path.read_bytes()[: {"cut": -1, "half header": 30, "empty": 0}[damage]])
    assert values(build(files, tmp_path)[0]) == [0, 10, 20, 30, 40]
    assert len(reads) == 10


def test_what_cannot_be_read_is_black_and_its_fault_is_kept(files, tmp_path, reads):
    files[1].write_text("no picture")
    for _ in range(2):
        path, faults = build(files, tmp_path)
        assert values(path) == [0, 0, 20, 30, 40]
        assert list(faults) == ["1.png"]
        assert faults["1.png"] == "not a readable image (no image)"
    assert len(reads) == 5


def test_a_full_disk_is_one_line_and_leaves_nothing(files, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot be kept in .*cache \(No space left.*set cache_dir"):
        build(files, tmp_path)
    assert [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"] == []
    monkeypatch.undo()
    assert values(build(files, tmp_path)[0]) == [0, 10, 20, 30, 40]


def test_a_folder_that_cannot_be_written(files, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OSError, match="set cache_dir to another folder"):
        build(files, tmp_path)


def test_two_processes_may_build_it_at_the_same_time(files, tmp_path):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        paths = pool.starmap(build, [(files, tmp_path)] * 8)
    assert len({path for path, _ in paths}) == 1
    assert values(paths[0][0]) == [0, 10, 20, 30, 40]


@pytest.mark.parametrize("changed", [False, True])
def test_a_killed_builder_leaves_nothing_that_confuses_the_next(changed, files, tmp_path, monkeypatch):
    context, read = multiprocessing.get_context("fork"), read_image
    started = context.Event()

    def stuck(file, *form):
        if file.name == "3.png":
            started.set()
            time.sleep(60)
        return read(file, *form)

    with monkeypatch.context() as patch:
        patch.setattr(memmap_cache, "read_image", stuck)
        patch.setattr(memmap_cache, "BLOCK_SIZE", 2)  # so that some of it is written
        first = context.Process(target=build, args=(files, tmp_path))
        first.start()
        assert started.wait(30)
    waiting = context.Process(target=build, args=(files, tmp_path))
    waiting.start()
    if changed:  # nobody is left who would build what the first one began
        waiting.kill()
        waiting.join()
        Image.new("L", (8, 8), 99).save(files[0])
    first.kill()
    first.join()
    waiting.join()
    assert waiting.exitcode == (-9 if changed else 0)
    assert values(build(files, tmp_path)[0]) == [99 if changed else 0, 10, 20, 30, 40]
    left = sorted(path.suffix for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock")
    assert left == [".json", ".npy"]


def test_digests_are_those_of_the_images(files, tmp_path):
    Image.new("L", (8, 8), 10).save(files[4])
    path, _ = build(files, tmp_path)
    images = MemmapImageDataset(path, torch.arange(5), torch.tensor([4, 2, 1]))
    assert images.digests() == ImageDataset(images.images, images.labels, images.rows).digests()
    assert images.digests()[0] == images.digests()[2] != images.digests()[1]


def test_batches_are_copies_and_a_worker_maps_the_file_itself(files, tmp_path):
    path, _ = build(files, tmp_path)
    images = MemmapImageDataset(path, torch.arange(5), torch.tensor([4, 2]))
    batch, labels = images[torch.tensor([1, 0])]
    assert batch[:, 0, 0, 0].tolist() == [20, 40]
    assert labels.tolist() == [2, 4]
    batch.fill_(7)
    assert values(path) == [0, 10, 20, 30, 40]
    pickled = pickle.dumps(images)
    assert len(pickled) < 3000
    assert torch.equal(pickle.loads(pickled)[:][0], images[:][0])


def test_reading_a_large_cache_takes_no_memory(tmp_path):
    shape = (4000, 1, 224, 224)  # 200 MB
    np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint8, shape).flush()
    images = MemmapImageDataset(tmp_path / "a.npy", torch.zeros(4000, dtype=torch.long))
    before = resident()
    top = 0
    for rows in torch.randperm(4000).split(50):
        images[rows]
        top = max(top, resident())
    assert top - before < 40e6


def resident() -> int:
    """Bytes of memory this process holds, mapped files included."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
