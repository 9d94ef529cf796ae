"""What a run prints: on a terminal, into a file, and commands that can be pasted."""

import os
import pty
import re
import shlex
import subprocess
import sys

from tests.conftest import PROJECT

FOLDER = "my run (2) 'ş' #1"


def test_a_file_gets_whole_lines_without_control_characters(train, tmp_path):
    result = train("data=chest_xray", "data.image_size=32", "model=mlp", "trainer.enable_progress_bar=true")
    assert result.code == 0, result.err
    assert not re.search(r"[\r\x1b]", result.out)
    lines = result.out.splitlines()
    told = dict(line.strip().split(":  ", 1) for line in lines if ":  " in line)
    (folder,) = (tmp_path / "outputs" / "chest_xray-mlp").iterdir()
    assert told["folder"] == str(folder)
    assert told["data"].startswith("ImageFolder (")
    assert told["train"] == "64 images: NORMAL 50.0%, PNEUMONIA 50.0%"
    assert told["test"] == "30 images: NORMAL 50.0%, PNEUMONIA 50.0%"
    assert re.fullmatch(r"cpu, \d+ threads?, precision (bf16-mixed|32-true)", told["device"])
    assert told["network"].startswith("MLP (")
    (accuracy,) = [line.split() for line in lines if line.startswith("accuracy ")]
    assert len(accuracy) == 7, accuracy  # its name, three splits, and the interval "0.9 to 1.0"
    assert float(accuracy[4]) <= float(accuracy[3]) <= float(accuracy[6])


def test_the_rarest_and_the_largest_of_many_classes_are_named(train):
    result = train("data=digits", "model=mlp")
    assert "train:  1,293 images of 10 classes, each 9.7% (8) to 10.1% (1)" in result.out
    assert "test:  read when training has ended" in result.out


def test_printed_commands_can_be_pasted_whatever_the_folder(train, script, tmp_path):
    result = train("data=digits", "model=mlp", f"hydra.run.dir={FOLDER}")
    told = dict(line.strip().split(":  ", 1) for line in result.out.splitlines() if ":  " in line)
    python, program, *words = shlex.split(told["evaluate"])
    assert (python, program) == ("python", str(PROJECT / "evaluate.py"))
    assert script("evaluate.py", *words).code == 0
    python, program, *words = shlex.split(told["resume"])
    again = script("train.py", *words)
    assert again.code == 0
    assert again.out.splitlines()[-3:] == result.out.splitlines()[-3:]
    assert shlex.split(told["dashboard"])[-1] == str(tmp_path / FOLDER)


def test_a_terminal_of_80_columns_without_colour_and_utf8(tmp_path):
    """The bar has one line, and characters that the terminal lacks end no run."""
    main, terminal = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "PYTHONIOENCODING": "ascii", "TERM": "xterm"}
    words = ["data=digits", "model=mlp", "trainer.max_epochs=2", "trainer.accelerator=cpu", f"hydra.run.dir={FOLDER}"]
    command = [sys.executable, PROJECT / "train.py", *words]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    printed = b""
    try:
        while part := os.read(main, 2**16):
            printed += part
    except OSError:  # Linux: the other side is closed
        pass
    os.close(main)
    assert process.wait() == 0, printed.decode()
    shown = printed.decode("ascii")
    assert not re.search(r"\x1b\[[\d;]*(3|4|9)\dm", shown)  # no colour
    bars = [line for line in re.split(r"[\r\n]+", re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown)) if "Epoch 2/2" in line]
    assert bars
    assert max(map(len, bars)) < 80
    assert any("accuracy" in bar for bar in bars)
    assert r"my run (2) '\u015f' #1" in shown
