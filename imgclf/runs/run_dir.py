"""The folder a run leaves behind: claimed by one run only, every file written whole."""

import contextlib
import json
import logging
import re
import shutil
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
from omegaconf import OmegaConf
from rich import get_console
from rich.logging import RichHandler

from imgclf.core.files import _csv, write_file
from imgclf.runs.environment import environment

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
LOCK = ".lock"
LEFTOVER = re.compile(r"\..+\.(ckpt|csv|json|png|yaml)\.\d+")  # of a file that a killed session was writing
JOB = "job.json"  # in a sweep: what the job was given and, if it failed, of what
WATCHING = ("best_checkpoint", "last_checkpoint", "progress_bar", "model_summary", "dashboard", "early_stopping")
# What may differ when a run is continued, by prefix: where and how fast it runs, and what is done with it afterwards.
MAY_CHANGE = (
    *("resume.", "n_trials.", "name.", "evaluate_on.", "logger.", "data_dir.", "cache_dir."),
    *("data.data_dir.", "data.cache_dir.", "data.num_workers."),
    *("trainer.accelerator.", "trainer.devices.", "trainer.num_nodes.", "trainer.strategy.", "trainer.max_epochs."),
    *("trainer.log_every_n_steps.", "trainer.enable_", "trainer.profiler."),
    *(f"callbacks.{name}." for name in WATCHING),
)


