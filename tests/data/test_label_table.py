import os

import numpy as np
import pytest
from PIL import Image

from imgclf.data.image_folder import ImageFolder
from imgclf.data.label_table import FileIndex, read_label_table

NAMES = [f"{number:02}.png" for number in range(20)]


@pytest.fixture
def root(tmp_path):
    """Twenty images in set/images; the first pixel is the image's number."""
    folder = tmp_path / "set" / "images"
    folder.mkdir(parents=True)
    for number, name in enumerate(NAMES):
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(folder / name)
    return tmp_path / "set"


def table(root, rows, name="labels.csv", encoding="utf-8"):
    (root / name).write_bytes("\n".join([*rows, ""]).encode(encoding))
    return str(root / name)


def data(where, tmp_path, **options):
    options = {"labels": "labels.csv", "image_size": 8, "channels": 1, "val_fraction": 0.25, **options}
    return ImageFolder(**{"root": str(where), "cache_dir": str(tmp_path / "cache"), **options})


def labelled(module) -> dict[int, str]:
    """The number of each image to the name of its class."""
    images = [module.dataset(split)[:] for split in ("train", "val", "test")]
    return {
        int(image[0, 0, 0]): module.class_names[label]
        for pixels, labels in images
        for image, label in zip(pixels, labels.tolist(), strict=True)
    }


EXPECTED = {number: "ill" if number % 2 else "well" for number in range(20)}


@pytest.mark.parametrize(
    ("header", "row", "encoding"),
    [
        ("file,label", "images/{name},{label}", "utf-8"),
        ("Image Path;Diagnosis", "images\\{name};{label}", "utf-8-sig"),
        ("id\tage\tclass", "{stem}\t70\t{label}", "utf-16"),
        ("category, filename", '{label}, "./images/{name}"', "cp1252"),
        ("note,file_name,target", '"two\nlines",{name},{label}', "utf-8"),
    ],
)
def test_tables_as_programs_write_them(header, row, encoding, root, tmp_path):
    rows = [row.format(name=name, stem=name[:2], label=EXPECTED[i]) for i, name in enumerate(NAMES)]
    table(root, [header, *rows, ""], encoding=encoding)
    assert labelled(data(root, tmp_path)) == EXPECTED


def test_a_table_is_found_and_its_paths_are_seen_from_its_folder_or_from_root(root, tmp_path, monkeypatch):
    rows = ["file,label", *(f"images/{name},{EXPECTED[i]}" for i, name in enumerate(NAMES))]
    monkeypatch.chdir(tmp_path)
    table(root, rows)
    (tmp_path / "elsewhere").mkdir()
    elsewhere = table(tmp_path / "elsewhere", rows)
    for labels, folder in (("labels.csv", "set"), ("set/labels.csv", None), (elsewhere, "set")):
        assert labelled(data(root, tmp_path, labels=labels, root=folder)) == EXPECTED
    assert labelled(data(root, tmp_path, root=None, labels="set/labels.csv", data_dir="/")) == EXPECTED
    up = table(tmp_path / "elsewhere", ["file,label", *(row.replace("images", "../set/images") for row in rows[1:])])
    assert labelled(data(root, tmp_path, root=None, labels=up)) == EXPECTED
    with pytest.raises(FileNotFoundError, match=r"^labels=.*none\.csv: no such table"):
        data(root, tmp_path, labels="none.csv").prepare_data()


def test_links_to_folders_are_followed_once(root, tmp_path):
    away = root.rename(tmp_path / "away")
    root.mkdir()
    (root / "images").symlink_to(away / "images")
    (away / "images" / "circle").symlink_to(root)
    table(root, ["file,label", *(f"images/{name},{EXPECTED[i]}" for i, name in enumerate(NAMES))])
    assert labelled(data(root, tmp_path)) == EXPECTED
    assert FileIndex([root]).count == 20


def test_parts_and_groups(root, tmp_path):
    parts = ["Training"] * 12 + ["valid"] * 4 + ["TEST"] * 4
    rows = [f"{name},{EXPECTED[i]},{parts[i]},p{i // 2}" for i, name in enumerate(NAMES)]
    table(root, ["image,label,set,Patient ID", *rows])
    module = data(root, tmp_path)
    assert [len(module.dataset(split)) for split in ("train", "val", "test")] == [12, 4, 4]
    assert set(module.groups("test")) == {"p8", "p9"}
    whole = data(root, tmp_path, columns={"split": ""})
    patients = [set(whole.groups(split)) for split in ("train", "val", "test")]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 10
    joined = data(root, tmp_path, val_folder=False)
    assert len(joined.dataset("train")) + len(joined.dataset("val")) == 16


