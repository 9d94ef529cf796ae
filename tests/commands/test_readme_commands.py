"""Every command of the two READMEs does what it says, on tiny data."""

import re
import shlex
import shutil

import pytest
from PIL import Image

from tests.conftest import PROJECT, tiny_images


def commands(page: str) -> list[str]:
    """The commands in a page's blocks of shell, a line each."""
    blocks = re.findall(r"```bash\n(.*?)```", (PROJECT / page).read_text(), re.DOTALL)
    return re.findall(r"^(?:python|tensorboard) .*", "\n".join(blocks), re.MULTILINE)


ENGLISH, TURKISH = commands("README.md"), commands(".github/README.tr.md")
COMMANDS = list(dict.fromkeys(tuple(shlex.split(line, comments=True)[1:]) for line in ENGLISH if line[0] == "p"))
QUICK = {
    "train.py": ["trainer.max_epochs=1", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false"],
    "evaluate.py": ["accelerator=cpu"],
}
SMALL = {
    "data.root=": ["data.image_size=16", "data.channels=1", "data.batch_size=10"],
    "experiment=finetune": ["model.weights=null", "data.image_size=32", "data.batch_size=10"],
    "model.weights=": ["model.channels=[8]"],
    "sweep=bayesian": ["n_trials=1"],
    "sweep=robustness": ["data.variation=basic"],
    "data.variation=basic,rot,back-rand": ["data.variation=basic", "seed=1"],
    "data.folds=5": ["data.folds=2", "data.fold=0,1"],
    "trainer=ddp": ["trainer.devices=1"],  # tests/training/test_distributed.py starts two processes
    "data=noisy_mnist": ["data.batch_size=100"],
}


def test_the_turkish_page_has_commands_of_the_english_one():
    def words(lines):
        return [shlex.split(line, comments=True) for line in lines]

    assert len(TURKISH) >= 10
    assert all(command in words(ENGLISH) for command in words(TURKISH))


@pytest.fixture
def place(tmp_path, script, tiny_data):
    """A folder with everything that the commands name."""
    images, labels = tiny_images(40, 2, side=40)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        name = ("cat", "dog")[label]
        for file in (f"DIR/{name}/person{i // 2}_{i}.png", f"FILES/{name}.{i}.png"):
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(tmp_path / file)
    table = [f"{file.relative_to(tmp_path / 'DIR')},{file.parent.name}\n" for file in (tmp_path / "DIR").rglob("*.png")]
    (tmp_path / "DIR" / "labels.csv").write_text("file,label\n" + "".join(table))
    ink = Image.new("L", (60, 80), 255)
    ink.paste(0, (25, 15, 35, 65))
    page = Image.new("L", (300, 120), 255)
    page.paste(ink, (40, 20))
    page.paste(ink, (180, 20))
    for file, picture in (("PHOTOS/1.png", ink), ("photos/1.jpg", ink), ("page.jpg", page)):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        picture.save(tmp_path / file)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two run folders, made by the first test that needs them."""
    return tmp_path_factory.mktemp("trained")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_runs(command, place, trained, script, tiny_data):
    name, *words = command
    for seed, folder in enumerate(("RUN", "OTHER")):
        if not (trained / folder).exists():
            small = ["data.variation=basic", "model.channels=[8]", *QUICK["train.py"]]
            assert script("train.py", *small, f"seed={seed}", f"hydra.run.dir={trained / folder}").code == 0
        shutil.copytree(trained / folder, place / folder)
    if name == "-m":  # python -m imgclf.NAME
        name, words = f"{words[0].replace('.', '/')}.py", words[1:]
    if name == "imgclf/demo.py":
        words = ["ckpt=nothing.ckpt"]  # tests/commands/test_demo_server.py opens the page
    small = [word for key, options in SMALL.items() if any(key in given for given in words) for word in options]
    if name == "train.py":
        words = [word for word in words if not word.startswith("trainer.accelerator=gpu")]
        if not any(word.startswith(("--config-path", "resume")) for word in words):
            small = [f"data_dir={tiny_data}", *QUICK[name], *small]
            if not any(word.startswith(("model", "experiment", "-m")) for word in words):
                small.append("model=mlp")
    result = script(name, *words, *small, *QUICK.get(name, []) * (name == "evaluate.py"))
    if name == "imgclf/demo.py":
        assert "nothing.ckpt" in result.error
    else:
        assert result.code == 0, result.out + result.err
