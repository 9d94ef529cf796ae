"""Evaluates checkpoints: python evaluate.py ckpt=... [data=... data.variation=... | images=PATH]; see README.md."""

import sys

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from imgclf import cli
from imgclf.evaluation.evaluate import evaluate
from imgclf.evaluation.leakage import DIVISION, SOURCE, check_split, check_unseen, warn_of_changed_data
from imgclf.evaluation.predict_files import predict_files
from imgclf.evaluation.report import report_evaluation


@hydra.main(
    config_path="conf",
    config_name="evaluate",
    execution_whitelist=("imgclf.data.*", "imgclf.transforms.*"),
)
@cli.task
def main(cfg: DictConfig) -> float | None:
    from hydra.core.hydra_config import HydraConfig
    from hydra.utils import instantiate

    from imgclf.core.device import choose_device, shorten_steps
    from imgclf.inference.ensemble import ensemble
    from imgclf.inference.load import load
    from imgclf.runs.run_dir import RunDir

    paths = _paths(cli.plain(cfg)["ckpt"])
    check_split(cfg.split)
    device = choose_device(cfg.accelerator)
    shorten_steps(device)
    predictor = ensemble([load(path, device) for path in paths])
    predictor.use_tta(cfg.tta, instantiate(cfg.augmentation))
    with RunDir(HydraConfig.get().runtime.output_dir, log="evaluate.log") as folder:
        if cfg.images:
            predict_files(folder, predictor, cfg.images, cfg.images_as)
            folder.write_config(cli.plain(cfg, resolve=True), str(device))
            return None
        if "_target_" not in cfg.data:
            raise ValueError(f"ckpt={cfg.ckpt} does not say what data it was trained on: name some, such as data=mnist")
        if typed := OmegaConf.missing_keys(cfg.data):
            options = " ".join(f"{name}=..." for name in sorted(typed))
            raise ValueError(f"ckpt={cfg.ckpt} names a place on this machine and lies in no run folder: type {options}")
        own = HydraConfig.get().runtime.choices["data"] == "checkpoint"
        check_unseen(paths, cfg.data, cfg.split, own)
        data = instantiate(cfg.data, _convert_="all")
        data.prepare_data()
        typed = {word.partition("=")[0] for word in HydraConfig.get().overrides.task}
        if typed.isdisjoint({"data", *(f"data.{name}" for name in SOURCE + DIVISION)}):
            for path in paths:
                warn_of_changed_data(path, data)  # than the checkpoint's, which nobody asked for
        folder.write_config(cli.plain(cfg, resolve=True), str(device))
        metrics = report_evaluation(folder, evaluate(predictor, data, cfg.split), predictor)
        return metrics[f"{cfg.split}/accuracy"]


def _paths(ckpt: object) -> list[str]:
    paths = ckpt if isinstance(ckpt, list) else [ckpt]
    if not paths or not all(isinstance(path, str) and path for path in paths):
        raise ValueError("ckpt=PATH is missing: name a checkpoint, such as ckpt=outputs/.../checkpoints/best.ckpt")
    return paths


def offer_checkpoint_data() -> None:
    """Makes the checkpoint's own data the default choice of the data group, so that data.variation=... changes it."""
    from imgclf.checkpoints.metadata import read_data_config

    given = [word for word in sys.argv[1:] if word.startswith("ckpt=")]
    try:
        parsed = OverridesParser.create().parse_overrides(given)
        if given and parsed[-1].is_sweep_override():
            raise ValueError("ckpt=A,B is for one run of many: give one checkpoint, or ckpt=[A,B] for their mean")
        config = read_data_config(_paths(parsed[-1].value())[0]) if given else {}
    except (ValueError, OSError):
        if not any(word.startswith(("data=", "images=")) for word in sys.argv[1:]):
            raise
        config = {}  # not needed; if the checkpoint itself is at fault, loading it says so
    ConfigStore.instance().store(group="data", name="checkpoint", node=config, replace=True)


if __name__ == "__main__":
    cli.run(lambda: (offer_checkpoint_data(), main()))
