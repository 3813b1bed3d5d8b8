import pytest

from image_finder.components.app.api import token_attempts as attempts
from image_finder.components.app.api.token_attempts import Attempts


class Clock:
    now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


def test_after_a_burst_one_attempt_per_interval_is_allowed(clock):
    kept = Attempts(burst=3, interval_s=6, clock=clock)
    for _ in range(3):
        assert kept.refused_for_s("10.0.0.1") == 0
        kept.note_failure("10.0.0.1")
    assert kept.refused_for_s("10.0.0.1") == 6
    clock.now_s += 4
    assert kept.refused_for_s("10.0.0.1") == pytest.approx(2)
    clock.now_s += 2
    assert kept.refused_for_s("10.0.0.1") == 0
    kept.note_failure("10.0.0.1")
    assert kept.refused_for_s("10.0.0.1") == pytest.approx(6)
    clock.now_s += 3600
    for _ in range(3):
        assert kept.refused_for_s("10.0.0.1") == 0
        kept.note_failure("10.0.0.1")
    assert kept.refused_for_s("10.0.0.1") == pytest.approx(6)


def test_clients_are_counted_by_address_and_those_of_ipv6_by_subscriber(clock):
    kept = Attempts(burst=1, interval_s=6, clock=clock)
    for failing, refused, other in (
        ("10.0.0.1", "10.0.0.1", "10.0.0.2"),
        ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1"),
        ("::ffff:10.0.0.3", "::ffff:10.0.0.3", "::ffff:10.0.0.4"),
        ("fe80::1%eth0", "fe80::2%eth0", "10.0.0.5"),
        ("testclient", "testclient", ""),
    ):
        kept.note_failure(failing)
        assert kept.refused_for_s(refused) == 6
        assert kept.refused_for_s(other) == 0


def test_the_least_recent_clients_are_forgotten_first(clock, monkeypatch):
    monkeypatch.setattr(attempts, "_MAX_CLIENTS", 3)
    kept = Attempts(burst=1, interval_s=6, clock=clock)
    for number in range(4):
        kept.note_failure(f"10.0.0.{number}")
        assert kept.refused_for_s("10.0.0.0") == 6
    assert len(kept._clients) == 3
    assert kept.refused_for_s("10.0.0.1") == 0


def test_a_client_is_trusted_after_sending_the_token(clock):
    kept = Attempts(burst=1, interval_s=6, clock=clock)
    assert not kept.is_trusted("10.0.0.1")
    kept.note_success("10.0.0.1")
    assert (kept.is_trusted("10.0.0.1"), kept.is_trusted("10.0.0.2")) == (True, False)
