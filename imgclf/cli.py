"""How the commands meet the user: options by their full names, one clear line for every bad input, exit code 1."""

import argparse
import contextlib
import functools
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from imgclf.core.files import write_file
from imgclf.help import help_text
from imgclf.runs.command_line import null_groups, quote_text, read_dictionaries, repeated, resumed_words
from imgclf.runs.errors import CONF, OPTIONS_ARE, one_line, unknown_choice
from imgclf.runs.resume import MAY_CHANGE, flat
from imgclf.runs.run_dir import JOB
from imgclf.training.distributed import Quiet, Terminated, end_with_parent, report, started_by_us, terminate

# With the time, the process number keeps the default folders of runs apart. A sweep's jobs, wherever they run, keep the
# number of the process that swept.
OmegaConf.register_resolver("pid", os.getpid, use_cache=True, replace=True)


tracebacks = False  # whether the user asked for them
_failures: list[Exception] = []


def task(main: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Goes between ``hydra.main`` and the function: keeps the exception of a single run for ``run`` to report.

    Hydra would print the list of overrides first. In a sweep, that list says which job failed, so Hydra prints it; the
    job's own folder says so too, in job.json, from which the sweep is summarised.
    """

    @functools.wraps(main)
    def wrapped(cfg: Any) -> Any:
        hydra = HydraConfig.get()
        if hydra.mode is RunMode.MULTIRUN:
            return _job(main, cfg)
        try:
            with naming_options(cfg):
                read_dictionaries(cfg.data)
                return main(cfg)
        except Exception as error:
            with contextlib.suppress(OSError):
                os.rmdir(hydra.runtime.output_dir)  # if nothing was written yet
            _failures.append(error)

    return wrapped


def _job(main: Callable[[Any], Any], cfg: Any) -> Any:
    """Runs a job of a sweep, and writes what it was given and how it failed into its folder."""
    overrides, file = list(HydraConfig.get().overrides.task), Path(HydraConfig.get().runtime.output_dir) / JOB
    if file.exists() and _lasting(json.loads(file.read_text())["overrides"]) != _lasting(overrides):
        raise ValueError(f"{file.parent} is a job of another sweep: choose another hydra.sweep.dir")

    def write(error: str | None, message: str | None) -> None:
        write_file(file, json.dumps({"overrides": overrides, "error": error, "message": message}, indent=2) + "\n")

    write(None, None)
    try:
        with naming_options(cfg):
            read_dictionaries(cfg.data)
            try:
                return main(cfg)
            except SystemExit as stop:  # would end the whole sweep
                raise RuntimeError(f"the job asked to exit with {stop.code}") from stop
    except Exception as error:
        write(one_line(error), str(error))
        raise


def _lasting(overrides: Sequence[str]) -> list[str]:
    """The overrides that make a job what it is, in an order of their own."""
    return sorted(word for word in overrides if not f"{word.partition('=')[0]}.".startswith(MAY_CHANGE))


@contextlib.contextmanager
def naming_options(cfg: Any) -> Iterator[None]:
    """Exceptions raised within know the composed options, so that ``one_line`` can call arguments by these names."""
    try:
        yield
    except Exception as error:
        if not hasattr(error, "options"):
            error.options = flat(OmegaConf.to_container(OmegaConf.create(cfg)))  # pyrefly: ignore[missing-attribute]
            if HydraConfig.initialized():
                error.add_note(f"given {' '.join(HydraConfig.get().overrides.task)[:300]}")
        raise


def run(main: Callable[[], object]) -> None:
    """Runs a command; an exception becomes one line on stderr, unless HYDRA_FULL_ERROR=1 is set."""
    global tracebacks
    end_with_parent()
    tracebacks = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra hand exceptions over instead of printing them itself
    before = signal.signal(signal.SIGTERM, terminate)
    usage = argparse.ArgumentParser.error
    argparse.ArgumentParser.error = _refuse  # instead of a list of Hydra's flags
    try:
        main()
        if _failures:
            raise _failures.pop()
    except KeyboardInterrupt as stop:
        word, code = ("terminated", 143) if isinstance(stop, Terminated) else ("interrupted", 130)
        if not started_by_us():
            print(": ".join(filter(None, [word, str(stop)])), file=sys.stderr)
        sys.exit(code)
    except Exception as error:
        if tracebacks:
            raise
        if isinstance(error, Quiet):
            sys.exit(error.code)
        sys.exit(report(f"error: {one_line(error)}"))
    finally:
        argparse.ArgumentParser.error = usage
        signal.signal(signal.SIGTERM, before)


def script(main: Callable[[], object], name: str, usage: str | None, before: Callable[[], object] = tuple) -> None:
    """Runs ``main``, which ``hydra.main`` decorates, or prints the help of NAME.py: ``usage``, then all options.

    ``before`` is called first; its errors are reported like those of ``main``.
    """

    def commands() -> None:
        sys.argv[1:] = resumed_words(null_groups(quote_text(sys.argv[1:])))
        for word in sys.argv[1:]:
            if word.startswith("data=") and len(Path(word).parts) > 1:
                raise ValueError(unknown_choice("data", word.removeprefix("data=")))
        before()
        sys.argv[1:] = repeated(sys.argv[1:], CONF / f"{name}.yaml")
        main()

    if {"-h", "--help"} & set(sys.argv[1:]):
        print(help_text(CONF, name, (usage or "").strip()))
    else:
        run(commands)


def _refuse(self: argparse.ArgumentParser, message: str) -> NoReturn:
    raise ValueError(f"{message}: {OPTIONS_ARE}; --help lists them")
