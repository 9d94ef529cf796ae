"""How train.py and evaluate.py meet the user: one clear line for every bad input, exit code 1."""

import contextlib
import difflib
import functools
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from omegaconf import OmegaConf

from imgclf import distributed

# With the time, the process number keeps the default folders of runs apart.
OmegaConf.register_resolver("pid", os.getpid, replace=True)

EXPECTED = (ValueError, OSError, ArithmeticError)  # the library's own complaints: their message says it all


tracebacks = False  # whether the user asked for them
_failures: list[Exception] = []


def task(main: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Goes between ``hydra.main`` and the function: a lone run's exception is kept for ``run`` to report.

    Hydra would print the list of overrides first. In a sweep that line says which job failed, so it stays.
    """

    @functools.wraps(main)
    def wrapped(cfg: Any) -> Any:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        try:
            return main(cfg)
        except Exception as error:
            with contextlib.suppress(OSError):
                os.rmdir(HydraConfig.get().runtime.output_dir)  # if nothing was written yet
            if HydraConfig.get().mode is RunMode.MULTIRUN:
                raise
            _failures.append(error)

    return wrapped


def run(main: Callable[[], object]) -> None:
    """Runs a ``hydra.main`` function; an exception becomes one line on stderr unless HYDRA_FULL_ERROR=1 is set."""
    global tracebacks
    distributed.end_with_parent()
    tracebacks = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra hand exceptions over instead of printing them itself
    try:
        main()
        if _failures:
            raise _failures.pop()
    except KeyboardInterrupt as stop:
        if not distributed.started_by_us():
            print(": ".join(filter(None, ["interrupted", str(stop)])), file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if tracebacks:
            raise
        if isinstance(error, distributed.Quiet):
            sys.exit(error.code)
        sys.exit(distributed.report(f"error: {one_line(error)}"))


def one_line(error: Exception) -> str:
    """What, where and what to do instead, without a line break."""
    from hydra.errors import HydraException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    key_error = next((e for e in _chain(error) if isinstance(e, OmegaConfBaseException) and e.full_key), None)
    if key_error is not None and "is not in struct" in str(key_error):
        text = _unknown_key(key_error)
    elif isinstance(error, OverrideParseException):
        text = f"cannot read {error.override}: quote unusual characters for Hydra too, as in 'ckpt=\"a=b.ckpt\"'"
    else:
        text = str(error).partition("Config search path:")[0]
        if not isinstance(error, (*EXPECTED, HydraException, OmegaConfBaseException)):
            text = f"{type(error).__name__}: {text[:300]} (HYDRA_FULL_ERROR=1 shows where)"
    return " ".join(text.split())


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
    return f"unknown option {error.full_key}: {hint}{group or 'the configuration'} has {', '.join(known)}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
