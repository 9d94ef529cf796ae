"""The folder a run leaves behind: one run claims it, and every file in it is written whole."""

import contextlib
import json
import logging
import math
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
from omegaconf import OmegaConf

from imgclf.core.files import write_csv, write_file, write_json
from imgclf.runs.environment import environment
from imgclf.runs.logs import log_to
from imgclf.runs.resume import changed_options

LOCK = ".lock"
JOB = "job.json"  # in the folder of a sweep's job: its overrides and, if it failed, the error
UNFINISHED = re.compile(r"\..+\.(ckpt|csv|html|json|png|yaml)\.\d+")  # a file that a killed session was writing


class RunDir:
    """Claims a folder for one run, as a context manager; within it, the run's log file is written.

    Args:
        path: the folder. It is created if needed.
        resume: whether to continue what is in the folder; None for commands that cannot.
        log: name of the log file.

    Attributes:
        best, last: paths of the two checkpoints, of the best and of the last epoch.
        metrics_file: path of metrics.json, which a finished run has.

    Raises:
        FileExistsError: the folder holds something and ``resume`` is off, or another run is using it.

    Example:
        >>> with RunDir("outputs/mine") as run_dir:
        ...     run_dir.write_json("metrics.json", {"test/accuracy": 0.99})
    """

    def __init__(self, path: str | Path, resume: bool | None = None, log: str = "run.log") -> None:
        self.path = Path(path)
        self.best, self.last = self.path / "checkpoints" / "best.ckpt", self.path / "checkpoints" / "last.ckpt"
        self.metrics_file = self.path / "metrics.json"
        self._resume, self._log = resume, log
        self._was_empty, self._has_config = False, False
        self._lock, self._logging = filelock.FileLock(self.path / LOCK), contextlib.ExitStack()

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
        self._was_empty = self._is_empty()
        for folder in (self.path, self.best.parent, self.path / "figures"):
            for file in folder.glob(".*"):
                if UNFINISHED.fullmatch(file.name):
                    file.unlink()
        self._logging.enter_context(log_to(self.path / self._log, f"[{self.path.name}] " if self.in_sweep else ""))
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is not None and self._has_config:  # else the run was refused, and the log is that of an earlier one
            logging.getLogger(__name__).debug("stopped", exc_info=error)
        self._logging.close()
        if error is not None and {file.name for file in self.path.glob("*")} <= {LOCK, JOB, self._log}:
            (self.path / self._log).unlink(missing_ok=True)  # refused at once: the folder stays free for the next try
        with contextlib.suppress(OSError):  # while the lock is held, so that no other run's lock is removed
            (self.path / LOCK).unlink()
        self._lock.release()

    def _is_empty(self) -> bool:
        return not self.path.exists() or all(file.name in (LOCK, JOB) for file in self.path.iterdir())

    def _refuse_if_used(self) -> None:
        if not self._resume and not self._is_empty():
            hint = "add resume=true to continue it, or " if self._resume is False else ""
            raise FileExistsError(f"{self.path} exists and is not empty; {hint}choose another hydra.run.dir")

    @property
    def in_sweep(self) -> bool:
        """Whether the run is a job of a sweep."""
        return (self.path / JOB).exists()

    def metrics(self) -> dict[str, float]:
        """metrics.json of a finished run."""
        return json.loads(self.metrics_file.read_text())

    def finished(self, config: Mapping[str, Any]) -> bool:
        """Whether the run is complete, and ``config`` asks for no further epoch or split."""
        if not self.metrics_file.exists():
            return False
        saved = self._saved_config()
        evaluated = set(config["evaluate_on"]) <= set(saved["evaluate_on"])  # the data may lack some of them
        patience, patience_before = (_patience(options) for options in (config, saved))
        stopped_early = self.metrics()["epochs"] < saved["trainer"]["max_epochs"]
        if stopped_early and patience > patience_before:
            return False
        return evaluated and config["trainer"]["max_epochs"] <= saved["trainer"]["max_epochs"]

    def check_same_options(self, config: Mapping[str, Any]) -> None:
        """Raises ValueError if options differ from those of the run that would be continued, and must not."""
        if not ((self.path / "config.yaml").exists() and (self.last.exists() or self.best.exists())):
            return
        if changed := changed_options(self._saved_config(), config):
            raise ValueError(
                f"{self.path} cannot be resumed with other options ({'; '.join(changed)}): use a new folder"
            )

    def write_config(self, config: Mapping[str, Any], device: str, resumed: bool = False) -> None:
        """Writes config.yaml and environment.json, which lists under "resumed" what was different in later sessions."""
        self._has_config = True
        self.write("config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(config))))
        now, file = environment(config.get("seed"), device), self.path / "environment.json"
        if resumed and file.exists():
            first = json.loads(file.read_text())
            session = {name: value for name, value in now.items() if value != first.get(name)}
            now = {**first, "resumed": [*first.get("resumed", []), session]}
        self.write_json("environment.json", now)

    def clear(self) -> None:
        """Frees the folder of a run that did not come to a first step, unless it held anything before."""
        if not self._was_empty:
            return
        self._has_config = False
        for file in self.path.iterdir():
            if file.is_dir():
                shutil.rmtree(file)
            elif file.name not in (LOCK, JOB, self._log):  # which leaving the context removes
                file.unlink()

    def write(self, name: str, data: str | bytes) -> Path:
        """Writes a file of the folder."""
        return write_file(self._path_of(name), data)

    def write_json(self, name: str, values: Mapping[str, Any]) -> Path:
        """Writes a dict, as ``imgclf.core.files.write_json`` does."""
        return write_json(self._path_of(name), values)

    def write_csv(self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any] | Mapping[str, Any]]) -> Path:
        """Writes a table, as ``imgclf.core.files.write_csv`` does."""
        return write_csv(self._path_of(name), columns, rows)

    def _path_of(self, name: str) -> Path:
        if not (self.path / LOCK).exists():
            raise FileNotFoundError(f"{self.path} was removed while the run went on: it ends here")
        return self.path / name

    def _saved_config(self) -> dict[str, Any]:
        saved: Any = OmegaConf.to_container(OmegaConf.load(self.path / "config.yaml"))
        return saved


def _patience(config: Mapping[str, Any]) -> float:
    """The epochs without improvement after which a run ends."""
    return ((config.get("callbacks") or {}).get("early_stopping") or {}).get("patience", math.inf)
