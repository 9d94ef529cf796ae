"""How train.py and evaluate.py meet the user: one clear line for every bad input, exit code 1."""

import argparse
import contextlib
import difflib
import functools
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import OmegaConf

from imgclf.core.text import CONTROL
from imgclf.training.distributed import Quiet, Terminated, end_with_parent, report, started_by_us, terminate

# With the time, the process number keeps the default folders of runs apart. A sweep's jobs, wherever they run, keep the
# one of the process that swept.
OmegaConf.register_resolver("pid", os.getpid, use_cache=True, replace=True)


CONF = Path(__file__).parent.parent / "conf"
EXPECTED = (ValueError, OSError, ArithmeticError)  # the library's own complaints: their message says it all

SWEEP_EXTRA = (
    "hydra/sweeper/optuna",
    *(f"hydra/launcher/{name}" for name in ("joblib", "submitit_local", "submitit_slurm", "ray")),
)

OPTIONS_ARE = "options are written name=value, such as trainer.max_epochs=3"
LONGEST = 4000  # characters of a message

tracebacks = False  # whether the user asked for them
_failures: list[Exception] = []


def task(main: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Goes between ``hydra.main`` and the function: a lone run's exception is kept for ``run`` to report.

    Hydra would print the list of overrides first. In a sweep that line says which job failed, so it stays; the job's
    folder also says so, in job.json, which the sweep is summarised from.
    """

    @functools.wraps(main)
    def wrapped(cfg: Any) -> Any:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        if HydraConfig.get().mode is RunMode.MULTIRUN:
            return _job(main, cfg)
        try:
            return main(cfg)
        except Exception as error:
            with contextlib.suppress(OSError):
                os.rmdir(HydraConfig.get().runtime.output_dir)  # if nothing was written yet
            _note_given(error)
            _failures.append(error)

    return wrapped


def _job(main: Callable[[Any], Any], cfg: Any) -> Any:
    from hydra.core.hydra_config import HydraConfig

    from imgclf.core.files import write_file
    from imgclf.runs.run_dir import JOB

    overrides, file = list(HydraConfig.get().overrides.task), Path(HydraConfig.get().runtime.output_dir) / JOB
    if file.exists() and _settings(json.loads(file.read_text())["overrides"]) != _settings(overrides):
        raise ValueError(f"{file.parent} is a job of another sweep: choose another hydra.sweep.dir")

    def tell(error: str | None) -> None:
        write_file(file, json.dumps({"overrides": overrides, "error": error}, indent=2) + "\n")

    tell(None)
    try:
        try:
            return main(cfg)
        except SystemExit as stop:  # would end the whole sweep
            raise RuntimeError(f"the job asked to exit with {stop.code}") from stop
    except Exception as error:
        _note_given(error)
        tell(one_line(error))
        raise


def _note_given(error: Exception) -> None:
    """Where to look first, if the error is a library's, which knows nothing of options."""
    from hydra.core.hydra_config import HydraConfig

    error.add_note(f"given {' '.join(plain(HydraConfig.get().overrides)['task'])[:300]}")


def _settings(overrides: list[str]) -> list[str]:
    """The overrides that make a job what it is, in an order of their own."""
    from imgclf.runs.resume import MAY_CHANGE

    return sorted(word for word in overrides if not f"{word.partition('=')[0]}.".startswith(MAY_CHANGE))


def run(main: Callable[[], object]) -> None:
    """Runs a ``hydra.main`` function; an exception becomes one line on stderr unless HYDRA_FULL_ERROR=1 is set."""
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


def _refuse(self: argparse.ArgumentParser, message: str) -> NoReturn:
    raise ValueError(f"{message}: {OPTIONS_ARE}; --help lists them")


def plain(config: Any, resolve: bool = False) -> dict[str, Any]:
    """A configuration as plain types."""
    values: Any = OmegaConf.to_container(config, resolve=resolve)
    return values


def repeated(arguments: list[str], conf: Path) -> list[str]:
    """The command line, completed where it repeats a run: --config-path RUN --config-name config.

    RUN/config.yaml has every option of the run but those of Hydra itself, which are taken from ``conf``: above all that
    the run gets a folder of its own.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-path", "-cp")
    parser.add_argument("--config-name", "-cn", default="config")
    given, rest = parser.parse_known_args(arguments)
    file = Path(given.config_path or "") / f"{given.config_name.removesuffix('.yaml')}.yaml"
    if not (given.config_path and file.is_file()) or "defaults" in OmegaConf.load(file):
        return arguments
    from hydra.core.override_parser.types import Quote, QuotedString

    own = plain(OmegaConf.load(conf).hydra)
    values = {"run.dir": own["run"]["dir"], "sweep.dir": own["sweep"]["dir"], "sweep.subdir": own["sweep"]["subdir"]}
    options = [
        *("hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.output_subdir=null"),
        f"hydra.sweeper._target_={own['sweeper']['_target_']}",
        *(f"hydra.{name}={QuotedString(value, Quote.single).with_quotes()}" for name, value in values.items()),
    ]
    flags = ["--config-path", str(file.parent.absolute()), "--config-name", file.stem]
    return [*flags, *(option for option in options if option not in rest), *rest]


def one_line(error: Exception) -> str:
    """What, where and what to do instead, without a line break."""
    from hydra.errors import HydraException, MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    key_error = next((e for e in _chain(error) if isinstance(e, OmegaConfBaseException) and e.full_key), None)
    if key_error is not None and "is not in struct" in str(key_error):
        text = _unknown_key(key_error)
    elif isinstance(error, OverrideParseException):
        how = "quote unusual characters for Hydra too, as in 'ckpt=\"a=b.ckpt\"'"
        text = f"cannot read {error.override}: {how if '=' in error.override else OPTIONS_ARE}"
    elif isinstance(error, MissingConfigException) and error.missing_cfg_file in SWEEP_EXTRA:
        text = f"{error.missing_cfg_file} is not installed: pip install -e '.[sweep]'"
    elif isinstance(error, MemoryError) or "allocate memory" in str(error):
        text = f"not enough memory: a smaller network, image or data.batch_size takes less ({str(error)[:200]})"
    elif isinstance(error, OSError) and error.filename and error.strerror:
        text = f"{error.filename}: {error.strerror}"
    else:
        text = str(error).partition("Config search path:")[0]
        if not isinstance(error, (*EXPECTED, HydraException, OmegaConfBaseException)):
            notes = "; ".join([*getattr(error, "__notes__", ()), "HYDRA_FULL_ERROR=1 shows where"])
            text = f"{type(error).__name__}: {text[:300]} ({notes})"
    return CONTROL.sub(lambda found: repr(found[0])[1:-1], " ".join(text.split()))[:LONGEST]


def _unknown_key(error) -> str:
    name = error.full_key.rpartition(".")[2]
    known = sorted(str(key) for key in error.parent_node) if error.parent_node is not None else []
    known = [key for key in known if not key.startswith("_") and key != "hydra"]
    group = error.full_key.rpartition(".")[0]
    close = difflib.get_close_matches(name, known, n=1)
    if error.full_key == "data.variation":
        return (
            "data.variation: these data have no variations; add data=noisy_mnist (data.base=...) or data=noisy_digits"
        )
    hint = f"did you mean {f'{group}.' if group else ''}{close[0]}? " if close else ""
    folder = group or "sweep"  # whose choices add options of their own to the configuration
    choices = [file.stem for file in sorted((CONF / folder).glob("*.yaml")) if name in OmegaConf.load(file)]
    if choices and not hint:
        hint = f"it comes with {folder}={' or '.join(choices)}; "
    return f"unknown option {error.full_key}: {hint}{group or 'the configuration'} has {', '.join(known)}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen = set()  # an error that a thread left behind is raised again while it is handled: a circle
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
