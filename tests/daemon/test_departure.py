"""When a daemon leaves."""

from datacat.daemon.departure import Work, is_quiet, is_time_to_leave

BASE = Work(100.0, 0.0, None, owned=True, owner_gone=False, sessions=1, ended=False, shipped=False, taking=True)


def test_a_daemon_stays_while_its_owner_has_open_sessions():
    assert not is_quiet(BASE)
    assert is_quiet(BASE._replace(ended=True))
    assert is_quiet(BASE._replace(owner_gone=True))


def test_an_owner_without_sessions_is_given_some_time():
    assert not is_quiet(BASE._replace(sessions=0, now_s=29.0))
    assert is_quiet(BASE._replace(sessions=0, now_s=30.0))


def test_one_started_by_hand_stays_until_it_is_told():
    by_hand = BASE._replace(owned=False, ended=True)
    assert not is_quiet(by_hand)
    assert is_quiet(by_hand._replace(told_s=99.0))
    assert is_time_to_leave(by_hand._replace(told_s=99.0, shipped=True), 100.0, 5.0)
    assert not is_time_to_leave(by_hand._replace(told_s=99.0), 97.0, 5.0)
    assert is_time_to_leave(by_hand._replace(told_s=99.0), 96.0, 5.0)


def test_told_to_stop_it_waits_for_the_apps_end_but_not_for_ever():
    assert not is_quiet(BASE._replace(told_s=81.0))
    assert is_quiet(BASE._replace(told_s=80.0))
    told = BASE._replace(told_s=99.0, owner_gone=True)
    assert not is_time_to_leave(told, 99.0, 5.0)
    assert is_time_to_leave(told._replace(shipped=True), 99.0, 5.0)
    assert is_time_to_leave(told, 98.0, 5.0)


def test_it_lingers_and_stays_longer_only_for_a_server_that_takes_what_is_left():
    over = BASE._replace(owner_gone=True)
    assert not is_time_to_leave(over._replace(shipped=True), 95.1, 5.0)
    assert is_time_to_leave(over._replace(shipped=True), 95.0, 5.0)
    assert not is_time_to_leave(over, 95.0, 5.0)
    assert is_time_to_leave(over._replace(taking=False), 95.0, 5.0)
    assert is_time_to_leave(over, 40.0, 5.0)
