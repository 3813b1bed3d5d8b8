# Image for pipeline steps on Kubernetes and Kubeflow (ZenML's orchestrators), and for retraining jobs.
#
#   docker build -f infra/docker/pipeline.Dockerfile -t registry.example.org/image-finder-pipeline:0.1.0 \
#       --build-arg CODE_VERSION="$(git describe --always --dirty --abbrev=12 --exclude='*')" .
#   docker push registry.example.org/image-finder-pipeline:0.1.0
#   IMAGE_FINDER_PIPELINE_IMAGE=registry.example.org/image-finder-pipeline:0.1.0 \
#       image-finder pipeline run training --config cluster
#
# The packages form a layer of several gigabytes that changes only with pyproject.toml and the pins; our code is a small
# layer above it. torch's wheels include CUDA; the driver comes from the node. For Kubeflow:
# --build-arg EXTRAS=pipeline,kubeflow,faiss,ray. CODE_VERSION is the commit, with -dirty if files differ from it. The
# image has no git, so models trained in it record CODE_VERSION as their code version, or without it a hash of the
# sources.
FROM python:3.11-slim AS packages
ARG EXTRAS=pipeline,kubernetes,faiss,ray
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
RUN python -m venv /opt/image-finder
COPY infra/constraints.txt infra/constraints.txt
COPY pyproject.toml README.md LICENSE ./
RUN --mount=type=cache,target=/root/.cache/pip \
    mkdir -p components infra/package model_registry pipelines steps \
    && /opt/image-finder/bin/pip install -c infra/constraints.txt ".[$EXTRAS]" \
    && /opt/image-finder/bin/pip uninstall -y text-guided-image-finder

FROM python:3.11-slim AS code
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY infra/package infra/package
COPY components components
COPY model_registry model_registry
COPY steps steps
COPY pipelines pipelines
ARG CODE_VERSION=
RUN echo "$CODE_VERSION" > model_registry/code_version.txt && pip wheel --no-deps --wheel-dir /wheels .

FROM python:3.11-slim
# /finder is the home, shared by all steps of a run. ZenML's settings belong to each pod, so they are stored in /tmp.
ENV PATH=/opt/image-finder/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/finder \
    IMAGE_FINDER_HOME=/finder HF_HOME=/finder/cache/huggingface MPLCONFIGDIR=/tmp/matplotlib \
    ZENML_CONFIG_PATH=/tmp/zenml NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
# Telemetry is off (components/telemetry.py), also for programs other than image-finder.
ENV ORT_DISABLE_TELEMETRY=1 MLFLOW_DISABLE_TELEMETRY=true ZENML_ANALYTICS_OPT_IN=false GX_ANALYTICS_ENABLED=false \
    RAY_USAGE_STATS_ENABLED=0 RAY_USAGE_STATS_REPORT_URL=http://127.0.0.1:9/ \
    HF_HUB_DISABLE_TELEMETRY=1 HF_HUB_DISABLE_UPDATE_CHECK=1 \
    DISABLE_SAFETENSORS_CONVERSION=1 PIP_DISABLE_PIP_VERSION_CHECK=1 DO_NOT_TRACK=1
# /app: ZenML's entry point creates it and changes to it, which only root could do.
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin finder && install -d -o finder /finder /app
COPY --from=packages /opt/image-finder /opt/image-finder
COPY infra/stacks /opt/image-finder/stacks
COPY --from=code /wheels /wheels
RUN /opt/image-finder/bin/pip install --no-deps --no-index /wheels/*.whl && /opt/image-finder/bin/pip check
WORKDIR /app
USER 10001
VOLUME /finder
STOPSIGNAL SIGTERM
ARG CODE_VERSION=
LABEL org.opencontainers.image.revision=$CODE_VERSION
ENTRYPOINT ["image-finder"]
CMD ["--help"]
