"""Hydra's sweepers, surrounded by a check of the sweep's options and a comparison of its jobs.

``-m`` uses ``Grid`` by default; sweep=random and sweep=bayesian configure ``Search``.
"""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Private API: Hydra has no public module for its basic sweeper. Its documentation names this class, and Grid would
# otherwise repeat it.
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import filter_overrides
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext
from omegaconf import DictConfig

from imgclf.core.names import better
from imgclf.sweeps.comparison import Check, checked_and_compared
from imgclf.sweeps.jobs import read_jobs

if TYPE_CHECKING:  # lazy: an extra, and slow to import
    from optuna import Study


class Grid(BasicSweeper):
    """Runs every combination of comma-separated values.

    Where the configuration has ``cross_evaluate``, an option of the data such as data.variation, every job's best.ckpt
    is evaluated at the end on the test images of every value that the option had.

    Raises:
        ValueError: an option has an interval instead of values.
    """

    config: DictConfig  # pyrefly: ignore[bad-override-mutable-attribute]
    hydra_context: HydraContext  # pyrefly: ignore[bad-override-mutable-attribute]
    check: Check

    def sweep(self, arguments: list[str]) -> Any:
        given = {argument.partition("=")[0] for argument in arguments}
        self.params = {name: value for name, value in self.params.items() if name not in given}
        lines = [*(f"{name}={value}" for name, value in self.params.items()), *arguments]
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)  # which glob(*) needs
        overrides = parser.parse_overrides(lines)
        for override in overrides:
            if override.is_interval_sweep():
                raise ValueError(
                    f"{override.input_line}: a grid needs values, as in {override.key_or_group}=1,2; intervals are for "
                    "sweep=random and sweep=bayesian"
                )
        (jobs,) = self.split_arguments(overrides, max_batch_size=None)
        with checked_and_compared(self.config, self.check, planned=[filter_overrides(job) for job in jobs]):
            return super().sweep(arguments)


class Search(Sweeper):
    """Random or Bayesian search by Optuna: ``n_trials`` jobs, each a trial whose number names its folder.

    The study is kept in the sweep folder. An interrupted search that is started again there continues: finished trials
    stay, the interrupted one goes on from its run folder, and ``n_trials`` counts all of them. The options are those of
    hydra_plugins.hydra_optuna_sweeper.OptunaSweeper.

    Raises:
        ValueError: no option is searched, the model is among those searched, the folder holds another study, or every
            trial failed.
    """

    config: DictConfig  # pyrefly: ignore[bad-override-mutable-attribute]
    check: Check

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(self, **context: Any) -> None:
        self.context, self.config = context, context["config"]
        # Hydra instantiates a sweeper from a copy, in which the time that names the sweep folder is a later one.
        self.options["storage"] = self.config.hydra.sweeper.storage

    def sweep(self, arguments: list[str]) -> None:
        from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import OptunaSweeper  # lazy: an extra, and slow
        from optuna.trial import TrialState

        from imgclf.core import rng  # lazy: torch

        overrides = self._overrides(arguments)
        with checked_and_compared(self.config, self.check, failures_allowed=True):
            study = self._open_study(overrides)
            finished = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
            missing = max(0, self.options["n_trials"] - len(finished))
            seed = rng.derive_seed("search", self.config.seed, len(finished)) % 2**32
            options: dict[str, Any] = dict(self.options, params=None, n_trials=missing)  # overrides hold the params
            options |= {"direction": study.direction.name.lower(), "sampler": {**options["sampler"], "seed": seed}}
            sweeper = OptunaSweeper(**options)
            sweeper.setup(**self.context)
            # Private API: Hydra's Optuna sweeper numbers jobs from 0; those of a continued search go on from here.
            sweeper.sweeper.job_idx = len(finished)
            if missing or any(trial.state is TrialState.COMPLETE for trial in finished):
                sweeper.sweep(list(overrides.values()))

    def _overrides(self, arguments: list[str]) -> dict[str, str]:
        """Each option and its "option=value" or "option=SPACE"; the command line replaces the configured space."""
        choices, n_trials = self.config.hydra.runtime.choices, self.options["n_trials"]
        if not isinstance(n_trials, int) or n_trials < 1:
            raise ValueError(f"n_trials={n_trials}: give a whole number from 1 up")
        lines = [f"{name}={value}" for name, value in (self.options["params"] or {}).items()]
        lines += [argument for argument in arguments if not argument.startswith("n_trials=")]
        parsed = {override.get_key_element(): override for override in OverridesParser.create().parse_overrides(lines)}
        searched = [name for name, override in parsed.items() if override.is_sweep_override()]
        if not searched:
            raise ValueError(
                f"sweep={choices.sweep} has nothing to search: model={choices.model} has no file in conf/sweep/space, "
                "or all of its options are fixed; give an option an interval or a choice, as the files there do"
            )
        if "model" in searched:
            raise ValueError(
                f"sweep={choices.sweep} searches the space of one model: give one, or sweep models without it"
            )
        return {name: str(override.input_line) for name, override in parsed.items()}

    def _open_study(self, overrides: dict[str, str]) -> "Study":
        """Opens or creates the study of the sweep folder, and lets its interrupted trials be asked for again."""
        import optuna  # lazy: an extra, and slow to import

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        folder, name = Path(self.config.hydra.sweep.dir), self.options["study_name"]
        folder.mkdir(parents=True, exist_ok=True)
        storage = optuna.storages.get_storage(self.options["storage"])
        if not read_jobs(folder):  # no trial of the earlier search, if there was one, became a job
            with contextlib.suppress(KeyError):
                optuna.delete_study(study_name=name, storage=storage)
        direction = "minimize" if better(self.config.objective) == "min" else "maximize"
        study = optuna.create_study(storage=storage, study_name=name, direction=direction, load_if_exists=True)
        asked = {name: given for name, given in overrides.items() if name != "resume"}
        asked["objective"] = self.config.objective
        known = study.user_attrs.get("overrides", asked)
        changed = sorted(option for option in {*known, *asked} if known.get(option) != asked.get(option))
        if changed:
            raise ValueError(
                f"{folder} holds another study: {', '.join(changed)} differ from what it was begun with; choose "
                "another hydra.sweep.dir, or give the same options (n_trials may grow)"
            )
        study.set_user_attr("overrides", asked)
        for trial in study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
            # Private API: a study can only enqueue a new trial; its storage lets an interrupted one, which no process
            # runs now, keep its number and its values.
            storage.set_trial_state_values(trial._trial_id, optuna.trial.TrialState.WAITING)
        return study


def register(check: Check) -> None:
    """Makes the sweepers known to Hydra; they call ``check`` as ``checked_and_compared`` describes it."""
    for sweeper in (Grid, Search):
        sweeper.check = staticmethod(check)
        Plugins.instance().register(sweeper)
