"""Which joint or marker is which part of the body, from its name, in the dialects of motion files.

Known are the words of SMPL and HumanML3D, of BVH files (Mixamo, CMU, LAFAN, Biovision), of Human3.6M and of common marker sets.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

SIDED = {  # part: words in order of preference
    "hip": ("hjc", "upleg", "upperleg", "thigh", "femur", "hip", "gtr", "hiproll"),
    "knee": ("kjc", "knee", "leg", "lowleg", "lowerleg", "shin", "calf", "tibia", "lekn", "kne"),
    "ankle": ("ajc", "ankle", "foot", "ank", "talus"),
    "heel": ("heel", "calc", "calcn", "hee"),
    "toe": ("toebase", "toe", "toes", "ball", "mt2", "mt1", "mtp", "meta1", "meta2", "5meta", "foot", "toeend"),
    "shoulder": ("sjc", "arm", "upperarm", "uparm", "shldr", "humerus", "shoulder", "sho", "acromion"),
    "elbow": ("ejc", "elbow", "forearm", "lowarm", "lowerarm", "elb", "elbowlat"),
    "wrist": ("wjc", "wrist", "hand", "wri", "wristradius"),
}
MIDDLE = {
    "pelvis": ("pelvis", "hips", "root", "hip", "midhip", "sacrum"),
    "neck": ("neck", "neck1", "c7", "thorax"),
    "head": ("headend", "head", "headtop", "nose"),
}
OTHERS = {
    "asi",
    "asis",
    "psi",
    "psis",
    "thi",
    "tib",
    "sha",
    "fin",
    "wra",
    "wrb",
    "fhd",
    "bhd",
    "bak",
    "foo",
    "clav",
    "upa",
    "fra",
}
WORDS = OTHERS | {word for candidates in SIDED.values() for word in candidates}
PREFIX = re.compile(r"^(?:[A-Za-z0-9_]+:|mixamorig_?|bip0?1[ _]|character1_|m_avg_|def[-_])", re.IGNORECASE)
SIDES = {
    "left": "left",
    "l": "left",
    "lft": "left",
    "lf": "left",
    "right": "right",
    "r": "right",
    "rgt": "right",
    "rt": "right",
}


def split(name: str) -> tuple[str, str]:
    """Return (side, word) of a joint's name: side is left, right or empty; the word has no separators.

    >>> split("mixamorig:LeftToeBase")
    ('left', 'toebase')
    >>> split("R.MT1")
    ('right', 'mt1')
    """
    bare = re.sub(r"_\d+$", "", PREFIX.sub("", name.strip()))
    words = re.findall(r"[A-Z]?[a-z]+\d*|[A-Z]+(?![a-z])\d*|\d+[a-z]*", re.sub(r"[^A-Za-z0-9]", " ", bare))
    words = [word.lower() for word in words]
    rest = re.sub(r"[^a-z0-9]", "", bare[1:].lower())
    if words and words[0] not in SIDES and bare[0] in "LRlr" and rest in WORDS:  # lThigh, LANK, Rhip
        return SIDES[bare[0].lower()], rest
    for place in (0, -1):
        if len(words) > 1 and words[place] in SIDES:
            side = SIDES[words[place]]
            return side, "".join(words[1:] if place == 0 else words[:-1])
    return "", "".join(words)


def parts(names: Sequence[str]) -> dict[str, int]:
    """Return the index of each part of the body that the names give: ``left_hip``, ..., ``pelvis``, ``neck``, ``head``.

    >>> parts(["Hips", "LeftUpLeg", "LeftLeg", "LeftFoot", "LeftToeBase"])
    {'left_hip': 1, 'left_knee': 2, 'left_ankle': 3, 'left_toe': 4, 'pelvis': 0}
    """
    words: dict[tuple[str, str], int] = {}
    for index, name in enumerate(names):
        words.setdefault(split(name), index)
    found: dict[str, int] = {}
    for side in ("left", "right"):
        for part, candidates in SIDED.items():
            free = [words[side, word] for word in candidates if (side, word) in words]
            free = [index for index in free if index not in found.values()]
            if free:
                found[f"{side}_{part}"] = free[0]
    for part, candidates in MIDDLE.items():
        free = [words["", word] for word in candidates if ("", word) in words and words["", word] not in found.values()]
        if free:
            found[part] = free[0]
    return _with_ends(names, found)


def _with_ends(names: Sequence[str], found: dict[str, int]) -> dict[str, int]:
    """A foot whose toe is only an End Site has that for its toe."""
    for side in ("left", "right"):
        ankle = found.get(f"{side}_ankle")
        if ankle is not None and f"{side}_toe" not in found and f"{names[ankle]}_end" in names:
            found[f"{side}_toe"] = list(names).index(f"{names[ankle]}_end")
    return found


def feet(names: Sequence[str]) -> list[int]:
    """Return the joints or markers that can touch the ground: toes, heels and ankles, of both sides, where there are any."""
    found = parts(names)
    wanted = [f"{side}_{part}" for side in ("left", "right") for part in ("ankle", "heel", "toe")]
    return [found[part] for part in wanted if part in found]
