"""Every image classifier of timm, for images of any number of channels."""

import difflib
import functools
import urllib.request
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from imgclf.core.validation import Positive, checked
from imgclf.models.network import Network, build_for_shape, fit_statistics


class TimmNetwork(Network):
    """A classifier of timm with a new head, trained from scratch or from pretrained weights.

    timm itself adapts the first convolution to the channels, and the position embeddings to the size of the images.

    Args:
        name: one of ``timm.list_models()``.
        weights: timm's tag of a set of pretrained weights, such as "a1_in1k", or "DEFAULT"; None for random weights.

    Raises:
        ValueError: timm is not installed, the name or the tag is unknown, or the network does not take images of that
            shape.
        FileNotFoundError: the weights are not on disk and cannot be downloaded.

    Example:
        >>> TimmNetwork((1, 64, 64), 10, "tf_efficientnet_lite0")(torch.rand(2, 1, 64, 64)).shape
        torch.Size([2, 10])
    """

    @checked
    def __init__(
        self,
        image_shape: Sequence[Positive] = (3, 224, 224),
        num_classes: Positive = 10,
        name: str = "resnet18",
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.init_args["weights"] = None  # a checkpoint brings its own weights
        timm = _import_timm(name)
        channels, *size = image_shape
        config = timm.get_pretrained_cfg(name)
        options: dict[str, Any] = {"in_chans": channels, "num_classes": num_classes}
        if config and config.fixed_input_size:
            options["img_size"] = tuple(size)
        if config:
            self.published_statistics = list(config.mean), list(config.std)
        if weights is not None:
            config, options["pretrained_cfg_overlay"] = _pretrained(name, weights)
            self.statistics = fit_statistics(config.mean, config.std, channels)
        create = functools.partial(timm.create_model, name, pretrained=weights is not None, **options)
        self.network: Any = build_for_shape(create, name, image_shape)
        self.reset_head()

    @classmethod
    def published_size(cls, name: str, weights: str) -> list[int] | None:
        timm = _import_timm(name)
        config = timm.get_pretrained_cfg(f"{name}.{weights}" if weights in _tags(name) else name)
        return list(config.input_size[1:]) if config else None

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def get_head(self) -> list[nn.Module]:
        head = self.network.get_classifier()  # some networks have a pair of heads
        modules = list(head) if isinstance(head, tuple) else [head]
        found = [
            module for module in modules if isinstance(module, nn.Module) and any(True for _ in module.parameters())
        ]
        return found or super().get_head()


def _import_timm(name: str) -> ModuleType:
    """timm, if it is installed and has this network."""
    try:
        import timm  # lazy: it is an extra, and takes seconds
    except ImportError as error:
        raise ValueError(f"name={name}: timm is not installed: pip install -e '.[timm]'") from error
    known = timm.list_models()
    if name not in known:  # timm itself would also take the address of a repository
        nearest = difflib.get_close_matches(name, known, n=5, cutoff=0.3)
        raise ValueError(f"name={name}: timm has no such network; the nearest are {', '.join(nearest)}")
    return timm


def _tags(name: str) -> list[str]:
    import timm  # lazy: as above

    return [full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*")]


def _pretrained(name: str, weights: str) -> tuple[Any, dict[str, Any]]:
    """What timm says of published weights, and their file for timm, which is fetched if it is not on disk."""
    import timm  # lazy: as above
    from huggingface_hub import hf_hub_download, hf_hub_url, try_to_load_from_cache

    tags = _tags(name)
    if weights != "DEFAULT" and weights not in tags:
        raise ValueError(f"weights={weights}: {name} has {', '.join(['DEFAULT', *tags]) if tags else 'none'}")
    config: Any = timm.get_pretrained_cfg(name if weights == "DEFAULT" else f"{name}.{weights}")
    if not config.hf_hub_id:
        raise ValueError(f"weights={weights}: {name}'s are at {config.url}: fetch that file and give its path")
    repository, file_name = config.hf_hub_id, config.hf_hub_filename or "model.safetensors"
    file, address = try_to_load_from_cache(repository, file_name), hf_hub_url(repository, file_name)
    if not isinstance(file, str):
        try:
            with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=10):
                pass  # the hub's own client would try for a minute before it says that there is no connection
            file = hf_hub_download(repository, file_name)
        except Exception as error:  # urllib, the hub and its client raise many kinds
            reason = " ".join(str(error).split())[:200]
            raise FileNotFoundError(
                f"weights={weights}: {address} is not on disk and cannot be fetched ({reason}): "
                "bring that file here, to any folder, and give its path; null trains from scratch"
            ) from error
    return config, {"tag": config.tag, "file": file}
