"""Hydra's sweepers, which here refuse a bad sweep before its first job and compare the jobs after its last.

``Grid`` is what ``-m`` uses by default, ``Search`` what sweep=random and sweep=bayesian configure.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import filter_overrides
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf

from imgclf.cli import one_line, plain
from imgclf.core import rng
from imgclf.sweeps.jobs import not_run, read_jobs
from imgclf.sweeps.robustness import evaluate_robustness
from imgclf.sweeps.summary import summarise


class Grid(BasicSweeper):
    """Every combination of comma-separated values.

    Where the configuration has ``cross_evaluate``, an option of the data such as data.variation, each job's best.ckpt
    is evaluated at the end on the test images of every value that the option had.
    """

    config: DictConfig  # pyrefly: ignore[bad-override-mutable-attribute]

    def sweep(self, arguments: list[str]) -> Any:
        given = {argument.partition("=")[0] for argument in arguments}
        for override in OverridesParser.create().parse_overrides(arguments):
            if override.is_interval_sweep():
                raise ValueError(
                    f"{override.input_line}: a grid needs values, as in {override.key_or_group}=1,2; intervals are for "
                    "sweep=random and sweep=bayesian"
                )
        self.params = {name: value for name, value in self.params.items() if name not in given}
        with compared(self.config, planned=self._planned):
            return super().sweep(arguments)

    def _planned(self) -> list[Sequence[str]]:
        """The overrides of every job; none before they are known."""
        return [filter_overrides(job) for batch in self.overrides or () for job in batch]


class Search(Sweeper):
    """Random or Bayesian search by Optuna: ``n_trials`` jobs, one a trial, the trial's number its folder.

    The study is kept in the sweep folder. Started again there, an interrupted search continues: finished trials
    stay, the one it was interrupted in goes on from its run folder, and ``n_trials`` counts all of them.

    Args:
        options: of hydra_plugins.hydra_optuna_sweeper.OptunaSweeper.

    Raises:
        ValueError: nothing is searched, the model is among what is searched, the folder holds a study of something
            else, or every trial failed.
    """

    config: DictConfig  # pyrefly: ignore[bad-override-mutable-attribute]

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(self, **context: Any) -> None:
        self.context, self.config = context, context["config"]

    def sweep(self, arguments: list[str]) -> None:
        from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import OptunaSweeper
        from optuna.trial import TrialState

        overrides, n_trials = self._overrides(arguments), self.options["n_trials"]
        with compared(self.config, tolerant=True) as mode:
            direction = f"{mode}imize"
            study = self._study(direction, overrides)
            finished = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
            seed = rng.derive_seed("search", self.config.seed, len(finished)) % 2**32
            changed: dict[str, Any] = {
                "params": None,  # among the overrides
                "n_trials": max(0, n_trials - len(finished)),
                "direction": direction,
                "sampler": {**self.options["sampler"], "seed": seed},
            }
            sweeper = OptunaSweeper(**{**self.options, **changed})
            sweeper.setup(**self.context)
            sweeper.sweeper.job_idx = len(finished)
            if changed["n_trials"] or any(trial.state is TrialState.COMPLETE for trial in finished):
                sweeper.sweep(list(overrides.values()))

    def _overrides(self, arguments: list[str]) -> dict[str, str]:
        """Option to "option=value" or "option=SPACE": the configured space, then what the command line gives."""
        choice, n_trials = self.config.hydra.runtime.choices.sweep, self.options["n_trials"]
        if not isinstance(n_trials, int) or n_trials < 1:
            raise ValueError(f"n_trials={n_trials}: give a whole number from 1 up")
        lines = [f"{name}={value}" for name, value in (self.options["params"] or {}).items()]
        lines += [argument for argument in arguments if not argument.startswith("n_trials=")]
        parsed = {override.get_key_element(): override for override in OverridesParser.create().parse_overrides(lines)}
        searched = [name for name, override in parsed.items() if override.is_sweep_override()]
        if not searched:
            model = self.config.hydra.runtime.choices.model
            raise ValueError(
                f"sweep={choice} has nothing to search: model={model} has no file in conf/sweep/space or all its "
                "options are fixed; give some, as in 'optimizer.lr=tag(log, interval(1e-4, 1e-2))'"
            )
        if "model" in searched:
            raise ValueError(f"sweep={choice} searches the space of one model: give one, or sweep models without it")
        return {name: str(override.input_line) for name, override in parsed.items()}

    def _study(self, direction: str, overrides: dict[str, str]) -> Any:
        """Optuna's study of the sweep folder, whose interrupted trials wait to be asked for again."""
        import optuna
        from optuna.trial import TrialState

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        if not read_jobs(folder):  # what was asked for never came to a job
            with contextlib.suppress(KeyError):
                optuna.delete_study(study_name=self.options["study_name"], storage=self.options["storage"])
        study = optuna.create_study(
            storage=self.options["storage"],
            study_name=self.options["study_name"],
            direction=optuna.study.StudyDirection[direction.upper()],
            load_if_exists=True,
        )
        asked = {**overrides, "objective": self.config.objective}
        asked = {name: line for name, line in asked.items() if name != "resume"}
        known = study.user_attrs.setdefault("overrides", asked)
        changed = sorted(name for name in {*known, *asked} if known.get(name) != asked.get(name))
        if changed:
            raise ValueError(
                f"{folder} holds another study: {', '.join(changed)} differ from what it was begun with; choose "
                "another hydra.sweep.dir, or give the same options (n_trials may grow)"
            )
        study.set_user_attr("overrides", asked)
        storage = optuna.storages.get_storage(self.options["storage"])
        study_id = storage.get_study_id_from_name(study.study_name)
        for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            # Nothing runs yet, so this one was interrupted. It keeps its number and the values it was given.
            number = storage.get_trial_id_from_study_id_trial_number(study_id, trial.number)
            storage.set_trial_state_values(number, TrialState.WAITING)
        return study


