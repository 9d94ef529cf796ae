"""Evaluates a checkpoint, or predicts images, into a folder of its own.

python evaluate.py ckpt=RUN/checkpoints/best.ckpt    the test images of its data
python evaluate.py ckpt=... data.variation=rot       another variation of them
python evaluate.py ckpt=... corruption=all           noise, blur, fog, ...
python evaluate.py ckpt=... by=sex                   each value of a column
python evaluate.py ckpt=... images='photos/*.png'    images of your own
python evaluate.py 'ckpt=[A,B]' tta=8 augmentation.affine.translate=0.04
                                                     the mean of networks
"""

import logging
import sys

import hydra
from omegaconf import DictConfig

from imgclf import cli, options


@hydra.main(config_path="conf", config_name="evaluate", execution_whitelist=("imgclf.data.*", "imgclf.transforms.*"))
@cli.task
def main(cfg: DictConfig) -> float | None:
    paths = options.check_evaluation(cfg)  # refuses what is wrong before the seconds that the following imports take

    from hydra.core.hydra_config import HydraConfig
    from hydra.utils import instantiate

    from imgclf.core.device import choose_device, shorten_steps
    from imgclf.evaluation.corruptions import corrupted_accuracies, report_corruptions
    from imgclf.evaluation.evaluate import evaluate
    from imgclf.evaluation.leakage import check_unseen, warn_of_changed_data
    from imgclf.evaluation.predict_files import predict_files
    from imgclf.evaluation.report import report_evaluation
    from imgclf.evaluation.subgroups import find_subgroups
    from imgclf.inference.ensemble import ensemble
    from imgclf.inference.load import load
    from imgclf.runs.run_dir import RunDir

    device = choose_device(cfg.accelerator)
    shorten_steps(device)
    predictor = ensemble([load(path, device) for path in paths])
    predictor.use_tta(cfg.tta, instantiate(cfg.augmentation))
    with RunDir(HydraConfig.get().runtime.output_dir, log="evaluate.log") as run_dir:
        if cfg.images:
            images = options.plain(cfg)["images"]
            predict_files(run_dir, predictor, images, cfg.images_as, cfg.unsure_below, cfg.several)
            run_dir.write_config(options.plain(cfg), str(device))
            return None
        own_data, same_images = options.evaluated_data(cfg, predictor.preprocessing)
        check_unseen(paths, cfg.data, cfg.split, own_data)
        config = options.plain(cfg)["data"]
        class_map = config.pop("class_map")
        data = instantiate(config, _convert_="all")
        data.prepare_data()
        for note in data.notes:
            logging.getLogger("imgclf").warning(note)
        warn_of_changed_data(paths if same_images else [], data)
        parts = {cfg.by: find_subgroups(data, cfg.split, cfg.by)} if cfg.by else {}
        corruption = None if cfg.corruption == "all" else cfg.corruption
        evaluation = evaluate(predictor, data, cfg.split, class_map, corruption, cfg.severity)
        run_dir.write_config(options.plain(cfg), str(device))
        report_evaluation(run_dir, evaluation, predictor, parts)
        if cfg.corruption == "all":
            report_corruptions(run_dir, evaluation, corrupted_accuracies(predictor, evaluation))
        return evaluation.metrics[f"{cfg.split}/accuracy"]


if __name__ == "__main__":
    cli.script(main, "evaluate", __doc__, before=lambda: options.offer_checkpoint_data(sys.argv[1:]))
