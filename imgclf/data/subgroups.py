"""What divides the images of a split into parts: a column of the label table, or a pattern in their paths."""

import re

from imgclf.core.text import below_common_folder, printable
from imgclf.data.datamodule import ImageDataModule
from imgclf.data.image_folder import ImageFolder
from imgclf.data.label_table import read_cells


def subgroups(data: ImageDataModule, split: str, by: str) -> list[str]:
    """Finds the value of ``by`` for each image of a split; "" where there is none.

    Args:
        data: image files, of a folder or a table.
        split: "train", "val" or "test".
        by: the name of a column of the table; else a regular expression, which is searched for in the images' paths
            below the folder that they have in common. Its first group counts, or all of the match.

    Raises:
        ValueError: there is no such column, and the expression finds nothing.

    Example:
        >>> subgroups(ImageFolder("chest_xray"), "test", "bacteria|virus")[-2:]
        ['bacteria', 'virus']
    """
    if not isinstance(data, ImageFolder):
        raise ValueError(f"by={by}: it is for image files; these images have neither a table nor paths")
    names, known = data.image_names(split), ""
    if data.labels is not None:
        header, rows = read_cells(data.table)
        if by in header:
            row_of = {str(file.path): file.row for files in data.parts.values() for file in files}
            return [rows[row_of[name]][header.index(by)].strip() for name in names]
        known = f"{printable(data.table)} has no such column (it has {', '.join(header)}), and "
    try:
        pattern = re.compile(by)
    except re.error as error:
        raise ValueError(f"by={by}: {known}it is no regular expression ({error})") from error
    matches = [pattern.search(path) for path in below_common_folder(names)]
    if not any(matches):
        raise ValueError(f"by={by}: {known}it is found in no path of an image, such as {printable(names[0])}")
    return ["" if match is None else match[1 if pattern.groups else 0] or "" for match in matches]
