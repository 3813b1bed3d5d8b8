"""ONNX Runtime sessions: device, threads and quietness in one place; knows nothing of what a graph computes."""

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
_ANY_NUMBER = 1 << 20


class Lanes(NamedTuple):
    """How images are spread: `runs` batches at a time, each on `threads` threads, `images` a call."""

    runs: int
    threads: int
    images: int


def throughput_lanes(device: Device = "auto", threads: int = 0) -> Lanes:
    """Divide threads (0: one a core) for the most images a second.

    On two cores two runs of one thread and 8 images each did 195 images/s, one run of two threads and 32 did 178.
    A GPU is fed by one run at a time, of whatever comes. Raises ConfigError.
    """
    total = threads or len(os.sched_getaffinity(0))
    if _providers(device)[0] == "CUDAExecutionProvider":
        return Lanes(1, total, _ANY_NUMBER)
    runs = max(number for number in range(1, _MOST_RUNS + 1) if total % number == 0)
    return Lanes(runs, total // runs, _IMAGES_A_CALL)


def open_session(model: Path, *, device: Device = "auto", threads: int = 0) -> ort.InferenceSession:
    """Open a graph. threads: 0 takes one a core that this process may use. Raises BundleError, ConfigError."""
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    # Threads that wait in a loop for the next call hold the cores that the pass over the vectors, the decoders and other
    # programs need now.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(str(model), options, providers=_providers(device))
    except Exception as error:  # onnxruntime's exceptions share no base but Exception
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
            f"device: cuda was asked for, ONNX Runtime offers {', '.join(available)}; install onnxruntime-gpu or use cpu"
        )
    if device == "cpu" or "CUDAExecutionProvider" not in available or not _gpu_present():
        return ["CPUExecutionProvider"]
    return ["CUDAExecutionProvider", "CPUExecutionProvider"]


def _gpu_present() -> bool:
    # onnxruntime-gpu lists CUDA on machines that have no device and then logs an error for each session.
    return Path("/proc/driver/nvidia/version").exists()
