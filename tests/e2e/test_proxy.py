"""The page below a path of a real reverse proxy (nginx), which removes the path from requests or does not."""

import os
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request

import pytest
from playwright.sync_api import expect

from tests.support.servers import PATIENCE_MS

pytestmark = pytest.mark.slow
TOKEN = "correct-horse-battery-staple"
CONFIG = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log stderr;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location /photos/images/ {{ proxy_pass {server}{removed}; proxy_set_header Host $http_host; client_max_body_size 20m; }}
    }}
}}
"""


@pytest.fixture(params=["removed", "kept"])
def proxied(request, tmp_path, serve, free_port):
    """Address of the page behind nginx."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        message = "no nginx: apt-get install nginx"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    port = free_port()
    with serve(token=TOKEN, options=("--root-path", "/photos/images", "--allow-host", "127.0.0.1")) as server:
        removed = "/" if request.param == "removed" else ""
        (tmp_path / "nginx.conf").write_text(CONFIG.format(folder=tmp_path, port=port, server=server, removed=removed))
        with subprocess.Popen([program, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]) as nginx:
            try:
                yield wait_for(f"http://127.0.0.1:{port}/photos/images/")
            finally:
                nginx.terminate()


def wait_for(address):
    for _ in range(600):
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                assert answer.status == 200
                return address
        except urllib.error.URLError:
            time.sleep(0.1)
    pytest.fail(f"nginx does not answer at {address}")


def test_the_page_works_below_a_path_of_a_proxy(chromium, proxied):
    context = chromium.new_context(viewport={"width": 1200, "height": 800})
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    outside = []
    page.on("request", lambda request: outside.append(request.url) if "/photos/images/" not in request.url else None)
    page.goto(proxied)
    page.get_by_label("Token", exact=True).fill(TOKEN)
    page.get_by_role("button", name="Continue").click()
    page.locator("#text").fill("red")
    expect(page.locator(".tile").first).to_have_attribute("data-name", "red.jpg")
    expect(page.locator(".frame").first).to_have_class("frame loaded")
    page.locator(".tile").first.click()
    expect(page.locator("#viewer-image")).to_have_attribute(
        "data-shows", re.compile("/photos/images/api/v1/images/.*/view$")
    )
    page.keyboard.press("e")
    expect(page.locator("#explain-note")).to_contain_text("red")
    page.reload()
    expect(page.locator("#viewer-name")).to_have_text("red.jpg")
    (cookie,) = context.cookies()
    assert cookie["path"] == "/photos/images/"
    page.goto(f"{proxied}no/such/page")
    page.get_by_role("link", name="start page").click()
    expect(page).to_have_url(proxied)
    expect(page.locator("#welcome-count")).to_have_text("Search 52 images by what they show.")
    context.close()
    assert [url for url in outside if not url.startswith("blob:")] == []
