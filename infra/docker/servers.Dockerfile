# Image for a team's MLflow and ZenML servers, in the versions of the clients; the command chooses the server.
#
#   docker build -f infra/docker/servers.Dockerfile -t image-finder-servers .
#   docker compose -f infra/compose.yaml up -d        # starts both, with PostgreSQL and the search
FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
RUN python -m venv /opt/servers
COPY infra/constraints.txt infra/constraints.txt
COPY pyproject.toml README.md LICENSE ./
# Only the extra's packages: the servers need none of our code.
RUN mkdir -p components infra/package model_registry pipelines steps && /opt/servers/bin/pip install -c infra/constraints.txt '.[team]' \
    && /opt/servers/bin/pip uninstall -y text-guided-image-finder && /opt/servers/bin/pip check

FROM python:3.11-slim
# Only HOME, /tmp and the mounted volumes (databases, artefacts) are written.
ENV PATH=/opt/servers/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/var/lib/servers \
    ZENML_CONFIG_PATH=/var/lib/servers/zenml
# Telemetry is off (components/telemetry.py), also for programs other than image-finder.
ENV ORT_DISABLE_TELEMETRY=1 MLFLOW_DISABLE_TELEMETRY=true ZENML_ANALYTICS_OPT_IN=false GX_ANALYTICS_ENABLED=false \
    RAY_USAGE_STATS_ENABLED=0 RAY_USAGE_STATS_REPORT_URL=http://127.0.0.1:9/ \
    HF_HUB_DISABLE_TELEMETRY=1 HF_HUB_DISABLE_UPDATE_CHECK=1 \
    DISABLE_SAFETENSORS_CONVERSION=1 PIP_DISABLE_PIP_VERSION_CHECK=1 DO_NOT_TRACK=1
COPY --from=build /opt/servers /opt/servers
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin server \
    && install -d -o server /var/lib/servers /var/lib/servers/zenml /var/lib/servers/artifacts
USER 10001
EXPOSE 5000 8080
STOPSIGNAL SIGTERM
CMD ["mlflow", "server", "--help"]
