"""The options of train.py and evaluate.py: those that no class of the library checks, and what depends on several."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from imgclf.core.files import check_checkpoint_file, find_folder
from imgclf.core.names import METRICS, OBJECTIVES, SPLITS
from imgclf.core.validation import Positive, Seed, Strength, describe_fault
from imgclf.runs.run_dir import RunDir
from imgclf.training.cluster import as_started

Switch = bool | None
WHOLE_EPOCHS = {"fast_dev_run": False, "check_val_every_n_epoch": 1, "max_steps": -1, "max_time": None}


class Options(BaseModel):
    """Options of one group: the types that Hydra does not know. Options without a type here pass."""

    model_config = ConfigDict(strict=True, extra="allow")


class TrainerOptions(Options):
    max_epochs: Positive
    devices: Positive
    num_nodes: Positive
    log_every_n_steps: Positive
    threads: Positive | None = None
    accumulate_grad_batches: Positive
    strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true"]
    gradient_clip_val: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
    enable_progress_bar: Switch
    enable_model_summary: Switch


class OptimizerOptions(Options):
    lr: Strength = 0.0
    weight_decay: Strength = 0.0
    nesterov: Switch = None
    fused: Switch = None


class RunOptions(Options):
    objective: Literal[OBJECTIVES]  # pyrefly: ignore[not-a-type]
    evaluate_on: Sequence[Literal[SPLITS]]  # pyrefly: ignore[not-a-type]
    seed: Seed
    resume: bool
    trainer: TrainerOptions
    optimizer: OptimizerOptions
    callbacks: dict[str, Any]


def check(config: Mapping[str, Any]) -> None:
    """Raises ValueError, which names the option, unless a run of this composed configuration (plain types) can start.

    A test metric never chooses anything, an epoch is always whole, and the two checkpoints are always written.
    """
    try:
        RunOptions.model_validate(dict(config))
    except ValidationError as error:
        raise ValueError(describe_fault(error, RunOptions)) from error
    trainer, callbacks = config["trainer"], config["callbacks"]
    for name, needed in WHOLE_EPOCHS.items():
        if trainer.get(name, needed) != needed:
            raise ValueError(f"trainer.{name}={trainer[name]}: leave it out, every run has whole epochs")
    for name in ("limit_train_batches", "limit_val_batches"):
        if not trainer.get(name, 1):
            raise ValueError(f"trainer.{name}=0: leave it out, every epoch is trained and validated")
    processes, batch_size = trainer["devices"] * trainer["num_nodes"], config["data"]["batch_size"]
    if isinstance(batch_size, int) and batch_size % processes:
        raise ValueError(
            f"data.batch_size={batch_size}: the processes share a batch; give a multiple of {processes} "
            "(trainer.devices * trainer.num_nodes)"
        )
    # What follows would be found out only when the first epoch has ended, or the last.
    for name, filename in (("best_checkpoint", "best"), ("last_checkpoint", "last")):
        given = callbacks.get(name)
        if not isinstance(given, dict) or given.get("filename") != filename:
            raise ValueError(f"callbacks.{name}={given}: leave it in, with filename={filename}, which the run needs")
    monitored = (*OBJECTIVES, *(f"train/{name}" for name in METRICS))
    for name, callback in callbacks.items():
        monitor = callback.get("monitor") if isinstance(callback, dict) else None
        if str(monitor).startswith("test"):
            raise ValueError(f"callbacks.{name}.monitor={monitor}: test metrics choose nothing; name one of val/")
        if monitor not in (None, "${objective}", *monitored):  # a sweep's options are not resolved
            raise ValueError(f"callbacks.{name}.monitor={monitor}: choose one of {', '.join(monitored)}")


def start_run(cfg: DictConfig) -> tuple[RunDir, dict[str, Any]]:
    """The run folder of train.py's job, not yet claimed, and the resolved configuration, checked, as plain types.

    ``cfg`` is completed: torchrun's number of processes, an optimizer whose gradients can be clipped, and the size of
    images that suits published weights. A ValueError names an option that cannot be what it is.
    """
    job = HydraConfig.get()
    run_dir = RunDir(job.runtime.output_dir, cfg.resume, "train.log")
    sweep = job.runtime.choices.get("sweep")
    named = any(word.startswith("hydra.run.dir=") for word in job.overrides.hydra)
    if sweep and not run_dir.in_sweep:
        raise ValueError(f"sweep={sweep} is for many runs: add -m, as in python train.py -m sweep=...")
    if cfg.resume is True and not named and not run_dir.in_sweep:
        raise ValueError("resume=true: name the folder of the run, hydra.run.dir=DIR; a new folder starts a run")
    check(plain(cfg))
    folders = [Path(), Path(cfg.data.get("data_dir") or ".").expanduser()]
    if cfg.data.get("root"):  # missing data are noticed before the imports, which take seconds
        folders.append(find_folder(str(cfg.data.root), folders[1]))
    for name in ("labels", "train", "test", "backgrounds"):
        if (file := cfg.data.get(name)) and not any((folder / str(file)).expanduser().exists() for folder in folders):
            raise FileNotFoundError(f"{name}={file}: no such {'folder' if name == 'backgrounds' else 'file'}")
    if cfg.model.weights and cfg.model.get("name") and "image_size" in cfg.data and cfg.data.image_size is None:
        published = {"_target_": f"{cfg.model._target_}.published_size", "name": cfg.model.name}
        cfg.data.image_size = instantiate({**published, "weights": str(cfg.model.weights)})
    started = as_started(cfg.trainer)
    cfg.trainer.devices, cfg.trainer.num_nodes = started["devices"], started["num_nodes"]
    if cfg.trainer.gradient_clip_val and "fused" in cfg.optimizer:
        cfg.optimizer.fused = False  # Lightning refuses to clip the gradients of a fused optimizer in mixed precision
    return run_dir, plain(cfg)


def plain(cfg: DictConfig) -> dict[str, Any]:
    """A composed configuration as plain types, resolved."""
    return OmegaConf.to_container(cfg, resolve=True)  # pyrefly: ignore[bad-return]


def finish_run(cfg: DictConfig, run_dir: RunDir, metrics: dict[str, float] | None) -> float | None:
    """The objective, which train.py returns; None from all processes but the first. Prints a single run's metrics."""
    if metrics is None:
        return None
    if not run_dir.in_sweep:  # a sweep compares its jobs at its end
        from imgclf.training.messages import print_summary  # lazy: it imports Lightning

        job = HydraConfig.get()
        flags = sys.argv[1:5] if job.job.config_name != "train" else []  # these name the run that is repeated
        print_summary(run_dir, metrics, [*flags, *job.overrides.task])
    return metrics[cfg.objective]


