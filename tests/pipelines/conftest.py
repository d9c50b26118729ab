"""What tests of training start from: the smallest model in diffusers format, and a folder of three clips with masks."""

import pytest
from posttrain_clips import dataset, tiny_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("clips"), 3)
