"""Counts the images of a data set and looks for what makes results untrustworthy.

    python -m imgclf.check data=chest_xray
    python -m imgclf.check data=image_folder data.root=DIR
    python -m imgclf.check ... 'data.group_pattern=person\\d+'

The command takes the options of train.py. It prints how many images of each
class are in each split, and a fingerprint of each split, which depends only on
images, labels and classes. Then it looks at the decoded images:

  exit code 1   Files cannot be read, or images or patients (data.group_pattern)
                are in two splits. The first is a remark with
                data.skip_bad=true, the second for a published data set.
  a remark      An image has copies in its own split, or has different labels;
                classes are unequal; and what else is worth knowing.

It ends with the command that trains on these data.
"""

import logging
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from imgclf import cli
from imgclf.core.console import print_table
from imgclf.core.text import printable
from imgclf.data.remarks import remarks, same_pixels
from imgclf.help import CONF
from imgclf.runs.command_line import quote_text, read_dictionaries, shell_command

if TYPE_CHECKING:  # lazy: the help text needs no torch
    from imgclf.data.datamodule import ImageDataModule

# Their authors divided these into splits. The splits stay as they are, so that results compare with published ones.
PUBLISHED = ("mnist", "fashion_mnist", "kmnist", "qmnist", "emnist", "usps", "noisy_mnist", "chest_xray")
EARLIER = {"train": (), "val": ("train",), "test": ("train", "val")}
LISTED = 5  # images or patients that are named in a finding
CLASSES = 20  # rows of the table


class Finding(NamedTuple):
    text: str
    examples: list[str]
    fault: bool = False
    listed: int = LISTED


def main(arguments: Sequence[str]) -> None:
    """Runs the command; its arguments are options of train.py."""
    if {"-h", "--help"} & set(arguments):
        print(__doc__.strip())
        return
    with initialize_config_dir(str(CONF)):
        config = compose("train", quote_text(arguments), return_hydra_config=True)
    read_dictionaries(config.data)
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    choice = config.hydra.runtime.choices.data
    published = choice in PUBLISHED and config.data.get("root") in (None, choice)  # not the user's own folder
    with cli.naming_options({"data": config.data}):
        data = instantiate(config.data, _convert_="all", _execution_whitelist_=("imgclf.data.*",))
        faults = check(data, f"data={choice}", published)
    if "train" in data.splits:
        print("train on them:", shell_command(["python", "train.py", *arguments]))
    if faults:
        raise ValueError(f"data={choice}: {'; '.join(faults)}: results would not be worth trusting")


def check(data: "ImageDataModule", title: str, published: bool) -> list[str]:
    """Prints the table of a data set and everything that is odd about it, and returns what is wrong with it.

    Unreadable files are left out of ``data`` from now on. It is no fault of ``published`` splits if they share images.
    """
    tolerated = getattr(data, "skip_bad", True)
    data.skip_bad = True  # pyrefly: ignore[missing-attribute]  # so that the other checks run as well
    data.prepare_data()
    _print_table(data, title)
    findings = []
    if unreadable := [f"{name} ({reason})" for name, reason in getattr(data, "faults", {}).items()]:
        findings.append(Finding(f"{len(unreadable)} files cannot be read", unreadable, not tolerated, len(unreadable)))
    excuse = " (so its authors divided it)" if published else ""
    findings += [*_copies(data, excuse), *_patients(data, excuse)]
    for text, examples, _, listed in findings:
        more = [f"and {len(examples) - listed} more"] if len(examples) > listed else []
        print(text, *(f"  {printable(example)}" for example in [*examples[:listed], *more]), sep="\n")
    if not findings:
        print("no copies, nothing in two splits, nothing unreadable")
    if "train" in data.splits:
        for line in dict.fromkeys([*data.notes, *remarks(data)]):
            print(line)
    return [finding.text for finding in findings if finding.fault]


def _copies(data: "ImageDataModule", excuse: str) -> Iterator[Finding]:
    """Images with the same pixels: within a split, in two splits, and under two labels."""
    names_of = {split: data.image_names(split) for split in data.splits}
    copies = [
        [(split, names_of[split][place], data.class_names[label]) for split, place, label in group]
        for group in same_pixels(data)
    ]
    for split, earlier in EARLIER.items():
        repeats, across = [], []
        for group in copies:
            names = [name for where, name, _ in group if where == split]
            if len(names) > 1:
                repeats.append(names)
            if before := [f"{where} {name}" for where, name, _ in group if where in earlier]:
                across += [f"{name} = {before[0]}" for name in names]
        if count := sum(len(names) - 1 for names in repeats):
            text = f"{count} images of {split} are copies of others there"
            yield Finding(text, [" = ".join(names) for names in repeats])
        if across:
            text = f"{len(across)} images of {split} are in {' or '.join(earlier)} too"
            yield Finding(text + excuse, across, not excuse)
    if unsure := [group for group in copies if len({label for _, _, label in group}) > 1]:
        examples = [" = ".join(f"{split} {name} ({label})" for split, name, label in group) for group in unsure]
        yield Finding(f"{len(unsure)} images have one label here and another there", examples)


def _patients(data: "ImageDataModule", excuse: str) -> Iterator[Finding]:
    """Patients, or other groups of images, that are in two splits."""
    counts = {split: Counter(group for group in data.groups(split) if group is not None) for split in data.splits}
    for split in data.splits:
        earlier = EARLIER[split]
        if shared := [group for group in counts[split] if any(group in counts.get(other, ()) for other in earlier)]:
            text = f"{len(shared)} patients of {split} ({sum(counts[split][group] for group in shared)} images)"
            text += f" are in {' or '.join(earlier)} too, by data.group_pattern"
            yield Finding(text + excuse, shared, not excuse)


def _print_table(data: "ImageDataModule", title: str) -> None:
    """The number of images for each class and split, and the fingerprint of each split."""
    counts = {split: Counter(data.dataset(split).targets.tolist()) for split in data.splits}
    total, order = sum(counts.values(), Counter()), list(range(len(data.class_names)))
    if len(order) > CLASSES:
        order.sort(key=lambda number: -total[number])
        title = f"{title}: the largest and the smallest of {len(order)} classes"
        order = [*order[: CLASSES // 2], *order[-CLASSES // 2 :]]
    rows: list[Sequence[str] | None] = [
        [printable(data.class_names[number]), *(f"{counts[split][number]:,}" for split in data.splits)]
        for number in order
    ]
    rows += [None, ["all", *(f"{counts[split].total():,}" for split in data.splits)]]
    rows += [["fingerprint", *(data.fingerprint(split) for split in data.splits)]]
    print_table(title, ["class", *data.splits], rows)


if __name__ == "__main__":
    cli.run(lambda: main(sys.argv[1:]))
