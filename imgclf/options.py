"""Options that no class of the library looks at, and the names they are made of; nothing heavy is imported."""

import math
from collections.abc import Mapping
from typing import Any

from imgclf.core.names import LOWER_IS_BETTER, METRICS, OBJECTIVES, SPLITS

WHOLE = ("max_epochs", "devices", "num_nodes", "log_every_n_steps", "accumulate_grad_batches")
WHOLE_EPOCHS = {"fast_dev_run": False, "check_val_every_n_epoch": 1, "max_steps": -1, "max_time": None}
SWITCHES = {
    "data": ("fresh",),
    "model": ("batch_norm", "invariant"),
    "classifier": ("channels_last",),
    "optimizer": ("nesterov", "fused"),
    "trainer": ("enable_progress_bar", "enable_model_summary"),
}
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true")


def check(config: Mapping[str, Any]) -> str:
    """Whether "min" or "max" of the objective is better, after looking at options nobody else checks.

    Args:
        config: the run's composed configuration, plain types.

    Raises:
        ValueError: the objective is not one of ``OBJECTIVES``, or a callback or the scheduler watches a test metric
            (those never choose anything); ``evaluate_on`` names an unknown split, or a number is missing or out of
            range, or a switch is not true or false (Hydra reads "no" as a word).
    """
    objective, evaluate_on = config["objective"], config["evaluate_on"]
    if objective not in OBJECTIVES:
        raise ValueError(f"objective={objective}: choose one of {', '.join(OBJECTIVES)}")
    watching = {"scheduler": config["scheduler"], **{f"callbacks.{k}": v for k, v in config["callbacks"].items() if v}}
    for name, settings in watching.items():
        if str(settings.get("monitor")).startswith("test"):
            raise ValueError(f"{name}.monitor={settings['monitor']}: test metrics choose nothing; name one of val/")
    if not isinstance(evaluate_on, list) or not set(evaluate_on) <= set(SPLITS):
        raise ValueError(f"evaluate_on={evaluate_on}: list any of {', '.join(SPLITS)}, as in evaluate_on=[val,test]")
    if not isinstance(config["seed"], int) or not 0 <= config["seed"] < 2**32:
        raise ValueError(f"seed={config['seed']}: give a whole number from 0 up to {2**32 - 1}")
    for name in WHOLE:
        if not isinstance(config["trainer"][name], int) or config["trainer"][name] < 1:
            raise ValueError(f"trainer.{name}={config['trainer'][name]}: give a whole number from 1 up")
    if config["trainer"]["strategy"] not in STRATEGIES:
        raise ValueError(f"trainer.strategy={config['trainer']['strategy']}: choose one of {', '.join(STRATEGIES)}")
    for name, needed in WHOLE_EPOCHS.items():
        if config["trainer"].get(name, needed) != needed:
            raise ValueError(f"trainer.{name}={config['trainer'][name]}: leave it out, runs here are of whole epochs")
    for name in ("limit_train_batches", "limit_val_batches"):
        if not config["trainer"].get(name, 1):
            raise ValueError(f"trainer.{name}=0: leave it out, every epoch is trained and validated")
    switches = {f"{group}.{name}": config[group].get(name) for group, names in SWITCHES.items() for name in names}
    for name, value in {"resume": config["resume"], **switches}.items():
        if value not in (True, False, None):
            raise ValueError(f"{name}={value}: give true or false")
    _check_callbacks(config["callbacks"])
    processes = config["trainer"]["devices"] * config["trainer"]["num_nodes"]
    batch_size = config["data"]["batch_size"]
    if isinstance(batch_size, int) and batch_size % processes:
        raise ValueError(
            f"data.batch_size={batch_size} is that of all processes together: give a multiple of {processes} "
            "(trainer.devices * trainer.num_nodes)"
        )
    for name in ("lr", "weight_decay"):
        value = config["optimizer"].get(name, 0)
        if not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ValueError(f"optimizer.{name}={value}: give a number of 0 or more")
    clip = config["trainer"]["gradient_clip_val"]
    if clip is not None and not (isinstance(clip, int | float) and 0 < clip < math.inf):
        raise ValueError(f"trainer.gradient_clip_val={clip}: give a number above 0, or null for no clipping")
    return "min" if objective.removeprefix("val/") in LOWER_IS_BETTER else "max"


def _check_callbacks(callbacks: Any) -> None:
    """What would be found out only when the first epoch has ended, or the last."""
    for name, filename in (("best_checkpoint", "best"), ("last_checkpoint", "last")):
        given = (callbacks or {}).get(name)
        if not isinstance(given, dict) or given.get("filename") != filename:
            raise ValueError(f"callbacks.{name}={given}: leave it in, with filename={filename}, which the run needs")
    monitored = (*OBJECTIVES, *(f"train/{name}" for name in METRICS))
    for name, callback in callbacks.items():
        monitor = callback.get("monitor") if isinstance(callback, dict) else None
        if monitor not in (None, "${objective}", *monitored):  # a sweep's options are not resolved
            raise ValueError(f"callbacks.{name}.monitor={monitor}: choose one of {', '.join(monitored)}")
