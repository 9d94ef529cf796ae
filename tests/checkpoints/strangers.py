"""Changes that a stranger could make to a checkpoint, so that it declares more than it holds, or what cannot be.

``STRANGERS`` maps a case to the change of a checkpoint's content, and to words of the message that refuses it.
"""

import torch

from imgclf.checkpoints.files import METADATA_KEY

ZOO = "imgclf.models.torchvision_models.TorchvisionNetwork"
RESNET = "imgclf.models.resnet.ResNet"


class Call:
    """An object that is pickled as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def network(_target_=None, **arguments):
    """Changes arguments of the network, or names another network with these arguments."""

    def change(content):
        config = content[METADATA_KEY]["network"]
        if _target_:
            config = {"_target_": _target_, "image_shape": [1, 28, 28], "num_classes": 10}
        config = {**config, **arguments}
        content[METADATA_KEY]["network"] = config
        content[METADATA_KEY]["preprocessing"]["image_shape"] = config["image_shape"]

    return change


def preprocessing(**values):
    return lambda content: content[METADATA_KEY]["preprocessing"].update(values)


def data(**values):
    return lambda content: content[METADATA_KEY]["data"].update(values)


def metadata(**values):
    return lambda content: content[METADATA_KEY].update(values)


def weight(name, tensor):
    return lambda content: content["state_dict"].update({name: tensor})


def shared(count):
    """Many tensors over the memory of one."""
    values = torch.zeros(10**4)
    return lambda content: content["state_dict"].update({f"more.{i}": values.view(100, 100) for i in range(count)})


def more(thing):
    return lambda content: content.update(more=thing)


def without(name):
    return lambda content: content["state_dict"].pop(name)


def nested(depth):
    """A tree of 10 ** depth leaves in a hundred bytes."""
    value = "leaf"
    for _ in range(depth):
        value = [value] * 10
    return value


STRANGERS = {
    "widths": (network(channels=[10**9, 10**9]), "size"),
    "widths that fit in memory": (network(channels=[20_000, 20_000]), "layers.0.weight"),
    "fewer widths": (network(channels=[3]), "layers.0.weight"),
    "many small layers": (network(_target_=RESNET, depth=10**9, widths=[1]), "depth=1000000000"),
    "millions of small layers": (network(_target_=RESNET, depth=1000, widths=[1] * 9000), "more than .* parameters"),
    "kernel": (network(kernel_size=10**5, padding=10**5), "kernel_size=100000"),
    "no layers": (network(_target_=RESNET, widths=[]), r"widths=\[\]"),
    "logits": (network(num_classes=10**9), "1000000000 logits for 10 classes"),
    "image": (network(image_shape=[1, 10**6, 10**6]), "larger than"),
    "image of attention": (
        network(_target_=ZOO, name="vit_b_16", image_shape=[3, 4000, 4000]),
        "more than .* parameters",
    ),
    "image of no size": (network(image_shape=[1, 0, 28]), "image_shape"),
    "image of strings": (network(image_shape=["1", "28", "28"]), "image_shape"),
    "two image shapes": (preprocessing(image_shape=[1, 30, 30]), "images of"),
    "a large network": (network(_target_=ZOO, name="regnet_y_128gf", image_shape=[1, 64, 64]), "parameters"),
    "arguments of other types": (network(channels={"a": [None]}, kernel_size="3"), "channels="),
    "an argument it does not take": (network(surprise=1), "surprise"),
    "a target that is no name": (network(_target_=["os.system"]), "_target_"),
    "a target in a list": (network(channels=[{"_target_": "torch.hub.load"}]), r"_target_ torch\.hub\.load"),
    "a partial": (network(channels={"_partial_": True}), "_partial_"),
    "arguments by position": (network(_args_=["rm"]), "_args_"),
    "a key that is no string": (network(channels={1: 2}), "holds 1"),
    "a tree of leaves": (network(channels=nested(9)), "more than 10000 values"),
    "a tree in the data": (data(root=nested(9)), "more than 10000 values"),
    "a tree as the reader": (preprocessing(reader=nested(9)), "more than 10000 values"),
    "an unknown reader": (preprocessing(reader="os.system"), "reader=os.system"),
    "an unknown polarity": (preprocessing(polarity=[1]), "polarity="),
    "no preprocessing": (metadata(preprocessing=None), "dictionary"),
    "a hundred thousand classes": (metadata(class_names=["a"] * 10**5), "100000 classes"),
    "classes in a tree": (metadata(class_names=nested(9)), "list"),
    "a class that writes to the terminal": (metadata(class_names=["\x1b[2J"] * 10), r"'\\x1b\[2J'"),
    "a class of a book": (metadata(class_names=["a" * 10**5] * 10), "up to 255"),
    "no classes": (metadata(class_names=None), "class names"),
    "normalised by a tree": (metadata(normalize=nested(9)), "normaliz"),
    "statistics": (weight("std", torch.tensor([[[float("nan")]]])), "std holds NaN"),
    "no deviation": (weight("std", torch.zeros(1, 1, 1)), "std is out of range"),
    "statistics of more channels": (weight("mean", torch.zeros(3, 1, 1)), "mean has 3 values"),
    "no statistics": (without("mean"), "mean"),
    "threshold": (weight("threshold", torch.tensor(float("nan"))), "threshold holds NaN"),
    "threshold out of range": (weight("threshold", torch.tensor(2.0)), "threshold is out of range"),
    "NaN": (weight("network.layers.0.bias", torch.full([4], float("nan"))), "holds NaN"),
    "complex": (weight("network.layers.0.bias", torch.zeros(4, dtype=torch.complex64)), "complex64"),
    "no tensor": (weight("network.layers.0.bias", [0, 0, 0, 0]), "not a tensor"),
    "no weight": (without("network.layers.0.bias"), "network.layers.0.bias"),
    "a weight too many": (weight("network.more", torch.zeros(1)), "network.more"),
    "one value that says it is many": (weight("mean", torch.zeros(1).expand(10**12)), "smaller than it says"),
    "memory that many tensors share": (shared(10**4), "more values than the file has bytes"),
    "a tensor of nothing": (weight("mean", torch.zeros(10**10, device="meta")), "it calls.*meta"),
    "a sparse tensor": (weight("mean", torch.eye(2).to_sparse()), "it calls.*sparse"),
    "a quantised tensor": (more(torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8)), "it calls.*qtensor"),
    "a bytearray": (more(Call(bytearray, 10**10)), "calls.*bytearray"),
    "a tensor not filled": (more(Call(torch.Tensor, 10**9)), "calls.*torch.Tensor"),
    "no dictionary of weights": (lambda content: content.update(state_dict=[]), "dictionary"),
}
