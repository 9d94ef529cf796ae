import json
import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from imgclf.runs.command_line import null_groups, quote_text, read_dictionaries, resumed_words, shell_command, unquoted

NAMES = [
    *(
        "plain",
        "my images (2)",
        "Görüntüler",
        "数据",
        "a,b",
        "x=1",
        "#1",
        "2024",
        "it's",
        'say "so"',
        "a\\b",
        "[ab]",
        "{a}",
    ),
    *("true", "~", "$HOME", "a: b", " x"),
]


def value(word):
    return OverridesParser.create().parse_override(word).value()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "option", ["data.root", "ckpt", "hydra.run.dir", "data.positive", "name", "data.label_pattern"]
)
def test_text_is_typed_as_it_is_and_printed_so_that_it_can_be_pasted(option, name):
    if option == "ckpt" and name in ("a,b", "[ab]"):
        return  # a list
    (word,) = quote_text([f"{option}={name}"])
    assert value(word) == name.strip()
    assert shlex.split(shell_command([word])) == [f"{option}={name.strip()}"]
    assert quote_text([word]) == [word]


def test_what_is_no_text_stays_as_it_is():
    words = ["data.batch_size=16", "model.hidden=[8,8]", "data.root=null", "data.root=${data_dir}/a", "-m", "seed=1,2"]
    assert quote_text(words) == words
    assert unquoted("seed=1") == "seed=1"


def test_lists_and_sweeps(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (word,) = quote_text(["images=[a b.png,2.png]"])
    assert value(word) == ["a b.png", "2.png"]
    assert quote_text(["-m", "data.root=a b,c"]) == ["-m", "data.root='a b','c'"]
    assert quote_text(["data.root=a b,c"]) == ["data.root='a b,c'"]
    assert quote_text(["-m", "data.root=glob(*)"]) == ["-m", "data.root=glob(*)"]
    assert quote_text(["-m", "data.root='a, b',c"]) == ["-m", "data.root='a, b','c'"]
    assert value(*quote_text(["images=['a, b.png',c.png,]"])) == ["a, b.png", "c.png"]
    assert shell_command(["data.root='a','b'"]) == shlex.quote("data.root='a','b'")  # a sweep's words stay
    (tmp_path / "a b,c").mkdir()
    assert quote_text(["-m", "data.root=a b,c"]) == ["-m", "data.root='a b,c'"]


@pytest.mark.parametrize("option", ["data.class_map", "data.columns"])
@pytest.mark.parametrize("names", [{"正常": "NORMAL"}, {"0": "1", "yes": "no"}, {"a b (2)": "it's, so"}])
def test_names_in_dictionaries_are_text_of_any_script(option, names):
    typed = f"{option}={{{', '.join(f'{json.dumps(key)}: {json.dumps(names[key])}' for key in names)}}}"
    (word,) = quote_text([typed])
    config = OmegaConf.create({option.removeprefix("data."): value(word)})
    read_dictionaries(config)
    assert list(config.values()) == [names]
    assert shlex.split(shell_command([word])) == [typed]
    assert quote_text([word]) == [word]
    short = OmegaConf.create({"columns": "{file:scan,label:7}"})
    read_dictionaries(short)
    assert short.columns == {"file": "scan", "label": "7"}


def test_null_means_none():
    words = [
        "scheduler=null",
        "augmentation=null",
        "logger=null",
        "callbacks=null",
        "experiment=null",
        "data.root=null",
    ]
    assert null_groups(words) == [
        *("scheduler=none", "augmentation=none", "logger=none", "callbacks=none", "data.root=null")
    ]


def test_a_resumed_run_takes_its_own_options(tmp_path):
    run = f"hydra.run.dir={tmp_path}"
    command = ["train.py", "data=digits", "model=mlp", "optimizer.lr=0.1", run]
    (tmp_path / "environment.json").write_text(json.dumps({"command": command}))
    assert resumed_words([run, "resume=true"]) == ["data=digits", "model=mlp", "optimizer.lr=0.1", run, "resume=true"]
    given = ["model=cnn", run, "resume=true", "trainer.max_epochs=9"]
    assert resumed_words(given) == ["data=digits", "optimizer.lr=0.1", *given]
    for words in ([run], ["resume=true"], ["hydra.run.dir=elsewhere", "resume=true"], ["-m", run, "resume=true"]):
        assert resumed_words(words) == words


def test_a_run_goes_on_with_the_options_of_its_last_session(tmp_path):
    run = f"hydra.run.dir={tmp_path}"
    sessions = [["train.py", "seed=1", "trainer.max_epochs=2", run]]
    sessions.append([*sessions[0][:2], run, "resume=true", "trainer.max_epochs=9"])
    first, second = ({"command": command} for command in sessions)
    (tmp_path / "environment.json").write_text(json.dumps({**first, "resumed": [second]}))
    assert resumed_words([run, "resume=true"]) == ["seed=1", "trainer.max_epochs=9", run, "resume=true"]
    (tmp_path / "job.json").write_text(json.dumps({"overrides": ["data.root='a'", "seed=5"]}))
    assert resumed_words([run, "resume=true"]) == ["data.root='a'", "seed=5", run, "resume=true"]
