"""The datasets named by YouTube ids (`ccv`, `kinetics400`, `kinetics600`, `sports1m`), and `moments`."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from testkit.commands import vidatt

from vidatt.cache.store import Store
from vidatt.errors import MissingFileError, UsageError
from vidatt.extract.datasets.catalogue import TEST, TRAIN, UNUSED, Catalogue
from vidatt.extract.datasets.moments import read_categories
from vidatt.extract.datasets.registry import check, describe, load_catalogue

IDS = ("-0n50a7seNI", "UDqivjS-lpI", "udqivjs-lpi", "3dKrnfAgTmk")


def counts(catalogue: Catalogue) -> list[int]:
    return [int(np.sum(catalogue.splits["1"] == role)) for role in (UNUSED, TRAIN, TEST)]


def write(folder: Path, **texts: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def touch(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    return folder


# CCV


def write_ccv(folder: Path, **texts: str) -> Path:
    files = {
        "categoryName.txt": "Cat\nDog\nParade\n",
        "trainVidID.txt": f"{IDS[0]}\n{IDS[1]}\n",
        "trainLabel.txt": "1 0 1 \n0 0 0 \n",
        "testVidID.txt": f"{IDS[2]}\n",
        "testLabel.txt": "0 1 0 \n",
    }
    return write(folder, **(files | texts))


def test_ccv_counts_are_the_official_ones(shared_data: Path) -> None:
    catalogue = load_catalogue("ccv", annotations=shared_data / "annotations" / "ccv")
    assert counts(catalogue) == [0, 4659, 4658]
    assert describe("ccv").splits == {"1": (4659, 4658)}
    assert catalogue.multi_label
    assert catalogue.classes[:3] == ("Basketball", "Baseball", "Soccer")
    assert (len(catalogue.classes), catalogue.classes[-1]) == (20, "Playground")
    several = [len(video.labels) for video in catalogue.videos]
    assert [several.count(n) for n in range(4)] == [1996, 6773, 538, 10]
    roles = catalogue.splits["1"]
    for role, expected in ((TRAIN, (1009, 3937)), (TEST, (987, 3942))):
        rows = [video.labels for video, r in zip(catalogue.videos, roles, strict=True) if r == role]
        assert (rows.count(()), sum(map(len, rows))) == expected  # rows without a 1; ones in all
    first = catalogue.videos[0]
    assert (first.id, first.path, first.labels) == ("1MdlncaU5JE", "1MdlncaU5JE.mp4", (0,))


def test_ccv_finds_videos_by_id_in_any_folder_and_with_any_ending(tmp_path: Path) -> None:
    write_ccv(tmp_path / "annotations")
    videos = touch(tmp_path / "v", f"some/where/{IDS[0]}.webm", f"{IDS[1]}.mkv")
    catalogue = load_catalogue("ccv", videos=videos, options={"suffix": ".flv"})
    # Ids are case-sensitive: the third is the second in small letters, and is not there.
    # It is expected beside the first that was found.
    third = f"some/where/{IDS[2]}.flv"
    assert [video.path for video in catalogue.videos] == [f"some/where/{IDS[0]}.webm", f"{IDS[1]}.mkv", third]
    assert [video.labels for video in catalogue.videos] == [(0, 2), (), (1,)]
    found = check("ccv", catalogue, videos)
    assert (found.missing, found.surplus) == ((third,), ())


def test_ccv_a_video_that_lies_there_twice_is_noted(tmp_path: Path) -> None:
    videos = touch(tmp_path / "v", f"a/{IDS[0]}.mp4", f"b/{IDS[0]}.mkv")
    catalogue = load_catalogue("ccv", videos=videos, annotations=write_ccv(tmp_path / "annotations"))
    assert catalogue.videos[0].path == f"a/{IDS[0]}.mp4"
    assert catalogue.notes == (f"1 videos lie there twice, such as a/{IDS[0]}.mp4 and b/{IDS[0]}.mkv",)
    assert check("ccv", catalogue, videos).surplus == (f"b/{IDS[0]}.mkv",)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"trainVidID.txt": "../etc\nx\n"}, r"trainVidID\.txt:1: expected a YouTube id, found '\.\./etc'"),
        ({"trainVidID.txt": "/etc/passwd\nx\n"}, r"trainVidID\.txt:1: expected a YouTube id"),
        ({"trainVidID.txt": "a\nb\nc\n"}, r"trainLabel\.txt:2: 2 rows for the 3 ids of trainVidID\.txt"),
        ({"trainLabel.txt": "1 0\n0 0 0\n"}, r"trainLabel\.txt:1: expected 3 times 0 or 1"),
        ({"testLabel.txt": "0 2 0\n"}, r"testLabel\.txt:1: expected 3 times 0 or 1"),
        ({"testVidID.txt": f"{IDS[0]}\n"}, f"lists the video '{IDS[0]}' twice"),
    ],
)
def test_ccv_bad_lists_are_refused(tmp_path: Path, texts: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_catalogue("ccv", annotations=write_ccv(tmp_path, **texts))


@pytest.mark.slow
def test_ccv_that_is_only_partly_there_is_extracted_and_the_rest_is_missing(shared_data: Path, tmp_path: Path) -> None:
    videos = tmp_path / "v"
    videos.mkdir()
    clip = next((shared_data / "videos" / "fight_surv" / "fight").glob("*.mp4"))
    shutil.copy(clip, videos / f"{IDS[1]}.mp4")
    write_ccv(tmp_path / "annotations")
    done = vidatt(
        "extract", "--dataset", "ccv", "--videos", videos, "--store", tmp_path / "s.zarr", "--streams", "rgb",
        "--backbone", "hog", "--sampler", "centre:3", "--workers", "1", "--json",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    summary = json.loads(done.stdout)
    assert summary["outcomes"] == {"missing": 2, "ok": 1}
    assert {failed["id"] for failed in summary["failed"]} == {IDS[0], IDS[2]}
    index = Store.open(tmp_path / "s.zarr").index
    assert index.multi_label
    assert {str(id): row.tolist() for id, row in zip(index.ids, index.labels, strict=True)} == {
        IDS[0]: [0, 2], IDS[1]: [-1, -1], IDS[2]: [1, -1],
    }  # fmt: skip


# Kinetics


def write_kinetics(folder: Path, train: list[tuple[str, str, int]], val: list[tuple[str, str, int]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part, rows in (("train", train), ("val", val)):
        with (folder / f"kinetics-600_{part}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["label", "youtube_id", "time_start", "time_end", "split", "is_cc"])
            table.writerows([label, id, start, start + 10, part, 0] for label, id, start in rows)
    return folder


@pytest.mark.slow
def test_kinetics_counts_of_the_official_lists(shared_data: Path) -> None:
    folder = shared_data / "annotations" / "kinetics"
    catalogue = load_catalogue("kinetics400", annotations=folder)
    assert counts(catalogue) == [0, 0, 19906]
    assert catalogue.notes == ("there is no kinetics-400_train.csv, so no train videos",)
    assert len(catalogue.classes) == 400
    video = catalogue.videos[0]
    assert (video.id, video.path, video.labels) == (
        "0wR5jVB-WPk_000417_000427", "val/abseiling/0wR5jVB-WPk_000417_000427.mp4", (0,),
    )  # fmt: skip
    everything = load_catalogue("kinetics400", annotations=folder, options={"parts": "val,test"})
    assert counts(everything) == [38685, 0, 19906]
    assert {video.labels for video in everything.videos[19906:]} == {()}


@pytest.mark.parametrize(("name", "classes"), [("k400", 400), ("k600", 600)])
def test_kinetics_label_maps_are_the_sorted_names(shared_data: Path, name: str, classes: int) -> None:
    text = (shared_data / "annotations" / "kinetics" / f"label_map_{name}.txt").read_text()
    names = [line for line in text.split("\n") if line]
    assert (len(names), names) == (classes, sorted(names))
    assert "massaging person's head" in names


def test_kinetics_labels_are_sorted_whatever_they_hold(tmp_path: Path) -> None:
    odd = ["tying knot (not on a tie)", 'say "cheese"', "salsa, dancing", "massaging person's head", "abseiling"]
    train = [(label, f"{index:011d}", index) for index, label in enumerate(odd)]
    val = [("abseiling", IDS[0], 123456)]
    catalogue = load_catalogue("kinetics600", annotations=write_kinetics(tmp_path, train, val))
    assert list(catalogue.classes) == sorted(odd)
    assert [catalogue.classes[video.labels[0]] for video in catalogue.videos] == [*odd, "abseiling"]
    assert catalogue.videos[-1].id == "-0n50a7seNI_123456_123466"
    assert catalogue.videos[2].path == "train/salsa, dancing/00000000002_000002_000012.mp4"
    assert catalogue.notes == ("the lists have 5 classes, officially 600",)
    assert counts(catalogue) == [0, 5, 1]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (("a/x_000001_000011.mp4",), ("a/x_000001_000011.mp4", "a/y_000002_000012.mp4", "val/b/z_000003_000013.mp4")),
        (
            ("x_000001_000011.mkv",),  # no folders at all: what is not there yet is expected there too
            ("x_000001_000011.mkv", "y_000002_000012.mp4", "z_000003_000013.mp4"),
        ),
        (
            ("kinetics/compress/val/b_b/z_000003_000013.mp4",),
            (
                "train/a/x_000001_000011.mp4",
                "train/a/y_000002_000012.mp4",
                "kinetics/compress/val/b_b/z_000003_000013.mp4",
            ),
        ),
        ((), ("train/a/x_000001_000011.mp4", "train/a/y_000002_000012.mp4", "val/b/z_000003_000013.mp4")),
    ],
    ids=["classes", "flat", "deep", "none"],
)
def test_kinetics_layouts_are_recognised(tmp_path: Path, files: tuple[str, ...], expected: tuple[str, ...]) -> None:
    folder = write_kinetics(tmp_path / "annotations", [("a", "x", 1), ("a", "y", 2)], [("b", "z", 3)])
    (tmp_path / "v").mkdir()
    catalogue = load_catalogue("kinetics600", annotations=folder, videos=touch(tmp_path / "v", *files))
    assert tuple(video.path for video in catalogue.videos) == expected
    found = check("kinetics600", catalogue, tmp_path / "v")
    assert (set(found.missing), found.surplus) == (set(expected) - set(files), ())


def test_kinetics_paths_stay_when_the_missing_videos_come(tmp_path: Path) -> None:
    rows = [("a", f"{index:011d}", index) for index in range(6)]
    folder = write_kinetics(tmp_path / "annotations", rows, [])
    first = load_catalogue(
        "kinetics600", annotations=folder, videos=touch(tmp_path / "v", "a/00000000003_000003_000013.mp4")
    )
    touch(tmp_path / "v", *(video.path for video in first.videos))
    assert load_catalogue("kinetics600", annotations=folder, videos=tmp_path / "v").digest() == first.digest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label,youtube_id,time_start\na,x,1\n", r"val\.csv:1: the header lacks time_end; it has label, youtube_id"),
        ("label,youtube_id,time_start,time_end\na,../../x,1,11\n", r"val\.csv:2: expected a YouTube id, found '\.\./"),
        ("label,youtube_id,time_start,time_end\na,x,one,11\n", r"val\.csv:2: expected whole seconds, .*'one'"),
        ("label,youtube_id,time_start,time_end\na,x,11,11\n", r"val\.csv:2: expected whole seconds"),
        ("label,youtube_id,time_start,time_end\na,x,1\n", r"val\.csv:2: 3 cells for 4 columns"),
        ("label,youtube_id,time_start,time_end\n,x,1,11\n", r"val\.csv:2: the cell label is empty"),
        ('label,youtube_id,time_start,time_end\n"a"b,x,1,11\n', r"val\.csv:2: this is not CSV"),
        ("label,youtube_id,time_start,time_end\na,x,1,11\na,x,1,11\n", r"val\.csv:3: x_000001_000011 stands in .*:2"),
        (
            "label,youtube_id,time_start,time_end\n../../a,x,1,11\n",
            r"'val/\.\./\.\./a/x_.*' *.*leaves the video folder",
        ),
    ],
)
def test_kinetics_bad_lists_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "val.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        load_catalogue("kinetics400", annotations=tmp_path)


@pytest.mark.parametrize(
    ("subset", "kept", "classes", "unmet"),
    [
        pytest.param({"s.txt": "b\n"}, ["y_000002_000012", "z_000003_000013"], ["b"], 0, id="a-class"),
        pytest.param({"s.txt": "x\nz\ngone-id\n"}, ["x_000001_000011", "z_000003_000013"], ["a", "b"], 1, id="ids"),
        pytest.param({"s.txt": "y_000002_000012\n"}, ["y_000002_000012"], ["b"], 0, id="a-clip"),
        pytest.param(
            {"k400_train.csv": "label,youtube_id,time_start\nother,x,9\n", "k400_val.csv": "youtube_id\nz\nw\n"},
            ["x_000001_000011", "z_000003_000013"], ["a", "b"], 1, id="lists-of-another-version",
        ),
    ],
)  # fmt: skip
def test_kinetics_subset_keeps_what_its_files_say(
    tmp_path: Path, subset: dict[str, str], kept: list[str], classes: list[str], unmet: int
) -> None:
    folder = write_kinetics(tmp_path / "lists", [("a", "x", 1), ("b", "y", 2)], [("b", "z", 3), ("c", "v", 4)])
    for name, text in subset.items():
        (tmp_path / name).write_text(text)
    files = ",".join(str(tmp_path / name) for name in subset)
    catalogue = load_catalogue("kinetics600", annotations=folder, options={"subset": files})
    assert [video.id for video in catalogue.videos] == kept
    assert list(catalogue.classes) == classes
    whole = load_catalogue("kinetics600", annotations=folder)
    names = {video.id: whole.classes[video.labels[0]] for video in whole.videos}
    assert {v.id: catalogue.classes[v.labels[0]] for v in catalogue.videos} == {id: names[id] for id in kept}
    said = f"; {unmet} of its entries meet none" if unmet else ""
    assert f"subset {files}: {len(kept)} videos are kept{said}" in catalogue.notes


def test_kinetics_subset_that_fits_nothing_or_is_not_there_is_refused(tmp_path: Path) -> None:
    folder = write_kinetics(tmp_path / "lists", [("a", "x", 1)], [("b", "z", 3)])
    (tmp_path / "s.txt").write_text("none of them\n")
    for file, message in (("s.txt", "no line of it is a class, a YouTube id or a clip"), ("no.txt", r"no\.txt")):
        with pytest.raises(UsageError, match=message):
            load_catalogue("kinetics600", annotations=folder, options={"subset": str(tmp_path / file)})


def test_kinetics_labels_must_be_in_the_label_map(tmp_path: Path) -> None:
    write_kinetics(tmp_path, [("walking dog", "x", 1)], [])
    (tmp_path / "label_map_k600.txt").write_text("walking the dog\nyoga\n")
    with pytest.raises(
        UsageError, match=r"train\.csv:2: label 'walking dog' is not in .* did you mean 'walking the dog'"
    ):
        load_catalogue("kinetics600", annotations=tmp_path)
    for parts in ("train,validation", "train,train", ""):
        with pytest.raises(UsageError, match="takes train, val and test, once each"):
            load_catalogue("kinetics600", annotations=tmp_path, options={"parts": parts})
    with pytest.raises(UsageError, match=r"suffix='mp4' .* must be one of \.3gp"):
        load_catalogue("kinetics600", annotations=tmp_path, options={"suffix": "mp4"})
    with pytest.raises(MissingFileError, match=r"no kinetics-400_train\.csv or train\.csv or"):
        load_catalogue("kinetics400", annotations=tmp_path)


# Sports-1M

WATCH = "https://www.youtube.com/watch?v="


def test_sports1m_labels_are_the_official_ones_from_0(shared_data: Path, tmp_path: Path) -> None:
    shutil.copy(shared_data / "annotations" / "sports1m" / "labels.txt", tmp_path)
    lists = {
        "original__train_partition.txt": f"{WATCH}{IDS[1]} 168,169\n{WATCH}{IDS[2]} 0\n",
        "original__test_partition.txt": f"http://youtu.be/{IDS[0]} 486\n",
    }
    catalogue = load_catalogue("sports1m", annotations=write(tmp_path, **lists))
    assert len(catalogue.classes) == describe("sports1m").classes == 487
    assert (catalogue.classes[0], catalogue.classes[486]) == ("boomerang", "model aircraft")
    assert "yağlı güreş" in catalogue.classes
    assert [(video.id, video.labels) for video in catalogue.videos] == [
        ("UDqivjS-lpI", (168, 169)), ("udqivjs-lpi", (0,)), ("-0n50a7seNI", (486,)),
    ]  # fmt: skip
    assert counts(catalogue) == [0, 2, 1]
    assert catalogue.multi_label


def write_sports(folder: Path, train: str, test: str, stem: str = "original__{}_partition.txt") -> Path:
    names = [f"sport {index}" for index in range(100)]
    return write(
        folder, **{"labels.txt": "\n".join(names), stem.format("train"): train, stem.format("test"): test}
    )  # fmt: skip


def test_sports1m_a_video_of_both_lists_is_tested_with_all_labels(tmp_path: Path) -> None:
    """The read-me's own example: ABPsSSS2uY0 in fold 0 with class 49 for training and class 26 for testing."""
    stem = "cross-validation__sports0_{}.txt"
    train = f"{WATCH}ABPsSSS2uY0 49\n{WATCH}{IDS[0]} 1,2\n{WATCH}{IDS[0]} 3\n"
    write_sports(tmp_path, train, f"{WATCH}ABPsSSS2uY0 26\n", stem)
    catalogue = load_catalogue("sports1m", annotations=tmp_path, options={"partition": "0"})
    assert [(video.id, video.labels) for video in catalogue.videos] == [
        ("ABPsSSS2uY0", (49, 26)), (IDS[0], (1, 2, 3)),
    ]  # fmt: skip
    assert catalogue.splits["1"].tolist() == [TEST, TRAIN]
    assert catalogue.notes == (
        f"1 lines repeat a video of the same list, such as {IDS[0]}; labels are united",
        "1 videos stand in the train list and the test list, such as ABPsSSS2uY0: they are tested with the labels of "
        "both, and not trained on",
    )
    with pytest.raises(
        MissingFileError, match=r"train_partition\.txt: .* missing \(and train_partition\.txt\.gz too\)"
    ):
        load_catalogue("sports1m", annotations=tmp_path)
    with pytest.raises(UsageError, match="must be original, or 0 to 9"):
        load_catalogue("sports1m", annotations=tmp_path, options={"partition": "10"})


