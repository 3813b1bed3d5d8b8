"""Alerts to real receivers on this machine, and to unreachable ones."""

import logging
import os
import subprocess
import sys

import pytest
from apprise.plugins.slack import NotifySlack
from click.testing import CliRunner

from image_finder.components.drift.report import DriftReport, DriftRow
from image_finder.components.errors import ConfigError
from image_finder.components.records.promotion import PromotionDecision
from image_finder.pipelines.commands.scheduling_commands import alert as alert_command
from image_finder.pipelines.scheduling.alerts import Alert, AlertSettings, deliver, notify, scrub, shown
from image_finder.pipelines.scheduling.retrain import RetrainOutcome, alert_of
from tests.support.checkout import CHECKOUT
from tests.support.receivers import dripping_receiver, http_receiver, smtp_receiver

SLACK = "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
FAILED = Alert("image-finder: retraining on box failed", "100 of 400 captions <are> empty & wrong", "failure")
DONE = Alert("image-finder: retraining on box: version 3 is champion", "gain +1.2 points", "success")
DRIFTED = Alert(
    "image-finder: retraining on box: version 3 is champion, from data that drifted", "brightness", "warning"
)


def own(caplog):
    """Messages logged for people, without Apprise's own."""
    return [record.getMessage() for record in caplog.records if record.name != "apprise"]


def settings(addresses, on="always"):
    return {"IMAGE_FINDER_ALERTS": addresses, "IMAGE_FINDER_ALERTS_ON": on}


@pytest.fixture
def receiver():
    with http_receiver() as found:
        yield found


def test_a_webhook_receives_failure_success_and_drift_as_json(receiver):
    host, posts = receiver
    for alert in (FAILED, DONE, DRIFTED):
        notify(alert, settings(f"json://{host}/finder"))
    assert [(path, body["title"], body["message"], body["type"]) for path, body in posts] == [
        ("/finder", FAILED.title, FAILED.text, "failure"),
        ("/finder", DONE.title, DONE.text, "success"),
        ("/finder", DRIFTED.title, DRIFTED.text, "warning"),
    ]


@pytest.mark.parametrize(
    ("drifted", "kind", "title"),
    [
        ([], "success", "retraining: version 3 was not promoted"),
        (["brightness", "words"], "warning", "retraining: version 3 was not promoted, from data that drifted"),
    ],
)
def test_drifted_data_make_the_alert_a_warning_that_names_them(drifted, kind, title):
    rows = [
        DriftRow(
            name=name, unit="", measured=0.2, threshold=0.1, limit=0.1, chance=None, p_value=None,
            drifted=name in drifted, detail="",
        )
        for name in ("brightness", "words", "size")
    ]  # fmt: skip
    report = DriftReport(
        reference=None, dataset="scratch", data_version="aaa", images="all", n_images=40, n_compared=40, n_known=0,
        n_unreadable=0, rows=rows, permutations=99, false_alarm_rate=0.01, seed=0,
    )  # fmt: skip
    decision = PromotionDecision(
        promoted=False, challenger_version="3", champion_version="2", reasons=("gain 0.0000",), checks=(),
        challenger_mean_recall=0.5, champion_mean_recall=0.5, gain=0.0, gain_interval=None,
    )  # fmt: skip
    outcome = RetrainOutcome(status="kept", model_name="finder", changes=None, decision=decision, drift=report)
    alert = alert_of(outcome, "retraining")
    assert (alert.kind, alert.title) == (kind, title)
    assert ("drifted: brightness, words" in alert.text.splitlines()) is bool(drifted)


def test_slack_receives_a_message_in_its_own_format(receiver, monkeypatch):
    host, posts = receiver
    monkeypatch.setattr(NotifySlack, "webhook_url", f"http://{host}/services")
    notify(FAILED, settings(SLACK))
    ((path, body),) = posts
    assert path == "/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
    assert body["attachments"][0]["title"] == FAILED.title
    assert body["attachments"][0]["text"] == "100 of 400 captions &lt;are&gt; empty &amp; wrong"


