"""Trains a classifier; leaves a folder of metrics, figures and checkpoints.

python train.py                              the default, under a minute
python train.py data=image_folder data.root=DIR your own images, DIR/CLASS/*
python train.py -m model=mlp,cnn seed=1,2,3  six runs, compared
"""

import hydra
from omegaconf import DictConfig

from imgclf import cli, options
from imgclf.sweeps import sweepers

LIGHTNING = ("lightning.pytorch.Trainer", "lightning.pytorch.callbacks.*", "lightning.pytorch.loggers.*")
TORCH = ("torch.optim.*", "torch.nn.CrossEntropyLoss", "torch.nn.modules.loss.*")


@hydra.main(config_path="conf", config_name="train", execution_whitelist=("imgclf.*", *LIGHTNING, *TORCH))
@cli.task
def main(cfg: DictConfig) -> float | None:
    from hydra.utils import instantiate

    run_dir, config = options.start_run(cfg)  # refuses what is wrong before the seconds that the following imports take

    import lightning.pytorch as pl

    from imgclf.checkpoints.weights import build_network
    from imgclf.core.device import choose_device, shorten_steps, use_threads
    from imgclf.models.classifier import num_logits
    from imgclf.models.losses import build_loss
    from imgclf.training.distributed import Processes
    from imgclf.training.finish import evaluate_best
    from imgclf.training.fit import fit
    from imgclf.training.launch import launch_if_needed
    from imgclf.training.trainer import build_trainer

    device = choose_device(cfg.trainer.accelerator)
    if launch_if_needed(__file__, config["trainer"], device, cli.tracebacks):  # its processes did it all
        return run_dir.metrics()[cfg.objective]
    shorten_steps(device)
    with Processes(config["trainer"], device, run_dir.path) as processes, processes.claim(run_dir) as run_dir:
        run_dir.check_same_options(config)
        if processes.broadcast(run_dir.finished(config)):
            return options.finish_run(cfg, run_dir, run_dir.metrics() if processes.rank == 0 else None)
        pl.seed_everything(cfg.seed, verbose=False)
        use_threads(cfg.trainer.threads)

        data = instantiate(cfg.data, augmentation=instantiate(cfg.augmentation), _convert_="all")
        processes.prepare(data)
        data.setup("fit")
        size = {"image_shape": list(data.image_shape), "num_classes": num_logits(data.class_names)}
        network = build_network(instantiate(cfg.model, **size, _partial_=True, _convert_="all"), data.class_names)
        classifier = instantiate(cfg.classifier, _partial_=True)(
            network,
            data.class_names,
            *data.mean_and_std(),
            loss=build_loss(instantiate(cfg.loss, _partial_=True), data.class_weights()),
            optimizer=instantiate(cfg.optimizer, _convert_="all"),
            scheduler=instantiate(cfg.scheduler.factory, _convert_="all"),
            scheduler_interval=cfg.scheduler.interval,
            seed=cfg.seed,
        )
        trainer = build_trainer(config, run_dir, device, network)
        fit(run_dir, data, classifier, trainer, config)
        return options.finish_run(cfg, run_dir, evaluate_best(run_dir, data, trainer, config, cfg.evaluate_on))


if __name__ == "__main__":
    sweepers.register(options.check)
    cli.script(main, "train", __doc__)
