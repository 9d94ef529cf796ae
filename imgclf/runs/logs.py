"""Where the log records of a run go: all of them into its log file, the library's own to the terminal."""

import contextlib
import logging
import re
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

from imgclf.core.console import ConsoleHandler

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
# Warnings about data and results; those of imgclf.core are about the machine.
WARNING = re.compile(r"^[\d-]+ [\d:,]+ WARNING imgclf(?!\.core)\S*: (.+)$", re.MULTILINE)


@contextlib.contextmanager
def log_to(path: Path, prefix: str = "") -> Iterator[None]:
    """Within this context, log records, warnings and failures of threads go to the file ``path``.

    The terminal shows the records of imgclf from INFO up, each after ``prefix``: jobs of a sweep may run side by side.
    On leaving, everything is as it was.
    """
    file = logging.FileHandler(path, delay=True, encoding="utf-8")
    file.setFormatter(logging.Formatter(FORMAT))
    file.setLevel(logging.DEBUG)
    file.handleError = lambda record: None  # the disk is full: a file that the run needs will fail with a clear error
    console = ConsoleHandler()
    console.setFormatter(logging.Formatter(f"{prefix}%(message)s"))
    console.addFilter(lambda record: record.name.startswith("imgclf") and record.levelno >= logging.INFO)
    root = logging.getLogger()
    with contextlib.ExitStack() as undo:
        for logger, level in ((root, logging.INFO), (logging.getLogger("imgclf"), logging.DEBUG)):
            undo.callback(logger.setLevel, logger.level)
            logger.setLevel(level)
        for handler in (file, console):
            root.addHandler(handler)
            undo.callback(handler.close)
            undo.callback(root.removeHandler, handler)
        # The warnings of libraries would break the progress bar: they go to the log file instead.
        undo.enter_context(warnings.catch_warnings())
        warnings.simplefilter("default")
        logging.captureWarnings(True)
        undo.callback(logging.captureWarnings, False)
        # TensorBoard writes in a thread. Its error is raised again where the run next logs something.
        undo.callback(setattr, threading, "excepthook", threading.excepthook)
        threading.excepthook = lambda failed: root.debug("in a thread", exc_info=failed.exc_value)
        for name in [name for name in root.manager.loggerDict if name.startswith("lightning")]:
            logger = logging.getLogger(name)
            undo.callback(setattr, logger, "handlers", logger.handlers)
            undo.callback(setattr, logger, "propagate", logger.propagate)
            logger.handlers, logger.propagate = [], True
        yield


def warnings_in(path: Path) -> list[str]:
    """The warnings about data and results in a log file that ``log_to`` wrote, each once; none without such a file."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return list(dict.fromkeys(WARNING.findall(text)))
