"""The kernels of dynamics compile for GPUs, on machines without one: what an H200 (sm_90) would load holds each of them."""

import pytest
import warp as wp

from visviva.physics.dynamics import articulated, composite, kernel
from visviva.physics.quiet import quiet

NAMES = {kernel: {"newton_euler", "gradient"}, composite: {"composite", "gradient"}, articulated: {"articulated"}}


@pytest.mark.parametrize("real", [wp.float32, wp.float64])
@pytest.mark.parametrize("part", list(NAMES), ids=lambda part: part.__name__.rsplit(".", 1)[-1])
def test_kernels_compile_for_a_gpu(part, real, tmp_path):
    with quiet():
        wp.init()
        if 90 not in wp.get_cuda_supported_archs():
            pytest.skip("this Warp has no compiler for sm_90")
        made = wp.compile_aot_module(part.kernels(real)[0].module, arch=90, module_dir=tmp_path, use_ptx=True)
    entries = [line for line in made[0].read_text().splitlines() if ".entry" in line]
    for name in NAMES[part]:
        assert any(name in line for line in entries), f"{name} is not in {entries}"
    assert len(entries) == len(NAMES[part]), "a backward kernel that nobody launches would be compiled, too"