def test_mail_is_sent_to_every_recipient(caplog):
    caplog.set_level(logging.WARNING)  # if ZenML was imported, the root logger also records the receiver's messages
    with smtp_receiver() as (host, mails):
        notify(DONE, settings(f"mailto://{host}?from=finder@example.org&to=ann@example.org,bob@example.org"))
    assert caplog.messages == []
    assert sorted(mail[0][0] for mail in mails) == ["ann@example.org", "bob@example.org"]
    for _, mail in mails:
        assert mail["Subject"] == DONE.title
        assert mail.get_body(("plain",)).get_content().strip() == DONE.text


@pytest.mark.parametrize(
    ("on", "sent"),
    [
        ("failure", [FAILED, DRIFTED]),
        ("success", [DONE, DRIFTED]),
        ("always", [FAILED, DONE, DRIFTED]),
        ("", [FAILED, DRIFTED]),
    ],
)
def test_settings_choose_which_alerts_are_sent_and_warnings_always_are(receiver, on, sent):
    host, posts = receiver
    for alert in (FAILED, DONE, DRIFTED):
        notify(alert, settings(f"json://{host}/", on))
    assert [body["title"] for _, body in posts] == [alert.title for alert in sent]


def test_a_failed_address_is_a_warning_and_the_others_are_alerted(receiver, caplog):
    host, posts = receiver
    notify(FAILED, settings(f"json://{host}/503/x json://127.0.0.1:1/y nonsense://z json://{host}/good"))
    assert [path for path, _ in posts if path == "/good"] == ["/good"]
    assert {record.levelname for record in caplog.records if record.name != "apprise"} == {"WARNING"}
    refused, unreachable, unknown = own(caplog)
    assert "503" in refused
    assert "127.0.0.1:1 was not delivered: A Connection error" in unreachable
    assert "nonsense://**** was not delivered: Apprise does not support" in unknown


def test_a_wrong_setting_does_not_silence_alerts(receiver, caplog):
    host, posts = receiver
    notify(DONE, settings(f"json://{host}/", "whenever"))
    assert len(posts) == 1
    assert "IMAGE_FINDER_ALERTS_ON is 'whenever'" in caplog.messages[0]


def test_settings_are_checked_when_a_schedule_is_created():
    with pytest.raises(ConfigError, match="expected one of failure, success, always"):
        AlertSettings.of(settings("", "whenever"))
    with pytest.raises(ConfigError, match=r"Apprise does not support address 2, nonsense://\*\*\*\*;") as refused:
        AlertSettings.of(settings("json://127.0.0.1/a nonsense://secret-token")).require_known()
    assert "secret-token" not in str(refused.value)


def test_a_receiver_that_never_finishes_delays_neither_the_alert_nor_the_end_of_the_process():
    program = (
        "from image_finder.pipelines.scheduling.alerts import *; import sys\n"
        "alert = Alert('title', 'text', 'failure')\n"
        "print(deliver(alert, sys.argv[1:], environment={}, deadline_s=0.3)[0].reason)"
    )
    with dripping_receiver() as host:
        done = subprocess.run(
            [sys.executable, "-c", program, f"json://{host}/"],
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,  # reached if the process did not end
        )
    assert done.stdout == "no answer within 0.3 s\n"


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (SLACK, "https://hooks.slack.com"),
        ("slack://tokenA/tokenB/tokenC", "slack://****"),
        ("tgram://123:token/chat", "tgram://****"),
        ("mailtos://me:pass%20word@example.org:587?to=you@example.org", "mailtos://example.org:587"),
        ("jsons://user:pw@hooks.example.org/secret/path?key=1", "jsons://hooks.example.org"),
        ("json://[::1", "json://****"),
        ("just some text", "'****'"),
    ],
)
def test_an_address_is_shown_without_its_secrets(address, text):
    assert shown(address) == text


