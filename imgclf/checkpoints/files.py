"""Checkpoint files: written whole or not at all, and read without executing anything that they hold."""

import functools
import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from imgclf.checkpoints.untrusted import check_archive, check_old_format
from imgclf.core.files import check_checkpoint_file

METADATA_KEY = "imgclf"  # a checkpoint describes itself under this key, beside Lightning's own keys
OLD_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")  # files of torch before 1.6 begin with it


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint under a temporary name and moves it, so that a killed run never leaves half a file."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            # Without parents=True: a run folder that the user has removed must not come back.
            path.parent.mkdir(exist_ok=True)
            with unfinished.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        except (OSError, RuntimeError) as error:  # torch raises RuntimeError for a write that failed
            reason = next((e.strerror for e in (error, error.__context__) if isinstance(e, OSError)), error)
            raise OSError(f"{path} cannot be written: {reason}") from error
        finally:
            unfinished.unlink(missing_ok=True)

    def load_checkpoint(self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True) -> dict:
        return read_checkpoint(path)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint's tensors and plain values onto the CPU; nothing in the file is executed.

    Reading takes about as much memory as the file has bytes, whatever the file declares. The result has Lightning's
    keys, such as "state_dict" and "epoch" (from 0), and under ``METADATA_KEY`` what ``build_metadata`` made.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, is not a checkpoint of imgclf, or comes from imgclf 0.1.
    """
    path = Path(path)
    check_checkpoint_file(path)
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: truncated or not a PyTorch checkpoint")
    checkpoint = read_torch_file(path)
    metadata = checkpoint.get(METADATA_KEY) if isinstance(checkpoint, dict) else None
    if not isinstance(metadata, dict) or "state_dict" not in checkpoint:
        raise ValueError(f"{path}: not a checkpoint of imgclf (python train.py makes one)")
    if "preprocessing" not in metadata:
        raise ValueError(f"{path}: made by imgclf 0.1, which this version does not read: train it again")
    return checkpoint


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What a checkpoint says of itself; a file that has not changed since is not read again. Raises as above."""
    check_checkpoint_file(path)
    state = Path(path).stat()
    return _metadata(Path(path), state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=32)
def _metadata(path: Path, time: int, size: int) -> dict[str, Any]:
    return read_checkpoint(path)[METADATA_KEY]


def read_torch_file(path: Path) -> Any:
    """What ``torch.save`` wrote into a file, tensors and plain values, on the CPU; nothing in it is executed.

    Raises:
        ValueError: the file is damaged, or holds anything else.
    """
    try:
        with path.open("rb") as file:
            is_old = file.read(len(OLD_MAGIC)) == OLD_MAGIC
        if is_old:
            check_old_format(path)
        elif zipfile.is_zipfile(path):
            check_archive(path)
        else:
            raise ValueError("truncated, or not a file of PyTorch")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything from EOFError to UnpicklingError
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path}: refused: it is damaged or holds more than tensors ({reason})") from error
