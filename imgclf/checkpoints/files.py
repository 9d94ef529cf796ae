"""Self-contained checkpoints: written whole or not at all, read without executing anything of theirs."""

import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from imgclf.checkpoints.untrusted import check_archive

METADATA_KEY = "imgclf"  # where a checkpoint describes itself, beside Lightning's own keys


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the final name and moves, so that a killed run never leaves half a checkpoint."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(exist_ok=True)  # not a run folder that was removed
            with unfinished.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        except (OSError, RuntimeError) as error:  # torch's own, of a write that failed
            reason = next((e.strerror for e in (error, error.__context__) if isinstance(e, OSError)), error)
            raise OSError(f"{path} cannot be written: {reason}") from error
        finally:
            unfinished.unlink(missing_ok=True)

    def load_checkpoint(self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True) -> dict:
        return read_checkpoint(path)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The checkpoint's tensors and plain values, on the CPU; nothing in the file is executed.

    It takes about the file's size of memory, whatever the file declares.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or not a checkpoint of imgclf.
    """
    path = Path(path)
    if path.is_dir():
        raise FileNotFoundError(f"ckpt={path}: a folder; name a file, such as ckpt={path}/checkpoints/best.ckpt")
    if not path.is_file():
        raise FileNotFoundError(f"ckpt={path}: no such file; a run's checkpoints are in its checkpoints/ folder")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"ckpt={path}: truncated or not a PyTorch checkpoint")
    try:
        check_archive(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything from EOFError to UnpicklingError
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"ckpt={path}: refused, it is damaged or holds more than tensors ({reason})") from error
    ours = isinstance(checkpoint, dict) and {METADATA_KEY, "state_dict"} <= checkpoint.keys()
    if not (ours and isinstance(checkpoint[METADATA_KEY], dict)):
        raise ValueError(f"ckpt={path}: not a checkpoint of imgclf (train one with python train.py)")
    return checkpoint