@contextlib.contextmanager
def compared(
    config: DictConfig, tolerant: bool = False, planned: Callable[[], Sequence[Sequence[str]]] = tuple
) -> Iterator[str]:
    """Around a sweep: checks first that its jobs can be ranked, and at the end, however it comes, compares them.

    Args:
        config: composed for the sweep, with ``hydra``.
        tolerant: failed jobs belong to the result unless all of them failed.
        planned: tells at the end the overrides of every job, so that those are named which the sweep did not come to.

    Yields:
        "min" or "max": which objective is better.

    Raises:
        ValueError: the objective is none, the folder holds a sweep already (and ``resume`` is off), or jobs failed.
    """
    from imgclf import options

    folder = Path(config.hydra.sweep.dir)
    mode = options.check(plain(OmegaConf.masked_copy(config, [k for k in config if k != "hydra"])))
    before = read_jobs(folder)
    if before and not config.resume:
        raise FileExistsError(
            f"{folder} holds a sweep already; add resume=true to continue it, or choose another hydra.sweep.dir"
        )
    failure = None
    try:
        yield mode
    except Exception as error:
        failure = error
    except SystemExit as stop:  # would end it as if all were well
        failure = RuntimeError(f"the sweep was asked to exit with {stop.code}")
    finally:
        jobs = read_jobs(folder)
        if jobs:
            finished = {job.path for job in before if job.status == "ok"}
            every = [*jobs, *not_run(jobs, planned())]
            summarise(folder, every, config.objective, mode, finished)
    failed = [job for job in jobs if job.status != "ok"]
    if failure and one_line(failure) not in {job.error for job in failed} and len(failed) < max(1, len(jobs)):
        raise failure
    if failed and (len(failed) == len(jobs) or not tolerant):
        raise ValueError(
            f"{len(failed)} of {len(jobs)} jobs failed, listed in {folder}/summary.csv; "
            f"{failed[0].path}: {failed[0].error or failed[0].status}"
        ) from failure
    if "cross_evaluate" in config:
        evaluate_robustness(folder, jobs, config.cross_evaluate, config.trainer.accelerator)


def register() -> None:
    """Makes the sweepers known to Hydra."""
    for sweeper in (Grid, Search):
        Plugins.instance().register(sweeper)
