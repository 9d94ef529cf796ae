"""The LightningModule that trains any network."""

import inspect
import math
from collections.abc import Callable, Sequence
from functools import partial

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from imgclf.core import rng
from imgclf.core.metrics import EpochMetrics, decide, youden_threshold
from imgclf.models.network import Network

OPTIONS = ("label_smoothing", "threshold", "normalize", "channels_last", "compile")  # of conf/model; no network's own
NORMALIZATIONS = ("dataset", "image")
COMPILE_MODES = (None, "default", "reduce-overhead", "max-autotune")
FLAT = 1e-2  # added to an image's deviation, so that an empty one is not made into noise


def num_logits(class_names: Sequence[str]) -> int:
    """How many logits a network needs: one for two classes, else one a class."""
    return 1 if len(class_names) == 2 else len(class_names)


class Classifier(pl.LightningModule):
    """Cross-entropy training of a network, with normalisation inside, so that it travels with the weights.

    Of two classes the second is the positive one, and one logit is enough: beside a logit of 0 for the first class,
    softmax is the sigmoid and cross-entropy the binary cross-entropy.

    Args:
        network: maps normalised float images (N, C, H, W) to logits (N, ``num_logits(class_names)``).
        class_names: one a class, in the order of the class indices.
        mean: per channel, of values in [0, 1]; with ``std``, what images are normalised by.
        std: per channel.
        optimizer: makes the optimizer from parameters; Adam at its default rate of 0.001.
        scheduler: makes the learning-rate scheduler from the optimizer, or None. Where its signature has
            ``total_steps`` or ``T_max`` and the factory does not set it, the run's estimated length is supplied.
        scheduler_interval: "step" or "epoch".
        scheduler_monitor: the metric a plateau scheduler watches.
        label_smoothing: share of the target spread over all classes, in [0, 1).
        class_weights: one a class, of its images in the training loss; None for all the same.
        threshold: of two classes, the probability from which the second is predicted, in (0, 1); or "validation":
            chosen after every epoch on the validation images, for the largest sensitivity + specificity.
        normalize: "dataset", by ``mean`` and ``std``; or "image", every image by its own mean and deviation.
        channels_last: keep weights and activations in that memory format, which convolutions are faster in.
        compile: the mode of ``torch.compile`` that the network is trained in; None for none. "reduce-overhead" replays
            its kernels as a CUDA graph, for networks so small that a GPU waits for Python.
        seed: of dropout, which depends on it, the epoch and the step only.

    Raises:
        ValueError: an argument out of range.
        FloatingPointError: the loss is no longer finite; the message names the step.
    """

    def __init__(
        self,
        network: Network,
        class_names: Sequence[str],
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        optimizer: Callable[..., Optimizer] = Adam,
        scheduler: Callable[..., LRScheduler] | None = None,
        scheduler_interval: str = "step",
        scheduler_monitor: str | None = None,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        threshold: float | str = 0.5,
        normalize: str = "dataset",
        channels_last: bool = True,
        compile: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(label_smoothing, int | float) or not 0 <= label_smoothing < 1:
            raise ValueError(f"model.label_smoothing={label_smoothing}: give a share from 0 up to, not including, 1")
        if scheduler_interval not in ("step", "epoch"):
            raise ValueError(f"scheduler.interval={scheduler_interval}: choose step or epoch")
        if normalize not in NORMALIZATIONS:
            raise ValueError(f"model.normalize={normalize}: choose one of {', '.join(NORMALIZATIONS)}")
        if threshold != "validation" and not (isinstance(threshold, int | float) and 0 < threshold < 1):
            raise ValueError(f"model.threshold={threshold}: give a probability between 0 and 1, or validation")
        if compile not in COMPILE_MODES:
            raise ValueError(f"model.compile={compile}: leave it null, or choose {', '.join(COMPILE_MODES[1:])}")
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.network, self.class_names = network.to(memory_format=memory_format), list(class_names)
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.float32).view(-1, 1, 1))
        self.chooses_threshold = threshold == "validation" and len(self.class_names) == 2
        self.register_buffer("threshold", torch.tensor(0.5 if threshold == "validation" else threshold))
        weights = None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)
        self.normalize = normalize
        self.optimizer, self.scheduler = optimizer, scheduler
        self.scheduler_interval, self.scheduler_monitor = scheduler_interval, scheduler_monitor
        self.label_smoothing, self.compile_mode, self.seed = label_smoothing, compile, seed
        # Not registered as submodules: they are no part of the network that a summary or a checkpoint shows.
        self._metrics = {stage: EpochMetrics(stage, len(self.class_names)) for stage in ("train", "val", "test")}
        self.example_input_array = torch.zeros(()).expand(1, *network.init_args["image_shape"])  # for the model summary
        self.live: dict[str, float] = {}  # loss and accuracy over the last logging interval, for the progress bar
        self._pending: list[tuple[int, Tensor, Tensor, Tensor]] = []
        self._trained: dict[str, Tensor | float] = {}  # the metrics of an epoch's training, until they are logged
        self._unfinished: dict = {}  # of the checkpoint that training goes on from

    @property
    def validated(self) -> EpochMetrics:
        """What the last validation counted."""
        return self._metrics["val"]

    def forward(self, images: Tensor) -> Tensor:
        """uint8, or float in [0, 1], (N, C, H, W) to logits (N, classes)."""
        white = 1 if images.is_floating_point() else 255
        values = images.to(self.mean.dtype, copy=True)
        if self.normalize == "image":
            std, mean = torch.std_mean(values, (1, 2, 3), correction=0, keepdim=True)
            values = (values - mean) / (std + white * FLAT)
        else:  # in place, with white in the factor: each pass over the images counts beside an MLP
            values = values.mul_(1 / (white * self.std)).sub_(self.mean / self.std)
        logits = self.network(values)
        return F.pad(logits, (1, 0)) if logits.shape[1] == 1 else logits

    def on_fit_start(self) -> None:
        if self.compile_mode:
            self.network.compile(mode=self.compile_mode)

    def on_train_start(self) -> None:
        if not self.trainer.fit_loop.restarted_mid_epoch:
            return
        # Lightning does this for epochs that it begins only.
        for callback in self.trainer.callbacks:  # pyrefly: ignore[missing-attribute]
            callback.on_train_epoch_start(self.trainer, self)
        self.on_train_epoch_start()
        if self.global_rank == 0 and self._unfinished:  # what was counted then is counted once
            self._pending = [
                (step, *(tensor.to(self.device) for tensor in rest)) for step, *rest in self._unfinished["pending"]
            ]
            self._metrics["train"].load_state_dict(self._unfinished["metrics"])
            self._trained = self._unfinished["trained"]

    def on_train_epoch_start(self) -> None:
        self._pending.clear()
        self.network.begin_epoch(self.current_epoch)

    def on_train_batch_start(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        step_seed = rng.derive_seed("dropout", self.seed, self.current_epoch, batch_idx, self.global_rank)
        torch.default_generator.manual_seed(step_seed)  # torch.manual_seed takes 0.1 ms where CUDA is built in
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(step_seed)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        logits = self(images).to(torch.float32, copy=self.compile_mode is not None)  # a graph's output is used again
        loss = F.cross_entropy(logits, labels, self.class_weights, label_smoothing=self.label_smoothing)
        if labels.is_floating_point():  # of mixed images: accuracy is of what most of each is; the loss is not divided
            labels = labels.argmax(1)  # by the weights' sum
        elif self.class_weights is not None:
            loss = loss * self._share_of_weight(labels, self.class_weights)
        # Kept on the device and looked at every few steps: asking every step would make a GPU wait.
        self._pending.append((self.global_step + 1, loss.detach(), logits.detach(), labels))
        last = self.trainer.is_last_batch
        if last or len(self._pending) >= max(1, self.trainer.log_every_n_steps):  # pyrefly: ignore[missing-attribute]
            self._account()
        if last:
            self._trained = {**self._metrics["train"].compute(self._training_threshold()), "lr": self._rate()}
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def on_validation_epoch_end(self) -> None:
        loss = self._metrics["val"].loss.compute()
        if not loss.isfinite():
            raise self._diverged(float(loss), self.global_step, "val/loss")
        if self.chooses_threshold:
            self.threshold.fill_(youden_threshold(*self._metrics["val"].scores_and_labels()))
        values = self._metrics["val"].compute(self.threshold)
        # What training logged itself would be lost where a run is stopped before the end of validation.
        self.log_dict({**self._trained, **values})

    def on_train_epoch_end(self) -> None:
        # Lightning steps plateau schedulers after the epoch is saved, so that a resumed run would miss it, and not at
        # all in an epoch that was resumed.
        loop = self.trainer.fit_loop
        loop.epoch_loop.update_lr_schedulers("epoch", update_plateau_schedulers=True)
        loop._restarting = True  # not again; unset right afterwards

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, "test")

    def on_test_epoch_end(self) -> None:
        self.log_dict(self._metrics["test"].compute(self.threshold))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer(self.parameters())
        if self.scheduler is None:
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches)
        length = steps if self.scheduler_interval == "step" else int(self.trainer.max_epochs or 1)
        factory = self.scheduler
        given = factory.keywords if isinstance(factory, partial) else {}
        known = inspect.signature(factory).parameters
        supplied = {}
        for name, least in (("total_steps", length), ("T_max", 1)):
            value = given.get(name)
            if name in known and value is None:
                supplied[name] = length
            elif name in known and not (isinstance(value, int) and value >= least):
                raise ValueError(
                    f"scheduler.factory.{name}={value}: leave it out, or give a whole number from {least} up"
                )
        config = {"scheduler": factory(optimizer, **supplied), "interval": self.scheduler_interval}
        if self.scheduler_monitor:
            config["monitor"] = self.scheduler_monitor
        return {"optimizer": optimizer, "lr_scheduler": config}

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        train = self._metrics["train"].state_dict()
        checkpoint["unfinished"] = {"pending": self._pending, "metrics": train, "trained": self._trained}

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self._unfinished = checkpoint.get("unfinished", {})

    def _evaluate(self, batch: tuple[Tensor, Tensor], stage: str) -> None:
        images, labels = batch
        logits = self(images).float()
        metrics = self._metrics[stage].to(self.device)
        metrics.update(F.cross_entropy(logits, labels, reduction="none"), logits.softmax(1), labels)

    def _account(self) -> None:
        """Adds the pending steps to the epoch's metrics, checks their losses and logs them.

        The steps' loss and accuracy that are shown and logged are of this process's images.
        """
        steps, losses, logits, labels = zip(*self._pending, strict=True)
        sizes = torch.tensor([len(batch) for batch in labels], device=self.device)
        losses, scores, labels = torch.stack(losses), torch.cat(logits), torch.cat(labels)
        if scores.shape[1] == 2:  # of more classes their order is enough; softmax takes as long as all the rest here
            scores = scores.softmax(1)
        for step, loss in zip(steps, losses.tolist(), strict=True):
            if not math.isfinite(loss):
                raise self._diverged(loss, step, "loss")
        losses = losses.repeat_interleave(sizes)
        self._metrics["train"].to(self.device).update(losses, scores, labels)
        self.live = {
            "loss": float(losses.mean()),
            "accuracy": float((decide(scores, self._training_threshold()) == labels).float().mean()),
        }
        self._pending.clear()
        for logger in self.loggers:
            values = {f"step/{name}": value for name, value in self.live.items()}
            logger.log_metrics({**values, "step/lr": self._rate()}, step=self.global_step)

    def _share_of_weight(self, labels: Tensor, weights: Tensor) -> float | Tensor:
        """The class weights of these images against the mean of all processes.

        The loss of a batch is divided by its weights' sum. DDP averages over processes, so that without this factor
        an image would weigh differently wherever the others of its process happen to be of other classes.
        """
        if self.trainer.world_size == 1:
            return 1.0
        own = weights[labels].sum()
        total = own.clone()
        torch.distributed.all_reduce(total)
        return own * self.trainer.world_size / total

    def _training_threshold(self) -> float | Tensor:
        return 0.5 if self.chooses_threshold else self.threshold  # an earlier epoch's choice says little of this one

    def _rate(self) -> float:
        return float(self.trainer.optimizers[0].param_groups[0]["lr"])

    def _diverged(self, value: float, step: int, name: str) -> FloatingPointError:
        return FloatingPointError(
            f"{name} became {value} at step {step} (epoch {self.current_epoch + 1}): training stopped. Lower "
            f"optimizer.lr (now {self._rate():g}) or set trainer.gradient_clip_val=1; earlier checkpoints are kept"
        )
