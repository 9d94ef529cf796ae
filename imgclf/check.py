"""What a data set holds, and what would make results on it worthless: python -m imgclf.check data=... [option=value]"""

import logging
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import get_console
from rich.markup import escape
from rich.table import Column, Table

from imgclf import cli
from imgclf.core.names import SPLITS

if TYPE_CHECKING:
    from imgclf.data.datamodule import ImageDataModule

# Their parts are their authors', and are kept so that results compare: what is on both sides is only remarked on.
PUBLISHED = ("mnist", "fashion_mnist", "kmnist", "qmnist", "emnist", "usps", "noisy_mnist", "chest_xray")
LISTED = 20  # images or patients of a finding that are named

USAGE = """Counts the images of a data set and looks for what makes results untrustworthy, before a run.

    python -m imgclf.check data=chest_xray
    python -m imgclf.check data=image_folder data.root=DIR 'data.group_pattern=person\\d+'

Takes the options of train.py. Says how many images of each class are in each split; a fingerprint of each split, the
same wherever its images, labels and classes are; and of images as they are decoded:

  exit code 1   unreadable files (data.skip_bad=true: a remark); images or patients (data.group_pattern) that are in
                two splits (of a published data set: a remark, its parts are its authors')
  a remark      copies within a split, one image under different labels
"""


def main(words: Sequence[str]) -> None:
    """The command: ``words`` are its arguments, those of train.py."""
    if {"-h", "--help"} & set(words):
        print(USAGE, end="")
        return
    if flag := next((word for word in words if word.startswith("-")), None):
        raise ValueError(f"unknown argument {flag}: give options of train.py, such as data=chest_xray")
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    with initialize_config_dir(str(Path(__file__).absolute().parent.parent / "conf")):
        config = compose("train", list(words), return_hydra_config=True)
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    data = instantiate(config.data, _convert_="all", _execution_whitelist_=("imgclf.data.*",))
    choice = config.hydra.runtime.choices.data
    published = choice in PUBLISHED and config.data.get("root") in (None, choice)  # not a folder of one's own
    if faults := check(data, f"data={choice}", published):
        raise ValueError(f"data={choice}: {'; '.join(faults)}: results would not be worth trusting")


def check(data: "ImageDataModule", title: str = "data", published: bool = False) -> list[str]:
    """Prints what there is to know of a data set, and returns what is wrong with it.

    Args:
        data: nothing of it need have been read.
        title: of the table.
        published: its parts are given; what is in two of them is no fault.

    Raises:
        ValueError, OSError: it cannot be read at all, or not be divided.
    """
    from imgclf.core.text import printable
    from imgclf.data.image_folder import ImageFolder

    console, found, faults, names = get_console(), [], [], list(data.class_names)
    given = " (so its authors divided it)" if published else ""

    def tell(finding: str, examples: Sequence[str], fault: bool = False, listed: int = LISTED) -> None:
        more = [f"and {len(examples) - listed} more"] if len(examples) > listed else []
        for line in (finding, *(f"  {printable(example)}" for example in [*examples[:listed], *more])):
            console.print(escape(line), highlight=False, soft_wrap=True)
        found.append(finding)
        if fault:
            faults.append(finding)

    tolerated = getattr(data, "skip_bad", True)
    if isinstance(data, ImageFolder):
        data.skip_bad = True  # so that all else is looked at as well
    data.prepare_data()
    console.print(_table(data, title))
    if bad := [f"{name} ({fault})" for name, fault in getattr(data, "faults", {}).items()]:
        tell(f"{len(bad)} files cannot be read", bad, not tolerated, listed=len(bad))
    places = defaultdict(list)  # of the same pixels: split, name and class of every image
    patients = defaultdict(Counter)  # their images in each split
    for split in SPLITS:
        images = data.dataset(split)
        for pixels, name, label in zip(images.digests(), data.image_names(split), images.targets.tolist(), strict=True):
            places[pixels].append((split, name, names[label]))
        for patient in data.groups(split):
            if patient is not None:
                patients[patient][split] += 1
    copies = [same for same in places.values() if len(same) > 1]
    for i, split in enumerate(SPLITS):
        earlier, either = {*SPLITS[:i]}, " or ".join(SPLITS[:i])
        here = [[name for where, name, _ in same if where == split] for same in copies]
        there = [[f"{where} {name}" for where, name, _ in same if where in earlier] for same in copies]
        if repeated := sum(max(0, len(group) - 1) for group in here):
            groups = [" = ".join(group) for group in here if len(group) > 1]
            tell(f"{repeated} images of {split} are copies of others there", groups)
        if crossing := [f"{name} = {o[0]}" for group, o in zip(here, there, strict=True) if o for name in group]:
            tell(f"{len(crossing)} images of {split} are in {either} too{given}", crossing, not published)
        if shared := [name for name, counts in patients.items() if counts[split] and any(counts[s] for s in earlier)]:
            count = f"{len(shared)} patients of {split} ({sum(patients[name][split] for name in shared)} images)"
            tell(f"{count} are in {either} too, by data.group_pattern{given}", shared, not published)
    if unsure := [same for same in copies if len({label for *_, label in same}) > 1]:
        examples = [" = ".join(f"{split} {name} ({label})" for split, name, label in same) for same in unsure]
        tell(f"{len(unsure)} images have one label here and another there", examples)
    if not found:
        console.print("no copies, nothing in two splits, nothing unreadable", highlight=False)
    return faults


def _table(data: "ImageDataModule", title: str) -> Table:
    """Images of each class and split; and what they are, as one hash."""
    from imgclf.core.text import printable

    counts = {split: Counter(data.dataset(split).targets.tolist()) for split in SPLITS}
    table = Table("class", *(Column(split, justify="right") for split in SPLITS), title=title)
    for number, name in enumerate(data.class_names):
        table.add_row(escape(printable(name)), *(f"{counts[split][number]:,}" for split in SPLITS))
    table.add_section()
    table.add_row("all", *(f"{counts[split].total():,}" for split in SPLITS))
    table.add_row("fingerprint", *(data.fingerprint(split) for split in SPLITS))
    return table


if __name__ == "__main__":
    cli.run(lambda: main(sys.argv[1:]))
