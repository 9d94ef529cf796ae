"""A default stands in conf/, for overrides and --help, and in a signature, for notebooks: both are equal."""

import inspect

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import OmegaConf

from imgclf.core.names import SPLITS
from imgclf.evaluation.evaluate import evaluate
from imgclf.evaluation.predict_files import predict_files
from imgclf.help import CONF

# What these choices are for: they differ from the defaults of their class in just these options.
FOR_FILES = {"batch_size", "eval_batch_size", "val_fraction"}
ON_PURPOSE = {
    **{f"data={name}": {"data.dataset"} for name in ("fashion_mnist", "kmnist", "qmnist", "emnist", "usps")},
    "data=noisy_digits": {"data.base", "data.batch_size"},
    "data=image_folder": {f"data.{name}" for name in FOR_FILES},
    "data=chest_xray": {
        f"data.{name}" for name in {*FOR_FILES, "root", "channels", "positive", "group_pattern", "val_folder"}
    },
    "augmentation=affine": {f"augmentation.affine.{name}" for name in ("degrees", "translate", "scale", "shear")},
    "augmentation=photo": {
        f"augmentation.{name}" for name in ("affine.degrees", "affine.scale", "color.brightness", "color.contrast")
    },
}
CHOICES = sorted(f"{file.parent.name}={file.stem}" for file in CONF.glob("*/*.yaml"))
CHOICES = [choice for choice in CHOICES if not choice.startswith(("experiment=", "launcher=", "sweep="))]


def composed(name: str, *overrides: str) -> dict:
    with initialize_config_dir(str(CONF)):
        return OmegaConf.to_container(compose(name, list(overrides)))


def nodes(config, path: str):
    """The nodes that name a class or function of imgclf, with their full names."""
    if isinstance(config, dict):
        if str(config.get("_target_")).startswith("imgclf."):
            yield path, config
        for name, value in config.items():
            yield from nodes(value, f"{path}.{name}")


def defaults_of(target) -> dict:
    """The defaults of a function, or of a class and those of ours that it hands its other arguments on to."""
    ours = [kind for kind in getattr(target, "__mro__", ()) if kind.__module__.startswith("imgclf.")]
    signatures = [inspect.signature(kind.__init__) for kind in reversed(ours)] or [inspect.signature(target)]
    parameters = {name: value for signature in signatures for name, value in signature.parameters.items()}
    return {name: value.default for name, value in parameters.items() if value.default is not value.empty}


def plain(value):
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("choice", CHOICES)
def test_the_defaults_of_a_choice_are_those_of_its_class(choice):
    group = choice.partition("=")[0]
    differing, compared = set(), 0
    for path, node in nodes(composed("train", choice)[group], group):
        for name, default in defaults_of(get_object(node["_target_"])).items():
            if name not in node or "${" in str(node[name]):  # the option of another group, or a folder
                continue
            compared += 1
            if plain(default) != node[name]:
                differing.add(f"{path}.{name}")
    assert differing == ON_PURPOSE.get(choice, set())
    assert compared or group not in ("data", "model", "classifier")


def test_evaluate_has_the_defaults_of_train_and_of_the_library():
    train, ours = composed("train"), composed("evaluate", "data=digits")
    shared = ours["data"].keys() & train["data"].keys() - {"_target_"}
    assert {name: ours["data"][name] for name in shared} == {name: train["data"][name] for name in shared}
    assert {name: ours[name] for name in ("data_dir", "cache_dir")} == {
        name: train[name] for name in ("data_dir", "cache_dir")
    }
    assert ours["accelerator"] == train["trainer"]["accelerator"]
    for function in (evaluate, predict_files):
        defaults = {name: value for name, value in defaults_of(function).items() if name in ours}
        assert defaults
        assert defaults == {name: ours[name] for name in defaults}
    assert train["evaluate_on"] == list(SPLITS)