def checkpoint_paths(ckpt: Any) -> list[str]:
    """The checkpoints that evaluate.py is given; raises ValueError or FileNotFoundError if there is none."""
    paths = list(ckpt) if isinstance(ckpt, Sequence) and not isinstance(ckpt, str) else [ckpt]
    if not paths or not all(isinstance(path, str) and path for path in paths):
        raise ValueError("ckpt=PATH is missing: name a checkpoint, such as ckpt=outputs/.../checkpoints/best.ckpt")
    for path in paths:  # refused before the seconds that torch takes
        check_checkpoint_file(path)
    return paths


def offer_checkpoint_data(words: Sequence[str]) -> None:
    """Makes the data of the checkpoint in ``words`` the default of the data group, so that data.variation=... changes
    them."""
    given = [word for word in words if word.startswith("ckpt=")]
    ckpt = OverridesParser.create().parse_overrides(given)[-1] if given else None
    config = {}
    try:
        if ckpt and ckpt.is_sweep_override():
            raise ValueError("ckpt=A,B is for one run of many: give one checkpoint, or ckpt=[A,B] for their mean")
        if ckpt:
            path, *_ = checkpoint_paths(ckpt.value())
            from imgclf.checkpoints.metadata import read_data_config  # lazy: it imports torch

            config = read_data_config(path)
    except (ValueError, OSError):
        if not any(word.startswith(("data=", "images=")) for word in words):
            raise  # else the data are not needed; if the checkpoint itself is at fault, loading it says so
    ConfigStore.instance().store(group="data", name="checkpoint", node=config, replace=True)


