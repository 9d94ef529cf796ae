"""What a run was made with: versions, git commit, device, seed and command."""

import os
import platform
import subprocess
import sys
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from imgclf.core.names import VERSION

PACKAGES = (
    *("torch", "torchvision", "lightning", "torchmetrics", "hydra-core"),
    *("numpy", "scikit-learn", "scikit-image", "pillow"),
)


def environment(seed: int | None, device: str) -> dict[str, Any]:
    """What one needs to repeat a run, in plain types. ``device`` is torch's name of it, such as "cpu" or "cuda:0"."""
    import torch  # lazy: seconds

    return {
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {"imgclf": VERSION, **{name: version(name) for name in PACKAGES}},
        "git_commit": _git_commit(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "processor": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "seed": seed,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def _git_commit() -> str | None:
    """The commit of the code that runs, with "+changes" where its files differ from it; None outside git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None
