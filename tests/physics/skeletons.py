"""SMPL's mean male skeleton, as the method card gives it (motion, section 12.1)."""

import torch

from visviva.physics.bodies import SKELETONS

OFFSETS = [
    (0.0, 0.0, 0.0), (0.0695, -0.0914, -0.0068), (-0.0677, -0.0905, -0.0043), (-0.0025, 0.1090, -0.0267),
    (0.0343, -0.3752, -0.0045), (-0.0383, -0.3826, -0.0089), (0.0055, 0.1352, 0.0011), (-0.0136, -0.3980, -0.0437),
    (0.0158, -0.3984, -0.0423), (0.0015, 0.0529, 0.0254), (0.0264, -0.0558, 0.1193), (-0.0254, -0.0481, 0.1233),
    (-0.0028, 0.2139, -0.0429), (0.0788, 0.1217, -0.0341), (-0.0818, 0.1188, -0.0386), (0.0052, 0.0650, 0.0513),
    (0.0910, 0.0305, -0.0089), (-0.0960, 0.0326, -0.0091), (0.2596, -0.0128, -0.0275), (-0.2537, -0.0133, -0.0214),
    (0.2492, 0.0090, -0.0012), (-0.2553, 0.0078, -0.0056), (0.0840, -0.0082, -0.0149), (-0.0846, -0.0061, -0.0103),
]  # fmt: skip


def smpl_rest(count=24):
    """Joints at rest, (count, 3) m, the pelvis at 0.95 m."""
    places = []
    for offset, parent in zip(OFFSETS[:count], SKELETONS["smpl"].parents, strict=False):
        own = torch.tensor(offset, dtype=torch.float64)
        places.append(own + (places[parent] if parent >= 0 else torch.tensor([0.0, 0.95, 0.0], dtype=torch.float64)))
    return torch.stack(places)


def h36m_rest():
    """A standing Human3.6M skeleton made of SMPL's joints, 17 x 3 m."""
    smpl = smpl_rest()
    rest = smpl[[0, 2, 5, 8, 1, 4, 7, 6, 12, 15, 15, 16, 18, 20, 17, 19, 21]]
    rest[0] = (smpl[1] + smpl[2]) / 2
    rest[10] = rest[9] + torch.tensor([0.0, 0.17, 0.0])
    return rest
