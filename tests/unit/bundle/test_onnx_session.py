"""ONNX Runtime sessions: the choice of a device, and packages that exclude each other."""

from importlib import metadata

import numpy as np
import onnxruntime as ort
import pytest

from image_finder.components.bundle import onnx_session
from image_finder.components.bundle.bundle import TEXT_ENCODER
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.bundle.onnx_session import device_of, open_session, throughput_lanes
from image_finder.components.errors import BundleError, ConfigError

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
COREML, DIRECTML = "CoreMLExecutionProvider", "DmlExecutionProvider"


@pytest.fixture
def machine(monkeypatch):
    """machine(providers, driver): what ONNX Runtime and the system report."""

    def make(*providers, driver=False):
        monkeypatch.setattr(ort, "get_available_providers", lambda: list(providers))
        monkeypatch.setattr(onnx_session, "has_nvidia_driver", lambda: driver)

    return make


@pytest.mark.parametrize(
    ("providers", "driver", "device", "computer"),
    [
        ([CPU], False, "auto", "cpu"),
        ([CUDA, CPU], True, "auto", "cuda"),
        ([CUDA, CPU], False, "auto", "cpu"),
        ([COREML, CPU], False, "auto", "coreml"),
        (["AzureExecutionProvider", DIRECTML, CPU], False, "auto", "directml"),
        ([CUDA, DIRECTML, CPU], True, "auto", "cuda"),
        ([CUDA, DIRECTML, CPU], False, "auto", "directml"),
        ([CUDA, COREML, DIRECTML, CPU], True, "cpu", "cpu"),
        ([CUDA, CPU], True, "cuda", "cuda"),
        ([CUDA, DIRECTML, CPU], False, "cuda", "cpu"),
    ],
)
def test_auto_takes_the_first_available_device_and_others_are_taken_literally(
    machine, providers, driver, device, computer
):
    machine(*providers, driver=driver)
    assert device_of(device) == computer
    assert (throughput_lanes(device, threads=4).runs == 1) == (computer != "cpu")


def test_cuda_without_its_provider_is_refused(machine):
    machine(COREML, CPU, driver=True)
    with pytest.raises(ConfigError, match="ONNX Runtime offers CoreMLExecutionProvider, CPUExecutionProvider; install"):
        device_of("cuda")


@pytest.mark.parametrize("provider", [COREML, DIRECTML])
def test_a_graph_that_coreml_or_directml_cannot_open_is_computed_by_the_cpu(
    machine, colour_bundle, caplog, monkeypatch, provider
):
    machine(provider, CPU)
    opened, session = [], ort.InferenceSession

    def refusing(path, options, providers):
        opened.append(providers)
        if providers[0] == provider:
            raise RuntimeError("operator not supported")
        return session(path, options, providers=providers)

    monkeypatch.setattr(ort, "InferenceSession", refusing)
    vectors = OnnxEncoder(colour_bundle).encode_text(["red"])
    np.testing.assert_array_equal(vectors, OnnxEncoder(colour_bundle, device="cpu").encode_text(["red"]))
    assert opened == [[provider, CPU], [CPU], [CPU]]
    assert "cannot open text_encoder.onnx, the CPU computes it: operator not supported" in caplog.text


def test_a_graph_that_cuda_cannot_open_is_an_error(machine, colour_bundle, monkeypatch):
    def refusing(*_, **__):
        raise RuntimeError("no memory")

    machine(CUDA, CPU, driver=True)
    monkeypatch.setattr(ort, "InferenceSession", refusing)
    with pytest.raises(BundleError, match="cannot open ONNX graph .*: no memory; restore"):
        open_session(colour_bundle.path / TEXT_ENCODER)


def test_two_packages_of_onnx_runtime_are_one_line_with_the_command_that_helps(colour_bundle, monkeypatch):
    installed = {"onnxruntime", "onnxruntime-gpu"}
    monkeypatch.setattr(metadata, "distributions", lambda *, name: [name] if name in installed else [])
    onnx_session._require_one_package.cache_clear()
    with pytest.raises(ConfigError) as raised:
        open_session(colour_bundle.path / TEXT_ENCODER)
    assert str(raised.value) == (
        "onnxruntime and onnxruntime-gpu are installed, but overwrite each other's files. "
        "Run: pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
    )
    installed.remove("onnxruntime-gpu")
    assert open_session(colour_bundle.path / TEXT_ENCODER).get_inputs()
