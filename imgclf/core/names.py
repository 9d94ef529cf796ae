"""Options that no class of the library looks at, and the names they are made of; nothing heavy is imported."""

VERSION = "0.2.0"
SPLITS = ("train", "val", "test")
METRICS = ("loss", "accuracy", "precision", "recall", "f1", "kappa")
BINARY_METRICS = ("auroc", "average_precision", "sensitivity", "specificity", "calibration_error")
LOWER_IS_BETTER = ("loss", "calibration_error")
BINARY_OBJECTIVES = tuple(f"val/{name}" for name in BINARY_METRICS)
OBJECTIVES = (*(f"val/{name}" for name in METRICS), *BINARY_OBJECTIVES)