class RunDir:
    """Claims ``path`` for one run, as a context manager.

    Args:
        path: created if needed; must be new or empty, unless ``resume``.
        resume: continue what is there; None where that has no meaning.
        log: name of the log file.

    Raises:
        FileExistsError: the folder holds something and ``resume`` is off, or another run is using it.
    """

    def __init__(self, path: str | Path, resume: bool | None = None, log: str = "run.log") -> None:
        self.path = Path(path)
        self.best, self.last = self.path / "checkpoints" / "best.ckpt", self.path / "checkpoints" / "last.ckpt"
        self.metrics_file = self.path / "metrics.json"
        self._resume, self._log, self._described, self._new = resume, log, False, False
        self._lock = filelock.FileLock(self.path / LOCK)

    def __enter__(self) -> "RunDir":
        self._refuse_if_used()
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise FileExistsError(f"{self.path} is in use by another run; choose another hydra.run.dir") from None
        try:
            self._refuse_if_used()  # another run may have come and gone since
        except FileExistsError:
            self._lock.release()
            raise
        self._new = self._empty()
        for folder in (self.path, self.best.parent, self.path / "figures"):
            for file in folder.glob(".*"):
                if LEFTOVER.fullmatch(file.name):
                    file.unlink()
        self._start_logging()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is not None and self._described:  # a refusal is no part of the run that is there
            logging.getLogger(__name__).debug("stopped", exc_info=error)
        self._logging.close()
        if error is not None and {file.name for file in self.path.glob("*")} <= {LOCK, JOB, self._log}:
            (self.path / self._log).unlink(missing_ok=True)  # refused at once: the folder stays free for the next try
        with contextlib.suppress(OSError):  # while it is held: filelock notices, whoever waits for it
            (self.path / LOCK).unlink()
        self._lock.release()

    def _empty(self) -> bool:
        return not self.path.exists() or all(file.name in (LOCK, JOB) for file in self.path.iterdir())

    def _refuse_if_used(self) -> None:
        if self._resume or self._empty():
            return
        hint = "choose another hydra.run.dir"
        if self._resume is False:
            hint = f"add resume=true to continue it, or {hint}"
        raise FileExistsError(f"{self.path} exists and is not empty; {hint}")

    @property
    def in_sweep(self) -> bool:
        """Whether the run is a job of a sweep."""
        return (self.path / JOB).exists()

    def metrics(self) -> dict[str, float]:
        """metrics.json of a finished run."""
        return json.loads(self.metrics_file.read_text())

    def finished(self, config: dict[str, Any]) -> bool:
        """Whether the run is complete and ``config`` asks for no further epoch or split."""
        if not self.metrics_file.exists():
            return False
        saved, metrics = OmegaConf.load(self.path / "config.yaml"), self.metrics()
        evaluated = all(f"{split}/loss" in metrics for split in config["evaluate_on"])
        return evaluated and config["trainer"]["max_epochs"] <= saved.trainer.max_epochs

    def check_same_options(self, config: dict[str, Any]) -> None:
        """Refuses to continue a run under another configuration.

        Raises:
            ValueError: names the options that differ.
        """
        saved_file = self.path / "config.yaml"
        if not (saved_file.exists() and (self.last.exists() or self.best.exists())):
            return
        saved, now = _flat(OmegaConf.to_container(OmegaConf.load(saved_file))), _flat(config)
        keys = sorted(key for key in saved.keys() | now.keys() if not f"{key}.".startswith(MAY_CHANGE))
        changed = [f"{key} was {saved.get(key)}, is {now.get(key)}" for key in keys if saved.get(key) != now.get(key)]
        length = "trainer.max_epochs"
        if saved.get(length) != now.get(length) and now.get("scheduler.factory._target_"):
            changed.append(f"{length} was {saved.get(length)}, is {now.get(length)}, and the schedule depends on it")
        if changed:
            raise ValueError(
                f"{self.path} cannot be resumed with other options ({'; '.join(changed)}): use a new folder"
            )

    def write_config(self, config: dict[str, Any], device: str, resumed: bool = False) -> None:
        """Writes config.yaml and environment.json; of a resumed run that keeps what the first session was, and says
        of the later ones when they began and what differed."""
        self._described = True
        self.write("config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)))
        now, file = environment(config.get("seed"), device), self.path / "environment.json"
        if resumed and file.exists():
            first = json.loads(file.read_text())
            session = {name: value for name, value in now.items() if value != first.get(name)}
            now = {**first, "resumed": [*first.get("resumed", []), session]}
        self.write_json("environment.json", now)

    def clear(self) -> None:
        """Removes what a run that came to nothing has written, so that the folder is free for the next try.

        A folder that held anything before is left as it is.
        """
        if not self._new:
            return
        self._described = False
        for file in self.path.iterdir():
            if file.is_dir():
                shutil.rmtree(file)
            elif file.name not in (LOCK, JOB, self._log):  # which the end of the run sees to
                file.unlink()

    def write(self, name: str, data: str | bytes) -> Path:
        if not (self.path / LOCK).exists():
            raise FileNotFoundError(f"{self.path} was removed while the run went on: it ends here")
        return write_file(self.path / name, data)

    def write_json(self, name: str, values: dict[str, Any]) -> Path:
        return self.write(name, json.dumps(values, indent=2) + "\n")

    def write_csv(self, name: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Path:
        return self.write(name, _csv(columns, rows))

    def _start_logging(self) -> None:
        file = logging.FileHandler(self.path / self._log, delay=True, encoding="utf-8")
        file.setFormatter(logging.Formatter(LOG_FORMAT))
        file.setLevel(logging.DEBUG)
        file.handleError = lambda record: None  # a full disk: what a run cannot do without will say so
        console = RichHandler(console=get_console(), show_time=False, show_level=False, show_path=False, markup=False)
        if self.in_sweep:  # jobs may run side by side
            console.setFormatter(logging.Formatter(f"[{self.path.name}] %(message)s"))
        console.addFilter(lambda record: record.name.startswith("imgclf") and record.levelno >= logging.INFO)
        self._logging = undo = contextlib.ExitStack()
        root, ours = logging.getLogger(), logging.getLogger("imgclf")
        for logger, level in ((root, logging.INFO), (ours, logging.DEBUG)):
            undo.callback(logger.setLevel, logger.level)
            logger.setLevel(level)
        for handler in (file, console):
            root.addHandler(handler)
            undo.callback(handler.close)
            undo.callback(root.removeHandler, handler)
        # Libraries' notes and warnings go to the log file, not between the user and the progress bar.
        undo.enter_context(warnings.catch_warnings())
        warnings.simplefilter("default")
        logging.captureWarnings(True)
        undo.callback(logging.captureWarnings, False)
        # TensorBoard writes in a thread of its own, whose error is raised again where the run next logs something.
        undo.callback(setattr, threading, "excepthook", threading.excepthook)
        threading.excepthook = lambda failed: root.debug("in a thread", exc_info=failed.exc_value)
        for name in [name for name in root.manager.loggerDict if name.split(".")[0].startswith("lightning")]:
            logger = logging.getLogger(name)
            undo.callback(setattr, logger, "handlers", logger.handlers)
            undo.callback(setattr, logger, "propagate", logger.propagate)
            logger.handlers, logger.propagate = [], True


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(config, dict):
        return {prefix[:-1]: config}
    return {key: value for name, item in config.items() for key, value in _flat(item, f"{prefix}{name}.").items()}
