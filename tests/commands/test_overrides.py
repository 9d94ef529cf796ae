"""Whatever is typed, train.py and evaluate.py run, or say in one line why not and leave nothing behind."""

import resource
import shutil
import time
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from imgclf.checkpoints.files import METADATA_KEY, AtomicCheckpointIO
from imgclf.checkpoints.metadata import build_metadata
from imgclf.data.digits import Digits
from imgclf.models.classifier import Classifier
from imgclf.models.mlp import MLP
from imgclf.training import fit
from tests.conftest import PROJECT

MEMORY = 4 * 2**30  # bytes more than the tests take already; what asks for more is refused
# A run of half a second.
TINY = (
    *("data=digits", "model=mlp", "model.hidden=[4]", "evaluate_on=[val]", "+trainer.limit_train_batches=1"),
    *("trainer.max_epochs=1", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false"),
)
GROUPS = {
    "data": ["digits", "noisy_digits"],
    "model": ["mlp", "cnn", "resnet", "p4cnn"],
    "optimizer": ["adam", "adamw", "muon", "sgd"],
    "scheduler": ["none", "cosine", "onecycle"],
    "augmentation": ["none", "affine", "photo"],
    "callbacks": ["default", "early_stopping", "ema"],
    "trainer": ["default"],
    "logger": ["tensorboard"],
}
# What would write somewhere else, download or start processes.
LEFT_OUT = ("hydra", "data_dir", "cache_dir", "model.weights", "name", "trainer.devices", "trainer.num_nodes")
split = str.split
TARGETS = split("os.system torch.load torch.hub.load functools.partial imgclf.inference.load.load builtins.exec")
NUMBERS = split(f"0 1 -1 0.5 1e-3 nan inf -inf 1e400 1000000000 -0 1e-400 {10**30} 007")
NESTED = split("[] {} [[]] [1] [1,a] [nan] {a:1} {_target_:os.system} [${seed}] [0] [-1] [64]")
WORDS = [
    *split("null true false '' ??? a=b a,b 'a,b' ${seed} ${nothing} ${oc.env:HOME} ${now:} ${ \\ ' \" '\"' $HOME ~ %s"),
    *split("{0} ümläut 数字 \u202e \x1b[2J [ } a:b @ # - --help . .. a/b glob(*) choice(1,2) range(3) interval(0,1)"),
    *split("int(a) validation val/loss test/loss auto 16-mixed 64-true bf16-true cuda cpu simple back-lined rot image"),
    *("a b", "a\nb", "x" * 5000),
]
ODD = [
    *split("~model ~callbacks.best_checkpoint ~callbacks.last_checkpoint ~callbacks.history ~callbacks ~trainer ~data"),
    *split("~optimizer.lr ~seed ~logger ~name ~evaluate_on ~data._target_ ~model._target_ = =1 + ~ model +model=mlp"),
    *(f"{name}=null" for name in ("model", "trainer", "data", "optimizer", "scheduler", "logger", "callbacks", "name")),
    *split("++model.new=1 +new=1 model@x=mlp experiment=null +trainer.max_epochs=2 launcher=joblib sweep=random"),
    *split("++trainer.limit_train_batches=0 +trainer.max_steps=1 +trainer.max_time=1 +trainer.fast_dev_run=true"),
    *split("+trainer.logger=true +trainer.callbacks=[] +trainer.barebones=true +trainer.limit_val_batches=0"),
    *split("+callbacks.x._target_=os.system callbacks.dashboard=null callbacks.best_checkpoint=null callbacks=[1]"),
    *split("optimizer=[1] scheduler.factory={_target_:torch.load} optimizer._partial_=false hydra/launcher=none"),
    *split("hydra.run.dir=occupied hydra.run.dir=occupied/x model.hidden=[1000000,1000000]"),
    "",
]
VALUES = st.one_of(
    *map(st.sampled_from, (NUMBERS, NESTED, WORDS)), st.integers().map(str), st.floats().map(str), st.text(max_size=20)
)


def leaves(options: dict, prefix: str = "") -> list[str]:
    found = []
    for key, value in options.items():
        found += [f"{prefix}{key}", *(leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else ())]
    return found


@pytest.fixture(scope="module")
def names():
    """Every option of every group that runs offline."""
    found = []
    with initialize_config_dir(str(PROJECT / "conf")):
        for group, choices in GROUPS.items():
            for choice in choices:
                found += leaves(OmegaConf.to_container(compose("train", [f"{group}={choice}"])))
    GlobalHydra.instance().clear()
    return [name for name in dict.fromkeys(found) if not name.startswith(LEFT_OUT)]


@pytest.fixture(autouse=True)
def one_epoch(monkeypatch):
    """Runs that would be longer end after an epoch."""
    train = fit.fit

    def short(folder, data, classifier, trainer, *more):
        trainer.fit_loop.max_epochs = min(1, trainer.max_epochs)
        return train(folder, data, classifier, trainer, *more)

    monkeypatch.setattr(fit, "fit", short)


@pytest.fixture(autouse=True)
def memory():
    """Lets the process take ``MEMORY`` more than it does."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.fixture
def tried(script, tmp_path):
    """Runs a command with many lists of words: each a run, or one line and no folder. Prints what it came to."""
    (tmp_path / "occupied").touch()

    def run(examples: int, words: st.SearchStrategy, command: str, *fixed: str) -> None:
        codes, slowest = [], (0.0, [])

        @settings(
            max_examples=examples,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(words.filter(lambda word: "\0" not in word), min_size=1, max_size=2))
        def check(words):
            nonlocal slowest
            start = time.perf_counter()
            result = script(command, *fixed, "hydra.run.dir=run", *words)
            slowest = max(slowest, (time.perf_counter() - start, words))
            codes.append(result.code)
            left = [path.name for path in (tmp_path / "run").rglob("*")]
            shutil.rmtree(tmp_path / "run", ignore_errors=True)
            if result.code:
                assert "\x1b" not in result.error
                assert any(name.endswith(".ckpt") for name in left) or not left, result.error

        check()
        print(f"{command}: {codes.count(0)} runs, {codes.count(1)} refusals, the slowest {slowest}")
        assert 0 < codes.count(0) < len(codes)

    return run


FULL = pytest.param(2000, marks=pytest.mark.long)


@pytest.mark.parametrize("examples", [14, FULL])
def test_train(examples, names, tried):
    targets = [name for name in names if name.endswith("_target_")]
    words = st.one_of(
        st.tuples(st.sampled_from(names), VALUES).map("=".join),
        st.tuples(st.sampled_from(targets), st.sampled_from(TARGETS)).map("=".join),
        st.sampled_from([f"{group}={choice}" for group, choices in GROUPS.items() for choice in choices]),
        st.sampled_from(ODD),
        st.text(max_size=12).filter(lambda word: not word.startswith("-")),  # Hydra's own flags
    )
    tried(examples, words, "train.py", *TINY)


@pytest.mark.parametrize("examples", [10, FULL])
def test_evaluate(examples, tried, tmp_path):
    classifier = Classifier(MLP(hidden=[4]), Digits.class_names)
    content = {"state_dict": classifier.state_dict(), METADATA_KEY: build_metadata(classifier, Digits())}
    AtomicCheckpointIO().save_checkpoint(content, tmp_path / "a.ckpt")
    names = [
        "ckpt",
        "split",
        "images",
        "images_as",
        "accelerator",
        "data",
        *(f"data.{name}" for name in Digits().init_args),
    ]
    words = st.one_of(
        st.tuples(st.sampled_from(names), VALUES).map("=".join),
        st.sampled_from(["data=digits", "images=a.ckpt", "images=.", "split=val", "accelerator=gpu", "~data", "~ckpt"]),
    )
    tried(examples, words, "evaluate.py", f"ckpt={tmp_path / 'a.ckpt'}")
