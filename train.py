"""Trains a classifier: python train.py [data=... model=... option=value ...]; see README.md and --help."""

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from imgclf import cli
from imgclf.sweeps.sweepers import register
from imgclf.training.cluster import as_started, check_devices, must_launch
from imgclf.training.distributed import Processes
from imgclf.training.launch import launch


@hydra.main(
    config_path="conf",
    config_name="train",
    execution_whitelist=(
        "imgclf.*",
        "lightning.pytorch.Trainer",
        "lightning.pytorch.callbacks.*",
        "lightning.pytorch.loggers.*",
        "torch.optim.*",
    ),
)
@cli.task
def main(cfg: DictConfig) -> float | None:
    from hydra.core.hydra_config import HydraConfig
    from hydra.utils import instantiate

    from imgclf.options import check
    from imgclf.runs.run_dir import RunDir

    job = HydraConfig.get()
    own = RunDir(job.runtime.output_dir, cfg.resume, "train.log")
    alone = not own.in_sweep
    repeats = sys.argv[1:5] if job.job.config_name != "train" else []  # of which run, as in cli.repeated
    if alone and job.runtime.choices.get("sweep"):
        raise ValueError(
            f"sweep={job.runtime.choices['sweep']} is for many runs: add -m, as in python train.py -m sweep=..."
        )
    if alone and cfg.resume is True and not any(word.startswith("hydra.run.dir=") for word in job.overrides.hydra):
        raise ValueError("resume=true of which run? name its folder, hydra.run.dir=DIR, which is started if it is new")
    config = cli.plain(cfg, resolve=True)
    config["trainer"] = as_started(config["trainer"])
    mode = check(config)

    import lightning.pytorch as pl  # seconds, which a wrong option need not wait for

    from imgclf.core.device import choose_device, shorten_steps
    from imgclf.models.classifier import OPTIONS, Classifier, num_logits
    from imgclf.training.callbacks import callback_arguments
    from imgclf.training.finish import evaluate_best, print_summary
    from imgclf.training.fit import fit
    from imgclf.training.trainer import optimizer_arguments, trainer_arguments

    device = choose_device(cfg.trainer.accelerator, "trainer.accelerator")
    check_devices(config["trainer"]["devices"], device)
    if must_launch(config["trainer"]):
        launch(__file__, config["trainer"]["devices"], cli.tracebacks)
        return own.metrics()[cfg.objective]
    shorten_steps(device)
    with Processes(config["trainer"], device, own.path) as processes, processes.claim(own) as folder:
        folder.check_same_options(config)
        if processes.broadcast(folder.finished(config)):
            if processes.rank == 0 and alone:
                print_summary(folder, folder.metrics(), [*repeats, *job.overrides.task])
            return folder.metrics()[cfg.objective]
        pl.seed_everything(cfg.seed, verbose=False)
        data = instantiate(cfg.data, augmentation=instantiate(cfg.augmentation), _convert_="all")
        processes.prepare(data)
        data.setup("fit")
        model = dict(config["model"])
        common = {name: model.pop(name) for name in OPTIONS}
        size = {"image_shape": data.image_shape, "num_classes": num_logits(data.class_names)}
        network = instantiate(model, **size, _convert_="all")
        classifier = Classifier(
            network,
            data.class_names,
            *data.mean_and_std(),
            optimizer=instantiate(cfg.optimizer, **optimizer_arguments(config), _convert_="all"),
            scheduler=instantiate(cfg.scheduler.factory, _convert_="all"),
            scheduler_interval=cfg.scheduler.interval,
            scheduler_monitor=cfg.scheduler.monitor,
            class_weights=data.class_weights(),
            seed=cfg.seed,
            **common,
        )
        callbacks = [
            instantiate(options, **callback_arguments(options, folder, mode))
            for name, options in cfg.callbacks.items()
            if options and cfg.trainer.get(f"enable_{name}", True) and (alone or name != "model_summary")
        ]
        loggers = [instantiate(options, save_dir=str(folder.path)) for options in cfg.logger.values() if options]
        trainer = instantiate(
            cfg.trainer, **trainer_arguments(config, folder, device, network, callbacks, loggers), _convert_="all"
        )
        fit(folder, data, classifier, trainer, config)
        metrics = evaluate_best(folder, data, trainer, config, cfg.evaluate_on)
        if metrics is None:
            return None
        if alone:  # jobs of a sweep are compared at its end
            print_summary(folder, metrics, [*repeats, *job.overrides.task])
        return metrics[cfg.objective]


if __name__ == "__main__":
    sys.argv[1:] = cli.repeated(sys.argv[1:], Path(__file__).parent / "conf" / "train.yaml")
    register()
    cli.run(main)
