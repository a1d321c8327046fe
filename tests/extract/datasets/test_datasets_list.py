"""The dataset `list`: a CSV file with one row per video."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidatt.errors import MissingFileError, UsageError
from vidatt.extract.datasets.catalogue import TEST, TRAIN, UNUSED, Catalogue
from vidatt.extract.datasets.registry import load_catalogue


def load(folder: Path, text: str, classes: str | None = None) -> Catalogue:
    (folder / "videos.csv").write_bytes(text.encode())
    if classes is not None:
        (folder / "classes.txt").write_text(classes)
    return load_catalogue("list", annotations=folder / "videos.csv")


def test_list_reads_names_labels_groups_and_splits(tmp_path: Path) -> None:
    catalogue = load(
        tmp_path,
        "\ufeffpath,label,group,split,split:night,duration\r\n"
        "a/x.mp4,walk,g1,train,test,3\r\n"
        '"b, and c/y.mp4",run,g2,TEST,unused,4\r\n'
        "\r\n"
        "./z.mp4,walk,,unused,train,5\r\n",
    )
    assert catalogue.classes == ("run", "walk")
    assert [video.id for video in catalogue.videos] == ["a/x.mp4", "b, and c/y.mp4", "z.mp4"]
    assert [video.labels for video in catalogue.videos] == [(1,), (0,), (1,)]
    assert [video.group for video in catalogue.videos] == ["g1", "g2", ""]
    assert catalogue.splits["1"].tolist() == [TRAIN, TEST, UNUSED]
    assert catalogue.splits["night"].tolist() == [TEST, UNUSED, TRAIN]
    assert not catalogue.multi_label
    assert catalogue.notes == ("columns that are not used: duration",)


def test_list_takes_several_labels_and_none(tmp_path: Path) -> None:
    catalogue = load(tmp_path, "path,labels\na.mp4,dog; cat\nb.mp4,\nc.mp4,bird|dog|dog\n")
    assert catalogue.classes == ("bird", "cat", "dog")
    assert [video.labels for video in catalogue.videos] == [(2, 1), (), (0, 2)]
    assert catalogue.multi_label
    assert catalogue.splits == {}


def test_list_orders_classes_by_the_file_beside_it(tmp_path: Path) -> None:
    assert load(tmp_path, "path,label\na.mp4,cat\n", "dog\ncat\n").videos[0].labels == (1,)
    assert load(tmp_path, "path,label\na.mp4,0\n").videos[0].labels == (0,)
    with pytest.raises(UsageError, match=r"videos\.csv:2: label 'cta' is not in .*classes\.txt; did you mean 'cat'\?"):
        load(tmp_path, "path,label\na.mp4,cta\n")
    with pytest.raises(UsageError, match=r"videos\.csv:2: label 2 is too high: .* has 2 classes"):
        load(tmp_path, "path,label\na.mp4,2\n")
    with pytest.raises(UsageError, match=r"classes\.txt names the class 'dog' twice"):
        load(tmp_path, "path,label\na.mp4,dog\n", "dog\ndog\n")


def test_list_takes_whole_numbers_as_indices_and_notes_gaps(tmp_path: Path) -> None:
    catalogue = load(tmp_path, "path,label\na.mp4,1\nb.mp4,10\n")
    assert catalogue.classes == tuple(map(str, range(11)))
    assert [video.labels for video in catalogue.videos] == [(1,), (10,)]
    assert catalogue.notes == ("9 of 11 classes have no video, such as 0",)


def test_list_intervals_of_one_file_are_different_videos(tmp_path: Path) -> None:
    catalogue = load(
        tmp_path,
        "path,label,start,stop,id\na.mp4,x,0,2.5,\na.mp4,y,12345.678,,\na.mp4,x,,3,\na.mp4,y,,,\na.mp4,x,1,2,mine\n",
    )
    assert [v.id for v in catalogue.videos] == ["a.mp4#0-2.5", "a.mp4#12345.678-end", "a.mp4#0-3", "a.mp4", "mine"]
    assert {v.path for v in catalogue.videos} == {"a.mp4"}
    assert (catalogue.videos[0].start_seconds, catalogue.videos[0].stop_seconds) == (0.0, 2.5)
    assert (catalogue.videos[3].start_seconds, catalogue.videos[3].stop_seconds) == (None, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"videos\.csv:1: the header needs the columns path and label"),
        ("file,label\na,b\n", r":1: the header needs .* found file, label"),
        ("path,label,labels\n", r":1: the header has both label and labels"),
        ("path,label,path\n", r":1: the column 'path' stands there twice"),
        ("path,label,split,split:1\n", r":1: the column 'split:1' stands there twice"),
        ("path,label,strat\n", r":1: unknown column 'strat'; did you mean 'start'\?"),
        ("path,label\n", "lists no videos"),
        ("path,label\na.mp4,x\nb.mp4\n", r":3: 1 cells for 2 columns"),
        ("path,label\na,b.mp4,x\n", r":2: 3 cells for 2 columns; quote cells that contain commas"),
        ("path,label\n,x\n", r":2: the cell path is empty"),
        ("path,label\n/etc/passwd,x\n", r":2: the path '/etc/passwd' leaves the video folder"),
        ("path,label\na/../../b.mp4,x\n", r":2: the path .* leaves the video folder"),
        (
            "path,label,split\na.mp4,x,val\n",
            r":2: split must be train, test or unused, found 'val' \(a validation part",
        ),
        ("path,label,split\na.mp4,x,\n", r":2: split must be train, test or unused, found ''"),
        ("path,label,start\na.mp4,x,soon\n", r":2: start must be seconds .* found 'soon'"),
        ("path,label,start\na.mp4,x,-1\n", r":2: start must be seconds .* found '-1'"),
        ("path,label,start\na.mp4,x,nan\n", r":2: start must be seconds .* found 'nan'"),
        ("path,label,start,stop\na.mp4,x,4,4\n", r":2: stop 4 s is not after start 4 s"),
        ("path,label\na.mp4,0\nb.mp4,-1\n", r":3: label -1 is negative"),
        ("path,label\na.mp4,x\n./a.mp4,y\n", r":3: 'a\.mp4' stands in line 2 already"),
        ('path,label\n"a.mp4,x\n', "this is not CSV"),
    ],
)
def test_list_bad_files_are_refused_with_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(tmp_path, text)


def test_list_without_its_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"needs its CSV file: --annotations FILE\.csv"):
        load_catalogue("list", videos=tmp_path)
    with pytest.raises(MissingFileError, match=r"There is no CSV file .*none\.csv"):
        load_catalogue("list", annotations=tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes(b"path,label\ncaf\xe9.mp4,x\n")
    with pytest.raises(UsageError, match=r"latin\.csv: byte 14 is not UTF-8"):
        load_catalogue("list", annotations=tmp_path / "latin.csv")