def test_labels_that_a_spreadsheet_wrote(root, tmp_path):
    table(root, ["file,label", *(f"{name},{i % 2 + 7}.0" for i, name in enumerate(NAMES))])
    assert data(root, tmp_path).class_names == ["7", "8"]
    table(root, ["file,label", *(f"{name},{('v1.0', '1.5')[i % 2]}" for i, name in enumerate(NAMES))])
    assert data(root, tmp_path).class_names == ["1.5", "v1.0"]


def test_what_is_left_out_is_counted(root, tmp_path):
    rows = [f"images/{name},{EXPECTED[i]}" for i, name in enumerate(NAMES)]
    table(root, ["file,label", *rows, rows[0], "images/00.png,", ",ill"])
    module = data(root, tmp_path)
    assert labelled(module) == EXPECTED
    assert "passed over 2 rows of labels.csv that have no label" in module.notes


def test_missing_files_are_counted_or_left_out(root, tmp_path):
    rows = [f"images/{name},{EXPECTED[i]}" for i, name in enumerate([*NAMES[:18], "a.png", "b.png"])]
    table(root, ["file,label", *rows])
    with pytest.raises(FileNotFoundError, match=r"2 of 20 files are not there.*images/a\.png, images/b\.png.*skip_bad"):
        data(root, tmp_path).prepare_data()
    module = data(root, tmp_path, skip_bad=True)
    assert labelled(module) == {i: EXPECTED[i] for i in range(18)}
    assert "passed over 2 files of labels.csv that are not there" in module.notes
    table(root, ["file,label", "x.png,a", "y.png,b"])
    with pytest.raises(FileNotFoundError, match="2 of 2 files are not there"):
        data(root, tmp_path, skip_bad=True).prepare_data()


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (["a,b", "00.png,ill"], {}, r"no column for the file; it has a, b: .*columns={file: NAME}"),
        (["file,b", "00.png,ill"], {}, r"no column for the label; it has file, b"),
        (["file,label", "00.png,ill"], {"columns": {"label": "kind"}}, r"has no column kind; it has file, label"),
        (["file,label", "00.png,ill"], {"columns": {"class": "kind"}}, "^columns="),
        (["file,label", "00.png,ill", "00.png,well"], {}, r"00\.png is listed twice, as ill too"),
        (["file,label", "00.png,ill"], {}, r"two class folders or more, found ill"),
        (["file,label,split", "00.png,ill,A", "01.png,well,B"], {}, r"split A: use train, val and test"),
        (["file,label", "00.png,ill"], {"label_pattern": "a"}, "^label_pattern=a: .*labels=labels.csv"),
        ([], {}, "no column for the file; it has no header"),
    ],
)
def test_a_table_that_is_none_gets_one_line(rows, options, message, root, tmp_path):
    table(root, rows)
    with pytest.raises(ValueError, match=message):
        data(root, tmp_path, **options).prepare_data()


def test_a_spreadsheet_is_named(tmp_path):
    (tmp_path / "labels.csv").write_bytes(b"PK\x03\x04 and more")
    with pytest.raises(ValueError, match="save it as CSV"):
        read_label_table(tmp_path / "labels.csv")


def test_a_bare_name_that_two_files_have_names_neither(root):
    (root / "copies").mkdir()
    for name in NAMES[:2]:
        (root / "copies" / name).write_bytes((root / "images" / name).read_bytes())
    index = FileIndex([root])
    assert index.find("00.png") is None
    assert index.find("02") == root / "images" / "02.png"
    assert index.find("images/01") == root / "images" / "01.png"
    assert index.find("copies/05.png") is None


def test_no_file_is_looked_for_on_its_own(root, monkeypatch):
    """Folders are listed once, so that a table of half a million rows takes seconds."""
    index = FileIndex([root])
    looked_for = []
    with monkeypatch.context() as patch:
        patch.setattr(os.path, "isfile", lambda path: looked_for.append(path))
        assert [index.find(f"images/{number}.png") for number in range(100, 1000)] == [None] * 900
        assert index.find("images/07.png") == root / "images" / "07.png"
    assert looked_for == []