def test_secrets_are_removed_from_alerts_and_from_the_log(receiver, caplog):
    host, posts = receiver
    environment = {
        **settings(f"json://ann:sesame@{host}/hidden/path?key=s3cr3tkey json://ann:sesame@127.0.0.1:1/hidden/path"),
        "MLFLOW_TRACKING_PASSWORD": "hunter22",
        "ZENML_STORE_API_KEY": "ZENKEY_abc",
        "HOME": "/home/ann",
    }
    text = "hunter22 ZENKEY_abc sesame /hidden/path s3cr3tkey postgresql://finder:p4ss@db/mlflow /home/ann"
    notify(Alert("hunter22 failed", text, "failure"), environment)
    ((_, body),) = posts
    assert body["title"] == "**** failed"
    assert body["message"] == "**** **** **** **** **** postgresql://****@db/mlflow /home/ann"
    logged = " ".join(own(caplog))
    assert "127.0.0.1:1" in logged
    assert not [secret for secret in ("sesame", "hidden", "s3cr3t", "hunter22") if secret in logged]


def test_text_without_secrets_is_unchanged():
    text = "version 3 of image-finder, from 0.51 to 0.53 mean recall; see services and alerts"
    environment = settings("mailto://127.0.0.1:25?from=a@example.org&to=b@example.org&mode=insecure")
    assert scrub(text, environment) == text


def test_a_very_long_text_is_truncated(receiver):
    host, posts = receiver
    notify(Alert("title", "x" * 100_000, "failure"), settings(f"json://{host}/"))
    assert len(posts[0][1]["message"]) == 3000


def test_without_addresses_nothing_is_sent_or_logged(caplog):
    notify(FAILED, {})
    assert caplog.messages == []


def test_the_command_tests_every_address(receiver, monkeypatch):
    host, posts = receiver
    monkeypatch.setenv("IMAGE_FINDER_ALERTS", f"json://{host}/one json://{host}/503")
    result = CliRunner().invoke(alert_command)
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception) == "1 of 2 addresses could not be reached"
    assert result.stdout.splitlines()[0] == f"json://{host}: delivered"
    assert "503" in result.stdout.splitlines()[1]
    assert {body["title"].startswith("image-finder: test from") for _, body in posts} == {True}


@pytest.mark.parametrize(("status", "sent"), [("0", 0), ("1", 0), ("75", 0), ("143", 0), ("137", 1), ("2", 1)])
def test_the_command_alerts_only_for_runs_that_could_not(receiver, monkeypatch, status, sent):
    host, posts = receiver
    monkeypatch.setenv("IMAGE_FINDER_ALERTS", f"json://{host}/")
    assert CliRunner().invoke(alert_command, ["--exit-status", status]).exit_code == 0
    monkeypatch.setenv("MONITOR_SERVICE_RESULT", "exit-code")
    monkeypatch.setenv("MONITOR_EXIT_STATUS", status)
    assert CliRunner().invoke(alert_command, ["--of-service"]).exit_code == 0
    assert len(posts) == 2 * sent


def test_the_command_reports_a_service_that_systemd_killed(receiver, monkeypatch):
    host, posts = receiver
    monkeypatch.setenv("IMAGE_FINDER_ALERTS", f"json://{host}/")
    monkeypatch.setenv("MONITOR_SERVICE_RESULT", "oom-kill")
    monkeypatch.setenv("MONITOR_EXIT_STATUS", "KILL")
    CliRunner().invoke(alert_command, ["--of-service"])
    assert posts[0][1]["message"] == "exit status: oom-kill KILL"


def test_no_address_is_logged_even_at_debug_level(receiver, caplog):
    host, _ = receiver
    caplog.set_level(logging.DEBUG)
    deliver(FAILED, [f"json://ann:sesame@{host}/503/hidden-path"], environment={})
    assert not [message for message in own(caplog) if "sesame" in message or "hidden" in message]
    assert not logging.getLogger("apprise").propagate
