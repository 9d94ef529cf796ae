"""What hinders a run in its folder: a full disk, other runs, files that are not its own, the folder's removal."""

import errno
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from hydra.core.utils import setup_globals
from omegaconf import OmegaConf

from imgclf import cli  # noqa: F401, which registers ${pid:}
from imgclf.core.files import write_csv, write_file
from imgclf.runs.run_dir import RunDir
from tests.conftest import PROJECT
from tests.runs.comparison import EPOCH_END, FAST, at_call

FOLDER = OmegaConf.to_container(OmegaConf.load(PROJECT / "conf" / "train.yaml"))["hydra"]["run"]["dir"]


def full_disk(*_) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("place", "count", "steps"),
    [
        ("torch:save", 3, 4),  # after best.ckpt and last.ckpt of the first epoch
        ("tensorboard.summary.writer.record_writer:RecordWriter.write", 30, 4),
        ("imgclf.runs.run_dir:RunDir.write_csv", 2, 8),
    ],
)
def test_a_full_disk_is_one_line_and_what_is_saved_stays(place, count, steps, train, tmp_path):
    with at_call(place, count, full_disk):
        line = train(*FAST, "optimizer.lr=0.01", "hydra.run.dir=run").error
    assert "No space left on device" in line
    assert line.endswith(f"; what is saved is kept, and hydra.run.dir={tmp_path / 'run'} resume=true continues it")
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == steps
    assert not list((tmp_path / "run").rglob(".*.*"))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux, whose /proc nobody can write to")
def test_a_folder_that_cannot_be_made_is_one_line(train):
    assert "/proc/run" in train(*FAST, "hydra.run.dir=/proc/run").error


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    def half():
        yield [1]
        full_disk()

    write_file(tmp_path / "file.txt", "before")
    with pytest.raises(OSError, match=r"file\.txt cannot be written: No space left"):
        write_csv(tmp_path / "file.txt", ["a"], half())
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("file.txt", "before")]


def test_what_is_not_the_run_s_stays_in_its_folder(train, tmp_path):
    notes, hidden = tmp_path / "run" / "letters" / ".draft.json.1", tmp_path / "run" / "figures" / ".seen.123"
    for file in (notes, hidden):
        file.parent.mkdir(parents=True)
        file.write_text("mine")
    unfinished = tmp_path / "run" / ".metrics.json.77"
    unfinished.write_text("{")
    with at_call("imgclf.models.classifier:Classifier.on_fit_start", 1, full_disk):  # before the first step
        assert "No space left" in train(*FAST, "hydra.run.dir=run", "resume=true").error
    assert (notes.read_text(), hidden.read_text()) == ("mine", "mine")
    assert not unfinished.exists()


def test_a_run_folder_that_is_removed_ends_the_run_and_stays_away(train, tmp_path):
    with at_call(EPOCH_END, 2, lambda *_: shutil.rmtree(tmp_path / "run")):
        line = train(*FAST, "hydra.run.dir=run").error
    assert f"{tmp_path / 'run'}" in line
    assert "No such file or directory" in line
    assert not (tmp_path / "run").exists()


def test_of_twenty_runs_in_one_folder_one_gets_it_and_a_killed_one_leaves_it(tmp_path):
    """And by default each has one of its own."""
    setup_globals()  # Hydra's ${now:}
    system = multiprocessing.get_context("fork")
    begin, told, end = system.Barrier(20, timeout=60), system.Queue(), system.Event()

    def default() -> str:
        return OmegaConf.create({"name": "x", "folder": FOLDER}).folder

    def process() -> None:
        begin.wait()
        try:
            with RunDir(tmp_path / "run", resume=True):
                told.put((os.getpid(), default()))
                end.wait(60)
        except FileExistsError:
            told.put((None, default()))

    processes = [system.Process(target=process) for _ in range(20)]
    for one in processes:
        one.start()
    answers = [told.get(timeout=60) for _ in processes]
    (holder,) = (number for number, _ in answers if number)
    assert len({folder for _, folder in answers}) == 20
    with pytest.raises(FileExistsError, match="in use by another run"), RunDir(tmp_path / "run", resume=True):
        pass
    os.kill(holder, signal.SIGKILL)
    for one in processes:
        one.join()
    with RunDir(tmp_path / "run", resume=True):
        pass
