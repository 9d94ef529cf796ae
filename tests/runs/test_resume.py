"""What a run may be continued with, and what its folder says of every session."""

import json
import signal

import torch

from tests.runs.comparison import FAST, STEP, assert_the_same_run, at_call, send


def test_resume_never_silently_restarts(train, whole, tmp_path):
    with at_call(STEP, 10, send(signal.SIGTERM)):
        train(*FAST, "hydra.run.dir=run")
    run, again = tmp_path / "run", (*FAST, "hydra.run.dir=run", "resume=true")
    best, last = (run / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    content, good = torch.load(last, weights_only=True), last.read_bytes()
    for name, value in (("class_names", ["cat", "dog"]), ("network", {"_target_": "CNN"}), ("optimizer", "SGD")):
        torch.save({**content, "imgclf": {**content["imgclf"], name: value}}, last)
        assert f"last.ckpt cannot be resumed with something else ({name} was" in train(*again).error
    last.write_bytes(good)
    assert "optimizer.lr was 0.001, is 0.1" in train(*again, "optimizer.lr=0.1").error
    hidden = best.rename(tmp_path / "best.ckpt")
    for damage in (lambda: last.write_bytes(good[:-1000]), last.unlink):
        damage()
        line = train(*again).error
        assert "last.ckpt" in line
        assert line.endswith("to train anew, use a new folder")
    assert json.loads((run / "environment.json").read_text()).get("resumed") is None  # refused: nothing was touched

    hidden.rename(best)
    epoch = torch.load(best, weights_only=True)["epoch"] + 1
    last.write_bytes(good[:-1000])
    (run / "checkpoints" / ".last.ckpt.123").write_bytes(good[:1000])  # of a session that was killed
    result = train(*again).ok()
    said = f"last.ckpt: truncated or not a PyTorch checkpoint: going on from {best}, epoch {epoch}"
    assert said.replace(" ", "") in "".join(result.out.split())  # it is broken into lines
    assert_the_same_run(run, whole(train, *FAST))


def test_environment_json_tells_of_every_session_and_config_yaml_repeats_the_run(train, script, whole, tmp_path):
    with at_call(STEP, 6, send(signal.SIGTERM)):
        train(*FAST, "hydra.run.dir='a run'")
    folder = tmp_path / "a run"
    first = json.loads((folder / "environment.json").read_text())
    train(*FAST, "hydra.run.dir='a run'", "resume=true").ok()
    now = json.loads((folder / "environment.json").read_text())
    (session,) = now.pop("resumed")
    assert now == first
    assert session["command"][-1] == "resume=true"
    assert session.keys() <= {"started", "command"}

    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    result = script("train.py", "--config-path", "a run", "--config-name", "config").ok()
    (repeated,) = (tmp_path / "outputs" / "mnist-mlp").iterdir()
    assert_the_same_run(repeated, whole(train, *FAST))
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before
    assert f"--config-path '{folder}' --config-name config" in result.out
