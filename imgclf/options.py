"""Options that no class of the library looks at, and the names they are made of; nothing heavy is imported."""

import math
from collections.abc import Mapping
from typing import Any

SPLITS = ("train", "val", "test")
METRICS = ("loss", "accuracy", "precision", "recall", "f1", "kappa")
BINARY_METRICS = ("auroc", "average_precision", "sensitivity", "specificity", "calibration_error")
LOWER_IS_BETTER = ("loss", "calibration_error")
BINARY_OBJECTIVES = tuple(f"val/{name}" for name in BINARY_METRICS)
OBJECTIVES = (*(f"val/{name}" for name in METRICS), *BINARY_OBJECTIVES)
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true")


def check(config: Mapping[str, Any]) -> str:
    """Whether "min" or "max" of the objective is better, after looking at options nobody else checks.

    Args:
        config: the run's composed configuration, plain types.

    Raises:
        ValueError: the objective is not one of ``OBJECTIVES``, or a callback or the scheduler watches a test metric
            (those never choose anything); ``evaluate_on`` names an unknown split, or a number is missing or out of
            range.
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
    for name, value, least in (
        ("seed", config["seed"], 0),
        *((f"trainer.{name}", config["trainer"][name], 1) for name in ("max_epochs", "devices", "num_nodes")),
    ):
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name}={value}: give a whole number from {least} up")
    if config["trainer"]["strategy"] not in STRATEGIES:
        raise ValueError(f"trainer.strategy={config['trainer']['strategy']}: choose one of {', '.join(STRATEGIES)}")
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
