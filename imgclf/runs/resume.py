"""The rules for continuing a run: which options may change, and which checkpoint training goes on from."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgclf.runs.command_line import shell_command

if TYPE_CHECKING:
    from imgclf.runs.run_dir import RunDir

log = logging.getLogger(__name__)

WATCHING = ("best_checkpoint", "last_checkpoint", "progress_bar", "model_summary", "dashboard", "early_stopping")
# Options with these prefixes may change when a run is continued. They say where, how fast and how long it runs, and
# what is done with its results.
MAY_CHANGE = (
    *("resume.", "n_trials.", "name.", "evaluate_on.", "logger.", "data_dir.", "cache_dir."),
    *("data.data_dir.", "data.cache_dir.", "data.num_workers."),
    *(
        "trainer.accelerator.",
        "trainer.devices.",
        "trainer.num_nodes.",
        "trainer.strategy.",
        "trainer.threads.",
        "trainer.max_epochs.",
    ),
    *("trainer.log_every_n_steps.", "trainer.enable_", "trainer.profiler."),
    *(f"callbacks.{name}." for name in WATCHING),
)


def resume_hint(folder: Path) -> str:
    """What to type to continue the run in ``folder``."""
    return f"{shell_command([f'hydra.run.dir={folder}', 'resume=true'])} continues it"


def hint_if_saved(folder: Path) -> str:
    """The end of a sentence: "; " and ``resume_hint``, or nothing where the run has no checkpoint yet."""
    return f"; {resume_hint(folder)}" if (folder / "checkpoints" / "last.ckpt").exists() else ""


def changed_options(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The options that differ between two configurations and may not change, each as "name was A, is B"."""
    before, after = flat(saved), flat(now)
    different = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    described = {key: f"{key} was {before.get(key)}, is {after.get(key)}" for key in different}
    faults = [text for key, text in described.items() if not f"{key}.".startswith(MAY_CHANGE)]
    if "trainer.max_epochs" in described and after.get("scheduler.factory._target_"):
        faults.append(f"{described['trainer.max_epochs']}, and the schedule depends on it")
    return faults


def find_checkpoint(
    run_dir: "RunDir", metadata: Mapping[str, Any], data: Any, max_epochs: int
) -> tuple[Path | None, int]:
    """The checkpoint to go on from and its step: last.ckpt, or best.ckpt where last.ckpt is damaged or missing.

    Args:
        run_dir: the run's folder.
        metadata: what ``build_metadata`` says of the classifier that is to be trained.
        data: the data module, whose images have to be those of the checkpoint.
        max_epochs: how many epochs the run is to have.

    Returns:
        (None, 0) where nothing was trained yet.

    Raises:
        ValueError: no readable checkpoint is left, it belongs to another network, optimizer or data set, or it is of a
            later epoch.
    """
    # lazy: torch and Lightning take seconds, which a refused option need not wait for
    from imgclf.checkpoints.files import METADATA_KEY, read_checkpoint

    faults = []
    for file in (run_dir.last, run_dir.best):
        try:
            checkpoint = read_checkpoint(file)
        except (OSError, ValueError) as error:
            faults.append(str(error))
            continue
        if faults:
            log.warning("%s: going on from %s, epoch %d", faults[0], file, checkpoint["epoch"] + 1)
        _check_same_run(file, checkpoint[METADATA_KEY], metadata, data)
        if (epoch := checkpoint["epoch"] + 1) > max_epochs:
            raise ValueError(f"max_epochs={max_epochs}: {file} is of epoch {epoch} already; give {epoch} or more")
        return file, checkpoint["global_step"]
    if any(file.exists() for file in (run_dir.last, run_dir.best, run_dir.metrics_file, run_dir.path / "metrics.csv")):
        raise ValueError(f"{run_dir.path} cannot be resumed: {'; '.join(faults)}; to train anew, use a new folder")
    return None, 0


def _check_same_run(file: Path, saved: dict[str, Any], now: Mapping[str, Any], data: Any) -> None:
    from imgclf.checkpoints.metadata import changed_splits  # lazy: as above

    changed = [
        f"{name} was {saved.get(name)}, is {now[name]}"
        for name in ("class_names", "network", "optimizer")
        if saved.get(name, now[name]) != now[name]
    ]
    if changed:
        raise ValueError(f"{file} cannot be resumed with something else ({'; '.join(changed)}): use a new folder")
    if splits := changed_splits(saved, data):
        raise ValueError(
            f"{file} cannot be resumed: the {', '.join(splits)} images are not those it was trained with; bring them "
            "back, or use a new folder"
        )


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """The dotted names of a nested dictionary's leaves, and their values."""
    if not isinstance(config, dict):
        return {prefix[:-1]: config}
    return {key: value for name, item in config.items() for key, value in flat(item, f"{prefix}{name}.").items()}
