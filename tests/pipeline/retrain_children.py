"""Runs commands in one home: retrain_children.py HOME, a JSON request a line on stdin, two JSON answers a line on stdout.

Imports once, then forks for each request, so that each command has its own process and stores. {"words": [...],
"environment": {...}, "set": {...}} runs `image-finder WORDS --home HOME` (with "home": false without --home), {"hooks": "fail" or "work", ...} a small pipeline with the hooks of
image_finder.pipelines.scheduling.alerts, {"words": [...], "kubernetes": HOST, ...} with the stack's orchestrator on that cluster. The answers are {"pid": n} at once and {"code", "out", "err"} at the end.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

if __name__ == "__main__":  # ZenML reads its environment when it is imported
    from image_finder.pipelines import stores as homes

    HOME = homes.Home.resolve(Path(sys.argv[1]))
    homes._make_folders(HOME)
    os.environ["ZENML_CUSTOM_SOURCE_ROOT"] = str(Path(__file__).parent)  # the steps below are in this file
    homes._set_environment(HOME, has_server=False)
    homes._tame_logs()  # a hook or materializer makes ZenML open its store when it is imported; stdout is for answers

import zenml
from zenml import pipeline, step

from image_finder.components.app.cli import main
from image_finder.components.errors import DataError
from image_finder.pipelines.scheduling import alerts


@step(enable_cache=False)
def begin() -> Annotated[int, "number"]:
    """A step before the last."""
    return 1


@step(enable_cache=False)
def end(number: int, how: str) -> Annotated[int, "more"]:
    """Fails if how is "fail"."""
    if how == "fail":
        raise DataError("100 of 400 captions are empty")
    return number + 1


@pipeline(on_failure=alerts.run_failed)
def hooked(how: str) -> None:
    """Alerts as a scheduled run does."""
    end(begin(), how)


def run_hooked(how):
    homes.prepare(HOME, mlflow_uri=None)
    steps = {"end": {"success_hook_source": "image_finder.pipelines.scheduling.alerts.run_succeeded"}}
    hooked.with_options(steps=steps)(how=how)


def on_cluster(host):
    """Make the home's stack use the Kubernetes API at an address; the other components stay local."""
    from zenml.client import Client
    from zenml.enums import StackComponentType as Kind

    kubeconfig = HOME.root / "kubeconfig"
    names = {"clusters": [{"name": "c", "cluster": {"server": f"http://{host}"}}], "users": [{"name": "u", "user": {}}]}
    context = {"name": "scratch", "context": {"cluster": "c", "user": "u"}}
    kubeconfig.write_text(json.dumps({**names, "contexts": [context], "current-context": "scratch"}))
    os.environ["KUBECONFIG"] = str(kubeconfig)
    homes.prepare(HOME, mlflow_uri=None)
    client = Client()
    if not client.list_stack_components(type=Kind.ORCHESTRATOR, name="cluster").items:
        settings: dict[str, Any] = {
            "kubernetes_context": "scratch",
            "kubernetes_namespace": "finder",
            "skip_local_validations": True,
            "local": True,
        }
        client.create_stack_component("cluster", "kubernetes", Kind.ORCHESTRATOR, settings)
        client.create_stack_component("cluster", "default", Kind.CONTAINER_REGISTRY, {"uri": "registry.example.org"})
        client.create_stack_component("cluster", "local", Kind.IMAGE_BUILDER, {})
        added = {Kind.CONTAINER_REGISTRY: "cluster", Kind.IMAGE_BUILDER: "cluster"}
        client.update_stack(homes.STACK_NAME, component_updates=added)
    client.update_stack(homes.STACK_NAME, component_updates={Kind.ORCHESTRATOR: "cluster"})


def child(request, out, err):
    for stream, number in ((out, 1), (err, 2)):
        os.dup2(stream.fileno(), number)
    os.environ.update({**request["environment"], **request.get("set", {})})
    if "kubernetes" in request:
        on_cluster(request["kubernetes"])
    if "hooks" in request:
        run_hooked(request["hooks"])
    else:
        home = ["--home", str(HOME.root)] if request.get("home", True) else []
        main([*request["words"], *home], prog_name="image-finder")


def answer(request):
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        if (pid := os.fork()) == 0:
            code = 1
            try:
                child(request, out, err)
                code = 0
            except SystemExit as ended:
                code = int(ended.code or 0)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        reply({"pid": pid, "err": f"/proc/{os.getpid()}/fd/{err.fileno()}"})
        _, status = os.waitpid(pid, 0)
        texts = {}
        for name, stream in (("out", out), ("err", err)):
            stream.seek(0)
            texts[name] = stream.read().decode()
        reply({"code": os.waitstatus_to_exitcode(status), **texts})


def reply(value):
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    import onnx  # noqa: F401 - what the steps need, once for all
    import onnxruntime  # noqa: F401
    import timm  # noqa: F401
    import torch  # noqa: F401
    import transformers  # noqa: F401
    import zenml.client

    import image_finder.pipelines.indexing
    import image_finder.pipelines.scheduling.retrain
    import image_finder.pipelines.training  # noqa: F401

    assert zenml.__version__
    for line in sys.stdin:
        answer(json.loads(line))
