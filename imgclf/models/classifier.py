"""The LightningModule that trains any network."""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from imgclf.core import rng
from imgclf.core.metrics import EpochMetrics, decide, youden_threshold
from imgclf.core.validation import Fraction, Seed, Share, Temperature, checked
from imgclf.models.losses import share_of_weight, without_state
from imgclf.models.network import Network

Normalization = Literal["dataset", "image"]
NORMALIZATIONS = get_args(Normalization)
MIN_STD = 1e-2  # added to an image's standard deviation, so that an empty image does not become noise


def num_logits(class_names: Sequence[str]) -> int:
    """The number of logits that a network needs: one for two classes, else one for each class."""
    return 1 if len(class_names) == 2 else len(class_names)


class Classifier(pl.LightningModule):
    """Trains a network, and normalises the images itself, so that this travels with the weights.

    For two classes, the second is the positive one and the network has one logit. With a logit of 0 for the first class
    beside it, softmax equals the sigmoid, and cross-entropy equals binary cross-entropy.

    Args:
        network: maps normalised float images (N, C, H, W) to logits (N, ``num_logits(class_names)``).
        class_names: in the order of the class indices.
        mean, std: of each channel, for images in [0, 1].
        loss: maps logits (N, classes) and labels to a scalar; cross-entropy by default. Labels are int64 (N,) or, with
            MixUp and CutMix, float (N, classes). The validation loss is always plain cross-entropy.
        optimizer: is called with the parameters.
        scheduler: is called with the optimizer, and with the length of the run if it has an argument ``total_steps`` or
            ``T_max`` that is not set.
        threshold: for two classes, the probability from which the second is predicted. "validation" chooses it after
            every epoch on the validation images, for the largest sensitivity + specificity.
        temperature: evaluation and prediction divide the logits by it (Guo et al. 2017): above 1, probabilities become
            less certain. "validation" chooses it on the validation images when training has ended.
        normalize: "dataset" normalises by ``mean`` and ``std`` or, for pretrained weights, by the ``statistics`` of the
            network; "image" by the mean and deviation of each image. Weights that were trained with "image" keep it.
        body_lr_factor: the share of the learning rate with which all layers but the head are trained.
        channels_last: keep weights and activations in this memory format, in which convolutions are faster.
        compile: the mode in which ``torch.compile`` compiles the network for training. "reduce-overhead" replays CUDA
            graphs, for networks so small that the GPU waits for Python.
        seed: for dropout, which depends on it, the epoch and the step only.

    Raises:
        FloatingPointError: in training, if the loss is no longer finite. The message names the step.

    Example:
        >>> classifier = Classifier(CNN(), [str(digit) for digit in range(10)], mean=[0.13], std=[0.31])
        >>> pl.Trainer(max_epochs=3).fit(classifier, datamodule=data)
    """

    @checked
    def __init__(
        self,
        network: Network,
        class_names: Sequence[str],
        mean: Sequence[float] | Tensor = (0.0,),
        std: Sequence[float] | Tensor = (1.0,),
        *,
        loss: nn.Module | None = None,
        optimizer: Callable[..., Optimizer] = Adam,
        scheduler: Callable[..., LRScheduler] | None = None,
        scheduler_interval: Literal["step", "epoch"] = "step",
        threshold: Fraction | Literal["validation"] = 0.5,
        temperature: Temperature | Literal["validation"] = 1.0,
        normalize: Normalization = "dataset",
        body_lr_factor: Share = 1.0,
        channels_last: bool = True,
        compile: Literal["default", "reduce-overhead", "max-autotune"] | None = None,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        self.class_names, self.normalize, self.seed = list(class_names), network.normalize or normalize, seed
        self.optimizer, self.scheduler, self.scheduler_interval = optimizer, scheduler, scheduler_interval
        self.compile_mode, self.body_lr_factor = compile, body_lr_factor
        self.chooses_threshold = threshold == "validation" and len(class_names) == 2
        self.chooses_temperature = temperature == "validation"
        self.network = network.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        self.loss = without_state(loss or nn.CrossEntropyLoss())
        mean, std = network.statistics or (mean, std)
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("threshold", torch.tensor(0.5 if threshold == "validation" else threshold))
        self.register_buffer("temperature", torch.tensor(1.0 if temperature == "validation" else float(temperature)))
        self.example_input_array = torch.zeros(()).expand(1, *network.init_args["image_shape"])  # for the model summary
        self.live: dict[str, float] = {}  # loss and accuracy over the last logging interval, for the progress bar
        # A dict keeps the metrics out of the submodules, and thus out of checkpoints and the model summary.
        self._metrics = {stage: EpochMetrics(stage, len(class_names)) for stage in ("train", "val")}
        self._pending: list[tuple[int, Tensor, Tensor, Tensor]] = []  # step, loss, logits, labels
        self._train_metrics: dict[str, Tensor | float] = {}  # of this epoch; logged together with those of validation

    @property
    def validated(self) -> EpochMetrics:
        """The metrics of the last validation."""
        return self._metrics["val"]

    def forward(self, images: Tensor) -> Tensor:
        """Maps images (N, C, H, W), uint8 or float in [0, 1], to logits (N, classes).

        They are divided by the temperature, but not in training mode.
        """
        white = 1 if images.is_floating_point() else 255
        values = images.to(self.mean.dtype, copy=True)
        if self.normalize == "image":
            std, mean = torch.std_mean(values, (1, 2, 3), correction=0, keepdim=True)
            values = (values - mean) / (std + white * MIN_STD)
        else:  # in place, and with one factor for both divisions: an MLP is so fast that every pass over images counts
            values = values.mul_(1 / (white * self.std)).sub_(self.mean / self.std)
        logits = self.network(values)
        logits = logits if self.training else logits / self.temperature
        return F.pad(logits, (1, 0)) if logits.shape[1] == 1 else logits

    def on_fit_start(self) -> None:
        if self.compile_mode:
            self.network.compile(mode=self.compile_mode)

    def on_train_start(self) -> None:
        if self.chooses_temperature:  # the checkpoint that training continues from may hold one already
            self.temperature.fill_(1)
        self.on_train_epoch_start()  # Lightning does not call it for an epoch that is resumed in the middle

    def on_train_epoch_start(self) -> None:
        self._pending.clear()
        self._train_metrics = {}
        self.network.begin_epoch(self.current_epoch)

    def on_train_batch_start(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        step_seed = rng.derive_seed("dropout", self.seed, self.current_epoch, batch_idx, self.global_rank)
        torch.default_generator.manual_seed(step_seed)  # torch.manual_seed takes 0.1 ms where CUDA is built in
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(step_seed)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        # A CUDA graph reuses its output's memory in the next step, so that the logits have to be copied.
        logits = self(images).to(torch.float32, copy=self.compile_mode is not None)
        loss = self.loss(logits, labels)
        if labels.is_floating_point():
            labels = labels.argmax(1)  # for accuracy, a mixed image counts as the class with the largest share
        elif self.trainer.world_size > 1:
            loss = loss * share_of_weight(self.loss, labels, self.trainer.world_size)
        # The step stays on the device for a while: asking for its loss at every step would make a GPU wait.
        self._pending.append((self.global_step + 1, loss.detach(), logits.detach(), labels))
        last = self.trainer.is_last_batch
        if last or len(self._pending) >= max(1, self.trainer.log_every_n_steps):  # pyrefly: ignore[missing-attribute]
            self._count_pending(end_of_epoch=last)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        with torch.autocast(self.device.type, enabled=False):  # float32, as in the final evaluation
            logits = self(images).float()
        losses = F.cross_entropy(logits, labels, reduction="none")
        self.validated.to(self.device).update(losses, logits.softmax(1), labels)

    def on_validation_epoch_end(self) -> None:
        loss = self.validated.loss.compute()
        if not loss.isfinite():
            raise self._diverged(float(loss), self.global_step, "val/loss")
        if self.chooses_threshold:
            self.threshold.fill_(youden_threshold(*self.validated.scores_and_labels()))
        # If training logged its metrics itself, a run that is interrupted in validation would lose them on resuming.
        self.log_dict({**self._train_metrics, **self.validated.compute(self.threshold)})

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer(self.parameters())
        if self.body_lr_factor != 1:
            self._slow_down_body(optimizer)
        if self.scheduler is None:
            return optimizer
        by_step = self.scheduler_interval == "step"
        length = int(self.trainer.estimated_stepping_batches if by_step else self.trainer.max_epochs or 1)
        unset: dict[str, Any] = {}
        for name, least in (("total_steps", length), ("T_max", 1)):
            value = getattr(self.scheduler, "keywords", {}).get(name)  # where it is a partial
            if value is not None and (not isinstance(value, int) or value < least):
                raise ValueError(f"{name}={value}: leave it out, or give a whole number from {least} up")
            if value is None and name in inspect.signature(self.scheduler).parameters:
                unset[name] = length
        peak = getattr(self.scheduler, "keywords", {}).get("max_lr")  # OneCycleLR's, which would be that of all groups
        if self.body_lr_factor != 1 and isinstance(peak, int | float):
            unset["max_lr"] = [*[peak * self.body_lr_factor] * (len(optimizer.param_groups) - 1), peak]
        scheduler = self.scheduler(optimizer, **unset)
        if isinstance(scheduler, ReduceLROnPlateau):
            raise ValueError("scheduler=ReduceLROnPlateau: it waits for a metric; use a schedule of fixed length")
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": self.scheduler_interval}}

    def _slow_down_body(self, optimizer: Optimizer) -> None:
        """Splits the optimizer's parameters into those of the body, whose rate is lower, and those of the head."""
        body = {id(parameter) for parameter in self.network.get_body()}
        if len(optimizer.param_groups) > 1:
            name = type(optimizer).__name__
            raise ValueError(f"body_lr_factor={self.body_lr_factor}: {name} has groups of its own; use AdamW")
        if body:
            (group,) = optimizer.param_groups
            head = [parameter for parameter in group["params"] if id(parameter) not in body]
            group["params"] = [parameter for parameter in group["params"] if id(parameter) in body]
            optimizer.add_param_group({**group, "params": head})
            group["lr"] *= self.body_lr_factor

    def _count_pending(self, end_of_epoch: bool) -> None:
        """Checks the pending losses, adds the steps to the epoch's metrics, and logs those of this process's images."""
        steps, losses, logits, labels = zip(*self._pending, strict=True)
        sizes = torch.tensor([len(batch) for batch in labels], device=self.device)
        losses, scores, labels = torch.stack(losses), torch.cat(logits), torch.cat(labels)
        if scores.shape[1] == 2:  # for more classes, the order of the logits is enough, and softmax takes time
            scores = scores.softmax(1)
        for step, loss in zip(steps, losses.tolist(), strict=True):
            if not math.isfinite(loss):
                raise self._diverged(loss, step, "loss")
        losses = losses.repeat_interleave(sizes)
        self._metrics["train"].to(self.device).update(losses, scores, labels)
        # While the weights still change, the threshold that an earlier epoch chose says little about this one.
        threshold = 0.5 if self.chooses_threshold else self.threshold
        correct = decide(scores, threshold) == labels
        self.live = {"loss": float(losses.mean()), "accuracy": float(correct.float().mean())}
        self._pending.clear()
        values = {**{f"step/{name}": value for name, value in self.live.items()}, "step/lr": self._learning_rate()}
        for logger in self.loggers:
            logger.log_metrics(values, step=self.global_step)
        if end_of_epoch:
            self._train_metrics = {**self._metrics["train"].compute(threshold), "lr": values["step/lr"]}

    def _learning_rate(self) -> float:
        return float(self.trainer.optimizers[0].param_groups[-1]["lr"])  # the head's, where the body has another

    def _diverged(self, value: float, step: int, name: str) -> FloatingPointError:
        return FloatingPointError(
            f"{name} became {value} at step {step} (epoch {self.current_epoch + 1}), and training stopped: give "
            f"less than lr={self._learning_rate():g}, or set gradient_clip_val=1; earlier checkpoints are kept"
        )
