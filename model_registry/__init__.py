import components  # noqa: F401 - switches telemetry off before a module here imports MLflow or ZenML
