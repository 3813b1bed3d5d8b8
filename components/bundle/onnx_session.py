"""ONNX Runtime sessions: device, threads and log level; knows nothing of the graphs."""

import logging
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

import onnxruntime as ort

from image_finder.components.errors import BundleError, ConfigError
from image_finder.components.system import available_cores, has_nvidia_driver
from image_finder.components.text import one_line

logger = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda"]
Computer = Literal["cpu", "cuda", "coreml", "directml"]
_PROVIDERS: dict[Computer, str] = {  # in order of preference
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml")  # one module folder
_ERRORS_ONLY = 3
_MOST_RUNS = 8
_IMAGES_A_CALL = 8  # their activations still fit into a core's cache
_IMAGES_A_GPU_CALL = 256  # bounds memory; callers mostly pass fewer


class Lanes(NamedTuple):
    """Division of threads: `runs` batches in parallel on `threads` threads, `images` per call."""

    runs: int
    threads: int
    images: int


def throughput_lanes(device: Device = "auto", threads: int = 0) -> Lanes:
    """Divide threads (0: one per core) for the most images per second.

    On two cores, two runs of one thread and 8 images each reached 195 images/s, one run of two threads and 32 images 178.
    On a GPU one run at a time is fastest. Raises ConfigError.
    """
    total = threads or available_cores()
    if device_of(device) != "cpu":
        return Lanes(1, total, _IMAGES_A_GPU_CALL)
    runs = max(number for number in range(1, _MOST_RUNS + 1) if total % number == 0)
    return Lanes(runs, total // runs, _IMAGES_A_CALL)


def open_session(model: Path, *, device: Device = "auto", threads: int = 0) -> ort.InferenceSession:
    """Open a graph. threads: 0: one per core of this process. Raises BundleError, ConfigError.

    If CoreML or DirectML, which only `auto` chooses, cannot open the graph, the CPU computes it.
    """
    _require_one_package()
    computer = device_of(device)
    try:
        return _opened(model, computer, threads)
    except Exception as error:  # onnxruntime's exceptions have no other common base
        if computer in {"coreml", "directml"}:
            logger.warning("%s cannot open %s, the CPU computes it: %s", computer, model.name, one_line(error))
            return open_session(model, device="cpu", threads=threads)
        raise BundleError(f"cannot open ONNX graph {model}: {one_line(error)}; restore or export it again") from error


def _opened(model: Path, computer: Computer, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = threads or available_cores()
    # Spinning threads would occupy the cores that the pass over the vectors, the decoders and other programs need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Without this, products of 8 bits overflow on x86 processors without VNNI (AVX2: onnxruntime.ai, "Quantize ONNX models").
    options.add_session_config_entry("session.x64quantprecision", "1")
    if computer == "directml":
        options.enable_mem_pattern = False  # as DirectML requires
    return ort.InferenceSession(
        str(model), options, providers=list(dict.fromkeys((_PROVIDERS[computer], _PROVIDERS["cpu"])))
    )


def device_of(device: Device = "auto") -> Computer:
    """The device that a session opened with `device` computes on. Raises ConfigError.

    auto: the first available of CUDA, CoreML (macOS) and DirectML (Windows), else the CPU.
    """
    available = ort.get_available_providers()
    if device == "cuda" and _PROVIDERS["cuda"] not in available:
        raise ConfigError(
            f"device is cuda, ONNX Runtime offers {', '.join(available)}; install onnxruntime-gpu or use cpu"
        )
    # onnxruntime-gpu lists CUDA on machines without a device and then logs an error for each session.
    usable = [name for name in _PROVIDERS if device in {"auto", name} and (name != "cuda" or has_nvidia_driver())]
    return next((name for name in usable if _PROVIDERS[name] in available), "cpu")


@cache
def _require_one_package() -> None:
    """Raise ConfigError if several packages of ONNX Runtime are installed: each overwrites the files of the others."""
    installed = [name for name in _PACKAGES if any(metadata.distributions(name=name))]
    if len(installed) > 1:
        raise ConfigError(
            f"{' and '.join(installed)} are installed, but overwrite each other's files. "
            f"Run: pip uninstall -y {' '.join(installed)} && pip install {installed[-1]}"
        )
