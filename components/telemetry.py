"""Telemetry of dependencies: the environment variables that switch it off; imports nothing that could report.

Some dependencies (ONNX Runtime, MLflow) read their variable while they are imported, so `components` calls `switch_off`
before it imports anything else. Child processes inherit the variables. Servers that run without this package get them
from their image (infra/docker).
"""

import os

# The host that each reports to, and the file that identifies the user, as found in the installed packages.
OFF = {
    # mobile.events.data.microsoft.com; ~/.cache/Microsoft/DeveloperTools/.onnxruntime/deviceid, written by the import
    "ORT_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",  # config.mlflow-telemetry.io; ~/.config/mlflow/telemetry.json; its web page too
    "ZENML_ANALYTICS_OPT_IN": "false",  # analytics.zenml.io, from clients, servers and their web page
    "GX_ANALYTICS_ENABLED": "false",  # Great Expectations by PostHog; release 1.24 no longer contains that client
    "RAY_USAGE_STATS_ENABLED": "0",  # usage-stats.ray.io
    "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9/",  # a cluster of `ray start` reports that statistics are off
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface.co/api/telemetry and /api/agent-harnesses
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",  # pypi.org
    "DISABLE_SAFETENSORS_CONVERSION": "1",  # transformers requests a conversion of models that lack safetensors
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",  # pypi.org; ZenML and MLflow list packages by pip
    "DO_NOT_TRACK": "1",  # the common variable (consoledonottrack.com), for other packages of the environment
}


def switch_off() -> None:
    """Set the variables that are unset or empty; values that the user set, to opt in, remain."""
    for name, value in OFF.items():
        if not os.environ.get(name):
            os.environ[name] = value
