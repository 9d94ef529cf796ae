"""How the commands meet the user: options by their full names, one clear line for every bad input, exit code 1."""

import argparse
import contextlib
import functools
import gc
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from imgclf.core.files import write_json
from imgclf.core.text import CONTROL, tolerate_encoding
from imgclf.help import CONF, help_text, unknown_choice, unknown_option
from imgclf.runs.command_line import null_groups, quote_text, read_dictionaries, repeated, resumed_words
from imgclf.runs.resume import MAY_CHANGE, flat
from imgclf.runs.run_dir import JOB
from imgclf.training.distributed import SilentExit, Terminated, end_with_parent, report, started_by_us, terminate

# With the time, the process number keeps the default folders of runs apart. A sweep's jobs, wherever they run, keep the
# number of the process that swept.
OmegaConf.register_resolver("pid", os.getpid, use_cache=True, replace=True)

SWEEP_EXTRA = re.compile("hydra/(sweeper/optuna|launcher/(joblib|submitit_local|submitit_slurm|ray))")
OPTIONS_ARE = "options are written name=value, such as trainer.max_epochs=3"
ARGUMENT = re.compile(r"(?<![\w./=-])(?P<name>[A-Za-z]\w*)=(?P<value>[^\s:;,)]*)")  # in an error message of the library
LONGEST = 4000  # characters of a message

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
        write_json(file, {"overrides": overrides, "error": error, "message": message})

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
    """The overrides of a job that must stay the same when it is continued, sorted."""
    return sorted(word for word in overrides if not f"{word.partition('=')[0]}.".startswith(MAY_CHANGE))


@contextlib.contextmanager
def naming_options(cfg: Any) -> Iterator[None]:
    """Gives the composed options to exceptions raised within; ``one_line`` then names arguments as options."""
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
    gc.set_threshold(50_000)  # looking for garbage among a million new objects takes an eighth of the imports' time
    tolerate_encoding()
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
        if isinstance(error, SilentExit):
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


def one_line(error: Exception) -> str:
    """What, where and what to do instead, without a line break; arguments are called by their options' full names."""
    key_error = next((e for e in _chain(error) if isinstance(e, OmegaConfBaseException) and e.full_key), None)
    options = next((e.options for e in _chain(error) if hasattr(e, "options")), {})  # pyrefly: ignore[missing-attribute]
    if key_error is not None and "is not in struct" in str(key_error):
        text = unknown_option(key_error)
    elif isinstance(error, OverrideParseException):
        how = "quote unusual characters for Hydra too, as in 'ckpt=\"a=b.ckpt\"'"
        text = f"cannot read {error.override}: {how if '=' in error.override else OPTIONS_ARE}"
    elif isinstance(error, MissingConfigException) and SWEEP_EXTRA.fullmatch(error.missing_cfg_file or ""):
        text = f"{error.missing_cfg_file} is not installed: pip install -e '.[sweep]'"
    elif isinstance(error, MissingConfigException) and (group := (error.missing_cfg_file or "").partition("/"))[1]:
        text = unknown_choice(group[0], group[2])
    elif isinstance(error, MemoryError) or "allocate memory" in str(error):
        text = f"not enough memory: a smaller network, image or data.batch_size takes less ({str(error)[:200]})"
    elif isinstance(error, OSError) and error.filename and error.strerror:
        text = f"{error.filename}: {error.strerror}"
    elif isinstance(error, (ValueError, OSError, ArithmeticError, HydraException, OmegaConfBaseException)):
        said = next((str(e) for e in _chain(error) if str(e)), type(error).__name__)  # Hydra's own may say nothing
        text = full_names(said.partition("Config search path:")[0], options)
    else:
        notes = "; ".join([*getattr(error, "__notes__", ()), "HYDRA_FULL_ERROR=1 shows where"])
        text = f"{type(error).__name__}: {full_names(str(error)[:300], options)} ({notes})"
    return CONTROL.sub(lambda found: repr(found[0])[1:-1], " ".join(text.split()))[:LONGEST]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen = set()  # an error that a thread left behind is raised again while it is handled: a circle
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def full_names(message: str, options: Mapping[str, Any]) -> str:
    """An error message of the library, such as "val_fraction=2: ...", with the full names of its arguments' options.

    An argument is the one of ``options`` (see ``flat``) whose last part it is; of several, the one of the same value.
    """

    def full(found: re.Match[str]) -> str:
        same = [option for option in options if option.rpartition(".")[2] == found["name"]]
        if len(same) > 1:
            same = [option for option in same if str(options[option]) == found["value"]]
        return f"{same[0]}={found['value']}" if len(same) == 1 else found[0]

    return ARGUMENT.sub(full, message)
