import logging
import warnings

from imgclf.runs.logs import log_to, warnings_in


def test_warnings_about_data_and_results_are_found_again_once(tmp_path):
    log = tmp_path / "train.log"
    assert warnings_in(log) == []
    with log_to(log):
        for name in ("imgclf.training.fit", "imgclf", "imgclf.training.fit", "imgclf.core.device", "lightning"):
            logging.getLogger(name).warning("%s: few images", name.partition(".")[0])
        logging.getLogger("imgclf.data").info("decoded")
        warnings.warn("of a library", stacklevel=1)
        logging.getLogger("imgclf.data").warning("größer: <b>")
    assert warnings_in(log) == ["imgclf: few images", "größer: <b>"]
