"""Folders in HumanML3D's layout: what is written is read again, and what is none is refused."""

import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch

from visviva.data.actions import draw
from visviva.data.motions.axes import upright
from visviva.data.motions.folder import BLOCKS, HumanML3DFolder, facing, read_captions, write_folder
from visviva.data.motions.humanml3d import features, yawed
from visviva.errors import InputError


@pytest.fixture(scope="module")
def batch():
    return draw(["walk", "jump", "wave", "bow"] * 3, seed=2, seconds=2.0)


@pytest.fixture
def folder(batch, tmp_path):
    write_folder(tmp_path, batch.joints, [[caption, "second words"] for caption in batch.captions])
    return tmp_path


def test_what_is_written_is_read_again(batch, folder):
    read = [HumanML3DFolder(folder, split) for split in ("train", "val", "test")]
    assert sorted(name for part in read for name in part.names) == [f"{k:06d}" for k in range(12)]
    assert not read[0].missing
    everything = HumanML3DFolder(folder, "all")
    wanted = features(facing(batch.joints @ upright("y")))
    for k in range(12):
        clip = everything[k]
        assert torch.equal(clip.features, wanted[k])
        assert [c.text for c in clip.captions] == [batch.captions[k], "second words"]
        assert clip.captions[1].tokens == ("second/OTHER", "words/OTHER")
        assert clip.said(clip.captions[0]).shape == (39, 263)
    joints = everything[1].motion.positions
    assert joints.shape == (39, 22, 3)
    assert (joints[..., 2] - batch.joints[1, :39, :, 2]).abs().max() < 1e-4


def test_motions_that_face_forward_begin_without_a_turn(batch):
    turned = facing(batch.joints @ upright("y"))
    assert turned[:, 0, 0, [0, 2]].abs().max() < 1e-6
    hips = turned[:, 0, 1] - turned[:, 0, 2] + turned[:, 0, 16] - turned[:, 0, 17]
    assert (hips[:, 2].abs() < 1e-4 * hips[:, 0]).all()
    assert ((turned[:, 0, 10] + turned[:, 0, 11])[:, 2] > (turned[:, 0, 7] + turned[:, 0, 8])[:, 2]).all()  # toes ahead
    assert features(turned)[:, 0, 0].abs().max() < 0.2 < features(batch.joints @ upright("y"))[:, 0, 0].abs().max()


def test_statistics_are_those_of_the_training_clips_by_kind(batch, folder):
    read = HumanML3DFolder(folder, "train")
    mean, std = read.statistics
    stacked = torch.cat([read[k].features for k in range(len(read))])
    assert torch.allclose(mean, stacked.mean(0), atol=1e-5)
    assert torch.allclose(std[4:67], stacked[:, 4:67].std(0, correction=0).mean().expand(63), atol=1e-5)
    assert all(bool((std[a:b] == std[a]).all()) for a, b in pairwise(BLOCKS))


def test_parts_of_a_clip_and_times_that_are_none(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("walks#walk/VERB#0.0#0.0\n\nturns left#turn/VERB left/ADV#1.0#2.5\nstands#stand/VERB#nan#nan\nsits\n")
    whole, part, none, bare = read_captions(file, 45)
    assert (whole.start, whole.stop, part.start, part.stop) == (0, None, 20, 45)
    assert (none.stop, bare.stop, bare.tokens) == (None, None, ())
    for line, words in (("a##2.0#1.0", "no part"), ("a##3#4", "no part"), ("a##soon#1", "no time"), ("", "no caption")):
        file.write_text(line)
        with pytest.raises(InputError, match=words):
            read_captions(file, 45)


def test_byte_order_marks_are_no_part_of_names_and_captions(folder):
    plain = HumanML3DFolder(folder, "all")
    for path in (folder / "all.txt", folder / "texts" / "000000.txt"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    marked = HumanML3DFolder(folder, "all")
    assert (marked.names, marked.missing) == (plain.names, [])
    assert marked[0].captions == read_captions(folder / "texts" / "000000.txt", 39)
    assert marked[0].captions[0].text.isprintable()


def test_what_is_missing_is_told_and_what_is_damaged_refused(folder):
    (folder / "texts" / "000003.txt").unlink()
    read = HumanML3DFolder(folder, "all")
    assert read.missing == ["000003"]
    vectors = folder / "new_joint_vecs"
    np.save(vectors / "000000.npy", np.full((5, 263), np.nan, np.float32))
    np.save(vectors / "000001.npy", np.zeros((5, 251), np.float32))
    np.save(vectors / "000002.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    for index, words in ((0, "not finite"), (1, "263"), (2, "not a readable")):
        with pytest.raises(InputError, match=words):
            read[index]
    with pytest.raises(InputError, match=r"did you mean.*train"):
        HumanML3DFolder(folder, "trian")
    (folder / "odd.txt").write_text("../secret\n")
    with pytest.raises(InputError, match="leads out"):
        HumanML3DFolder(folder, "odd")
    (folder / "none.txt").write_text("999999\n")
    with pytest.raises(InputError, match="none of its 1"):
        HumanML3DFolder(folder, "none")


def test_what_cannot_be_written_is_refused(batch, tmp_path):
    with pytest.raises(InputError, match="separates fields"):
        write_folder(tmp_path, batch.joints[:1], [["a # b"]])
    with pytest.raises(InputError, match="clips, frames, 22, 3"):
        write_folder(tmp_path, batch.joints[:2], [["a"]])


@pytest.mark.real
def test_the_published_sample_is_read_and_given_the_features_that_it_has(real, tmp_path):
    """Its joints, turned to any heading and read from the world, give its features again (but for the smoothing at the end)."""
    sample = real / "motion"
    for name, target in (("Mean", "Mean"), ("Std", "Std"), ("012314_vecs", "new_joint_vecs/012314")):
        (tmp_path / target).parent.mkdir(exist_ok=True)
        shutil.copy(sample / f"humanml3d_{name}.npy", tmp_path / f"{target}.npy")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "012314.txt").write_text("a person moves#a/DET person/NOUN move/VERB#0.0#0.0\n")
    (tmp_path / "test.txt").write_text("012314\n000000\n")
    folder = HumanML3DFolder(tmp_path, "test")
    clip = folder[0]
    assert folder.missing == ["000000"]
    mean, std = folder.statistics
    assert ((clip.features - mean) / std).abs().median() < 2
    turned = yawed(clip.motion.positions @ upright("y"), torch.tensor(1.1))
    again = features(facing(turned))
    half = len(again) // 2
    assert (again[1:half, :67] - clip.features[1:half, :67]).abs().max() < 0.02
