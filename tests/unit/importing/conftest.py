import pytest

from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.importing.importer import ImportOptions, import_model
from image_finder.components.importing.source import find_source, load_original
from tests.support.original_models import FAMILIES


@pytest.fixture(scope="session")
def original_folder(tmp_path_factory):
    """Function: the folder of a family's small model, made once."""
    made = {}

    def folder(family):
        if family not in made:
            made[family] = FAMILIES[family](tmp_path_factory.mktemp("originals") / family)
        return made[family]

    return folder


@pytest.fixture(scope="session")
def imported(original_folder, tmp_path_factory):
    """Function: the original and the encoder of the imported bundle of a family, made once."""
    made = {}

    def pair(family):
        if family not in made:
            source = find_source(str(original_folder(family)))
            bundle = import_model(source, tmp_path_factory.mktemp("imported") / family, ImportOptions())
            made[family] = (load_original(source), OnnxEncoder(bundle, device="cpu", threads=1))
        return made[family]

    return pair