def test_sports1m_reads_packed_lists(tmp_path: Path) -> None:
    write_sports(tmp_path, f"{WATCH}{IDS[0]} 1\n", f"{WATCH}{IDS[1]} 2\n")
    plain = load_catalogue("sports1m", annotations=tmp_path)
    for path in (tmp_path / "original").iterdir():
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert load_catalogue("sports1m", annotations=tmp_path).digest() == plain.digest()
    packed = tmp_path / "original" / "train_partition.txt.gz"
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(UsageError, match=r"train_partition\.txt\.gz is damaged"):
        load_catalogue("sports1m", annotations=tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{WATCH}{IDS[0]}", r"train_partition\.txt:1: expected '<YouTube address> <label>"),
        (f"{WATCH}../../../etc 1", r"train_partition\.txt:1: expected"),
        (f"{WATCH}{IDS[0]} -1", r"train_partition\.txt:1: expected"),
        (f"{WATCH}{IDS[0]} 7,100", r"train_partition\.txt:1: labels 7,100 are not within 0\.\.99"),
        (f"{WATCH}{IDS[0]} ,", r"train_partition\.txt:1: labels , are not within"),
    ],
)
def test_sports1m_bad_lines_are_refused(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_catalogue("sports1m", annotations=write_sports(tmp_path, line + "\n", ""))


# Moments in Time


def test_moments_category_files_at_hand_have_339_classes_in_one_unsorted_order(shared_data: Path) -> None:
    folder = shared_data / "annotations" / "moments"
    classes = read_categories(folder / "label_map.txt")
    assert classes == read_categories(folder / "category_moment.txt")
    assert len(classes) == describe("moments").classes == 339
    assert classes[:3] == ("clapping", "praying", "dropping")
    assert classes != tuple(sorted(classes))
    assert "adult+female+speaking" in classes


def write_moments(folder: Path, shared_data: Path, **texts: str) -> Path:
    names = read_categories(shared_data / "annotations" / "moments" / "label_map.txt")
    files = {
        "moments_categories.txt": "".join(f"{name},{index}\n" for index, name in reversed(list(enumerate(names)))),
        "trainingSet.csv": "praying/yt-a.b_1.mp4,praying,3,1\n"
        "adult+female+speaking/x_2.mp4,adult+female+speaking,4,0\n",
        "validationSet.csv": "praying/x_2.mp4,praying,3,0\n",
    }
    return write(folder, **(files | texts))


def test_moments_labels_are_the_indices_of_the_categories(shared_data: Path, tmp_path: Path) -> None:
    folder = write_moments(tmp_path / "annotations", shared_data)
    catalogue = load_catalogue("moments", annotations=folder)
    assert catalogue.notes == ()
    assert counts(catalogue) == [0, 2, 1]
    assert [catalogue.classes[video.labels[0]] for video in catalogue.videos] == [
        "praying", "adult+female+speaking", "praying",
    ]  # fmt: skip
    assert catalogue.videos[0].labels == (1,)
    assert catalogue.videos[2].path == "validation/praying/x_2.mp4"
    # One name in two classes are two videos, wherever the class folders lie.
    videos = touch(tmp_path / "v", "mit/adult+female+speaking/x_2.mp4", "mit/praying/x_2.mp4")
    placed = load_catalogue("moments", annotations=folder, videos=videos)
    assert [video.path for video in placed.videos] == [
        "training/praying/yt-a.b_1.mp4", "mit/adult+female+speaking/x_2.mp4", "mit/praying/x_2.mp4",
    ]  # fmt: skip


def test_moments_works_with_the_validation_list_alone(shared_data: Path, tmp_path: Path) -> None:
    folder = write_moments(tmp_path, shared_data)
    (folder / "trainingSet.csv").unlink()
    catalogue = load_catalogue("moments", annotations=folder)
    assert counts(catalogue) == [0, 0, 1]
    assert catalogue.notes == ("there is no trainingSet.csv, so no training videos",)
    (folder / "validationSet.csv").unlink()
    with pytest.raises(MissingFileError, match=r"no trainingSet\.csv or validationSet\.csv"):
        load_catalogue("moments", annotations=folder)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"trainingSet.csv": "prayin/x.mp4,praying,3,1\n"}, r"trainingSet\.csv:1: 'prayin/x\.mp4' .* mean 'praying'"),
        (
            {"trainingSet.csv": "../x.mp4,praying,3,1\n"},
            r"trainingSet\.csv:1: '\.\./x\.mp4' does not start with a class",
        ),
        ({"trainingSet.csv": "praying/../../x.mp4,praying\n"}, r"'training/praying/\.\./\.\./x\.mp4', which leaves"),
        (
            {"trainingSet.csv": "praying/x_2.mp4,praying,3,1\n"},
            r"validationSet\.csv:1: .* in trainingSet\.csv:1 already",
        ),
        (
            {"moments_categories.txt": "praying,1\n"},
            r"moments_categories\.txt:1: indices must run from 0 without a gap",
        ),
        ({"moments_categories.txt": "praying,0\nx,0\n"}, r"moments_categories\.txt:2: 'x,0': names and indices"),
        ({"moments_categories.txt": "praying,zero\n"}, r"moments_categories\.txt:1: expected '<class>,<index>'"),
    ],
)
def test_moments_bad_lists_are_refused(shared_data: Path, tmp_path: Path, texts: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_catalogue("moments", annotations=write_moments(tmp_path, shared_data, **texts))
