"""ONNX Runtime sessions: device, threads and log level; knows nothing of the graphs."""

import os
from pathlib import Path
from typing import Literal, NamedTuple

import onnxruntime as ort

from image_finder.components.errors import BundleError, ConfigError
from image_finder.components.text import one_line

Device = Literal["auto", "cpu", "cuda"]
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
    total = threads or len(os.sched_getaffinity(0))
    if _providers(device)[0] == "CUDAExecutionProvider":
        return Lanes(1, total, _IMAGES_A_GPU_CALL)
    runs = max(number for number in range(1, _MOST_RUNS + 1) if total % number == 0)
    return Lanes(runs, total // runs, _IMAGES_A_CALL)


def open_session(model: Path, *, device: Device = "auto", threads: int = 0) -> ort.InferenceSession:
    """Open a graph. threads: 0: one per core of this process. Raises BundleError, ConfigError."""
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    # Spinning threads would occupy the cores that the pass over the vectors, the decoders and other programs need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(str(model), options, providers=_providers(device))
    except Exception as error:  # onnxruntime's exceptions have no other common base
        if isinstance(error, ConfigError):
            raise
        raise BundleError(f"cannot open ONNX graph {model}: {one_line(error)}; restore or export it again") from error


def device_of(device: Device = "auto") -> Literal["cpu", "cuda"]:
    """The device that a session opened with `device` computes on. Raises ConfigError."""
    return "cuda" if _providers(device)[0] == "CUDAExecutionProvider" else "cpu"


def _providers(device: Device) -> list[str]:
    available = ort.get_available_providers()
    if device == "cuda" and "CUDAExecutionProvider" not in available:
        raise ConfigError(
            f"device is cuda, ONNX Runtime offers {', '.join(available)}; install onnxruntime-gpu or use cpu"
        )
    if device == "cpu" or "CUDAExecutionProvider" not in available or not _gpu_present():
        return ["CPUExecutionProvider"]
    return ["CUDAExecutionProvider", "CPUExecutionProvider"]


def _gpu_present() -> bool:
    # onnxruntime-gpu lists CUDA on machines without a device and then logs an error for each session.
    return Path("/proc/driver/nvidia/version").exists()