def check_evaluation(cfg: DictConfig) -> list[str]:
    """The checkpoints to evaluate, as ``checkpoint_paths`` gives them; ValueError names options that do not fit."""
    paths = checkpoint_paths(cfg.ckpt)
    from imgclf.transforms.corruptions import CORRUPTIONS, SEVERITIES  # lazy: it imports torch

    if cfg.corruption not in (None, "all", *CORRUPTIONS):
        raise ValueError(f"corruption={cfg.corruption}: choose all, or one of {', '.join(CORRUPTIONS)}")
    if cfg.severity not in SEVERITIES:
        raise ValueError(f"severity={cfg.severity}: give a whole number from 1 to 5")
    if cfg.several and not cfg.images:
        raise ValueError("several=true: it is for images; give images=PATH too")
    for name in ("corruption", "by"):
        if cfg[name] and cfg.images:
            raise ValueError(f"{name}={cfg[name]} is for a data set whose classes are known: leave out images")
    return paths


def _adapt_data(cfg: DictConfig, preprocessing: Mapping[str, Any]) -> None:
    """Changes the options of other data: their files are read as those that the checkpoint was trained on.

    If no checkpoint was trained on a folder, and it has no test part, all of its images are test images. Options that
    were typed stay as they are. ``preprocessing`` is the checkpoint's.
    """
    from imgclf.evaluation.leakage import is_other_folder  # lazy: it imports torch

    channels, *image_size = preprocessing["image_shape"]
    values = {**preprocessing, "image_size": image_size, "channels": channels}
    for name in ("image_size", "channels", "fit", "bits"):
        if name in cfg.data and f"data.{name}" not in typed_options():
            cfg.data[name] = values[name]
    if "data.test_fraction" not in typed_options() and is_other_folder(checkpoint_paths(cfg.ckpt), cfg.data):
        cfg.data.test_fraction = 1.0


def evaluated_data(cfg: DictConfig, preprocessing: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether evaluate.py evaluates on the checkpoint's own data, perhaps with some options changed; and whether no
    option changes which images these are.

    Other data are read as the checkpoint's (``_adapt_data``). A ValueError says that there is no such split or that
    data are missing.
    """
    from imgclf.evaluation.leakage import DIVISION, SOURCE  # lazy: it imports torch

    if cfg.split not in SPLITS:
        raise ValueError(f"split={cfg.split}: choose one of {', '.join(SPLITS)}")
    if "_target_" not in cfg.data:
        raise ValueError(f"ckpt={cfg.ckpt} does not say what data it was trained on: name some, such as data=mnist")
    if missing := OmegaConf.missing_keys(cfg.data):
        wanted = " ".join(f"{name}=..." for name in sorted(missing))
        raise ValueError(f"ckpt={cfg.ckpt} names a place on this machine and lies in no run folder: type {wanted}")
    same_images = typed_options().isdisjoint({"data", *(f"data.{name}" for name in SOURCE + DIVISION)})
    own_data = HydraConfig.get().runtime.choices["data"] == "checkpoint"
    if not own_data:
        _adapt_data(cfg, preprocessing)
    return own_data, same_images


def typed_options() -> set[str]:
    """The names of the options on the command line."""
    return {word.partition("=")[0] for word in HydraConfig.get().overrides.task}
