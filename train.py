"""Trains a classifier: python train.py [data=... model=... option=value ...]; see README.md and --help."""

import sys
from itertools import chain
from pathlib import Path

import hydra
from omegaconf import DictConfig

from imgclf import cli
from imgclf.sweeps.sweepers import register
from imgclf.training.distributed import Processes, check_devices
from imgclf.training.fit import layout, report, supplied, train, unfused
from imgclf.training.launch import as_started, launch, must_launch


@hydra.main(
    config_path="conf",
    config_name="train",
    execution_whitelist=(
        "imgclf.*",
        "lightning.pytorch.Trainer",
        "lightning.pytorch.callbacks.*",
        "lightning.pytorch.loggers.*",
        "torch.nn.CrossEntropyLoss",
        "torch.nn.modules.loss.*",
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

    from imgclf.checkpoints.files import AtomicCheckpointIO
    from imgclf.core.device import choose_device, choose_precision, shorten_steps
    from imgclf.models.classifier import num_logits
    from imgclf.models.losses import build_loss
    from imgclf.training.callbacks import CheckpointMetadata
    from imgclf.training.history import History
    from imgclf.training.interruption import Interruption

    device = choose_device(cfg.trainer.accelerator)
    check_devices(config["trainer"]["devices"], device)
    if must_launch(config["trainer"]):
        launch(__file__, config["trainer"]["devices"])
        return own.metrics()[cfg.objective]
    shorten_steps(device)
    with Processes(config["trainer"], device, own.path) as processes, processes.claim(own) as folder:
        folder.check_same_options(config)
        if processes.broadcast(folder.finished(config)):
            if processes.rank == 0 and alone:
                report(folder, folder.metrics(), [*repeats, *job.overrides.task])
            return folder.metrics()[cfg.objective]
        pl.seed_everything(cfg.seed, verbose=False)
        data = instantiate(cfg.data, augmentation=instantiate(cfg.augmentation), _convert_="all")
        processes.prepare(data)
        data.setup("fit")
        size = {"image_shape": data.image_shape, "num_classes": num_logits(data.class_names)}
        network = instantiate(cfg.model, **size, _convert_="all")
        mean, std = data.mean_and_std()
        # _partial_: class names must not pass through OmegaConf, which would interpolate "${...}"
        classifier = instantiate(cfg.classifier, _partial_=True)(
            network,
            data.class_names,
            mean,
            std,
            loss=build_loss(instantiate(cfg.loss, _partial_=True, _convert_="all"), data.class_weights()),
            optimizer=instantiate(cfg.optimizer, **unfused(config), _convert_="all"),
            scheduler=instantiate(cfg.scheduler.factory, _convert_="all"),
            scheduler_interval=cfg.scheduler.interval,
            seed=cfg.seed,
        )
        history = History(lambda rows: folder.write_csv("metrics.csv", list(dict.fromkeys(chain(*rows))), rows))
        callbacks = [
            instantiate(options, **supplied(options, folder, mode))
            for name, options in cfg.callbacks.items()
            if options and cfg.trainer.get(f"enable_{name}", True) and (alone or name != "model_summary")
        ]
        trainer = instantiate(
            cfg.trainer,
            **layout(config),
            precision=choose_precision(cfg.trainer.precision, device, network),
            callbacks=[CheckpointMetadata(), history, *callbacks, Interruption(folder.last)],
            logger=[instantiate(options, save_dir=str(folder.path)) for options in cfg.logger.values() if options],
            plugins=[AtomicCheckpointIO()],
            default_root_dir=str(folder.path),
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        metrics = train(folder, data, classifier, trainer, config, cfg.evaluate_on)
        if metrics is None:
            return None
        if alone:  # jobs of a sweep are compared at its end
            report(folder, metrics, [*repeats, *job.overrides.task])
        return metrics[cfg.objective]


if __name__ == "__main__":
    sys.argv[1:] = cli.repeated(sys.argv[1:], Path(__file__).parent / "conf" / "train.yaml")
    register()
    cli.run(main)
