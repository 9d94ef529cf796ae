"""Compares two networks that were evaluated on the same images.

    python -m imgclf.compare FIRST SECOND [to=DIR]

  FIRST, SECOND   folders of train.py or evaluate.py, or predictions.csv
  to=DIR          a new folder; by default outputs/compare/ and the time

Prints every metric of both with the 95% interval of the difference (paired
bootstrap) and McNemar's exact test. Leaves comparison.json, comparison.csv (the
images on which only one is right) and figures/comparison.png, which shows them.
"""

import sys
from collections.abc import Sequence
from datetime import datetime

from imgclf import cli
from imgclf.help import key_values


def main(words: Sequence[str]) -> None:
    """Runs the command with its arguments, two paths and perhaps ``to=DIR``."""
    options = [word for word in words if word.startswith("to=") or word in ("-h", "--help")]
    given = key_values(options, __doc__, to=f"outputs/compare/{datetime.now():%Y-%m-%d_%H-%M-%S-%f}")
    if given is None:
        return
    sources = [word for word in words if word not in options]
    if len(sources) != 2:
        raise ValueError(f"{len(sources)} runs to compare: name two, as in python -m imgclf.compare FIRST SECOND")
    # lazy: torch takes seconds to import, and --help comes at once
    from imgclf.evaluation.compare import compare
    from imgclf.runs.run_dir import RunDir

    with RunDir(given["to"], log="compare.log") as run_dir:
        compare(run_dir, *sources)


if __name__ == "__main__":
    cli.run(lambda: main(sys.argv[1:]))
