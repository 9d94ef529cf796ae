import json
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import PROJECT, tiny_images

README = (PROJECT / "README.md").read_text()


def section(title: str) -> str:
    return README.split(f"## {title}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("title", ["Add a data set", "Add a network"])
def test_following_the_readme_literally(title, tmp_path):
    for name in ("conf", "imgclf", "train.py", "evaluate.py"):
        source = PROJECT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / name)
    blocks = re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", section(title), re.DOTALL)
    assert [name.split("/")[0] for name, _ in blocks] == ["imgclf", "conf"]
    for name, text in blocks:
        assert not (tmp_path / name).exists()
        (tmp_path / name).write_text(text)
    images, labels = tiny_images(100, 2)
    np.savez(tmp_path / "pictures.npz", x_train=images, y_train=labels, x_test=images[:40], y_test=labels[:40])

    (command,) = re.findall(r"^    (python train\.py.*)$", section(title), re.MULTILINE)
    runs = [[*shlex.split(command), "hydra.run.dir=run", "trainer.max_epochs=3", "trainer.accelerator=cpu"]]
    if "data" in title:  # training ends with the network rebuilt from best.ckpt; this rebuilds the data as well
        runs.append(["python", "evaluate.py", "ckpt=run/checkpoints/best.ckpt", "accelerator=cpu"])
    for words in runs:
        done = subprocess.run([sys.executable, *words[1:]], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["test/accuracy"] > (0.9 if "data" in title else 0.2)


def test_both_recipes_together_take_under_40_lines():
    code = [text for title in ("Add a data set", "Add a network") for _, text in _blocks(title)]
    assert sum(len(text.strip().splitlines()) for text in code) < 40


def test_the_readme_names_the_test_command():
    assert "pip install -e '.[dev]' && pytest -n 2\n" in README
    script = (PROJECT / ".ci" / "run").read_text()
    assert "pip install --quiet -e '.[dev]'" in script
    assert script.endswith("\npytest -n 2\n")


@pytest.mark.parametrize("page", ["README.md", ".github/README.tr.md", ".github/CONTRIBUTING.md"])
def test_links_and_pictures_of_a_page_exist(page):
    links = re.findall(r"\]\(([^)#]+)\)", (PROJECT / page).read_text())
    assert all((PROJECT / page).parent.joinpath(link).exists() for link in links if "://" not in link)
    assert page == ".github/CONTRIBUTING.md" or any(link.endswith("strip.png") for link in links)


def test_the_walk_in_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, walk = re.findall(r"```python\n(.*?)```", section("In Python"), re.DOTALL)
    exec(compile(walk, "README.md", "exec"), there := {})
    assert there["evaluation"].metrics["test/accuracy"] > 0.8
    assert {path.name for path in tmp_path.iterdir()} == {"digits.png", "evidence.png"}


def _blocks(title: str) -> list[tuple[str, str]]:
    return re.findall(r"```(python|yaml)\n(.*?)```", section(title), re.DOTALL)
