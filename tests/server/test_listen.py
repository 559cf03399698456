"""Sockets that are bound, given or kept: the right one is used, the others are closed."""

import contextlib
import errno
import os
import socket
import threading

import pytest

from datacat.errors import HostError
from datacat.server import listen
from datacat.server.listen import Given, bind, given_sockets, is_reachable, listener

linux_sockets = pytest.mark.skipif(os.name != "posix", reason="capability: descriptors are POSIX's")


@contextlib.contextmanager
def listening(address="127.0.0.1"):
    with socket.create_server((address, 0)) as sock:
        yield sock


class Told(list):
    def __call__(self, text, fds):
        self.append((text, [os.fstat(fd).st_ino for fd in fds]))


def environ(count, names="http", pid="7"):
    return {"LISTEN_PID": pid, "LISTEN_FDS": str(count), "LISTEN_FDNAMES": names}


@pytest.fixture
def row():
    """Put copies of sockets or files on consecutive descriptors, as a manager does; the first is returned."""
    taken = []

    def place(*files):
        first = 200
        for index, file in enumerate(files):
            os.dup2(file.fileno(), first + index)
            taken.append(first + index)
        return first

    yield place
    for fd in taken:
        with contextlib.suppress(OSError):
            os.close(fd)


@linux_sockets
def test_given_sockets_are_taken_with_their_names_and_are_not_inherited(row):
    with listening() as one, listening("127.0.0.2") as two:
        given = given_sockets(environ(2, "http:datacat.socket"), 7, row(one, two))
        assert [item.name for item in given] == ["http", "datacat.socket"]
        assert [item.sock.getsockname() for item in given] == [one.getsockname(), two.getsockname()]
        assert not any(item.sock.get_inheritable() for item in given)
        for item in given:
            item.sock.close()


@pytest.mark.parametrize(
    "told", [{}, environ(1, pid="8"), environ("x"), {"LISTEN_FDS": "1"}, {"LISTEN_PID": "7"}, environ("-1")]
)
def test_what_is_for_another_process_is_left_alone(told):
    assert given_sockets(told, 7, 200) == []


@linux_sockets
def test_what_is_no_listening_tcp_socket_is_closed(row, caplog):
    with (
        open(os.devnull) as file,
        socket.socket() as idle,
        socket.socket(socket.AF_UNIX) as local,
        listening() as good,
    ):
        first = row(file, idle, local, good)
        (item,) = given_sockets(environ(4, "a:b:c:d"), 7, first)
        assert item.name == "d"
        item.sock.close()
        for fd in range(first, first + 3):
            with pytest.raises(OSError) as caught:
                os.fstat(fd)
            assert caught.value.errno == errno.EBADF
    assert caplog.text.count("the service manager gave") == 3


def test_a_new_socket_is_given_to_the_manager_to_keep():
    told = Told()
    with listener("127.0.0.1", 0, [], told) as sock:
        assert told == [("FDSTORE=1\nFDNAME=http", [os.fstat(sock.fileno()).st_ino])]


def test_the_kept_socket_is_taken_back_when_it_fits():
    told = Told()
    with listening() as kept:
        port = kept.getsockname()[1]
        assert listener("127.0.0.1", port, [Given("http", kept)], told) is kept
        assert listener("127.0.0.1", 0, [Given("http", kept)], told) is kept
        assert listener("localhost", port, [Given("http", kept)], told) is kept
    assert told == []


@pytest.mark.parametrize("host", ["127.0.0.2", "127.0.0.1"])
def test_a_kept_socket_that_does_not_fit_is_dropped_and_another_is_bound(host):
    told = Told()
    with bind(host, 0) as other:
        port = other.getsockname()[1]
    with listening() as kept:
        with listener(host, port, [Given("http", kept)], told) as sock:
            assert sock.getsockname() == (host, port)
        assert kept.fileno() == -1
    assert [text for text, _ in told] == ["FDSTOREREMOVE=1\nFDNAME=http", "FDSTORE=1\nFDNAME=http"]


def test_a_socket_of_a_socket_unit_wins_wherever_it_listens():
    told = Told()
    with listening() as kept, listening("127.0.0.3") as unit:
        given = [Given("http", kept), Given("datacat-server.socket", unit)]
        assert listener("127.0.0.1", kept.getsockname()[1], given, told) is unit
        assert kept.fileno() == -1
    assert told == [("FDSTOREREMOVE=1\nFDNAME=http", [])]


def test_an_address_that_somebody_lets_go_of_soon_is_waited_for():
    busy = socket.create_server(("127.0.0.1", 0))
    port = busy.getsockname()[1]
    with pytest.raises(HostError, match="Address already in use") as caught:
        bind("127.0.0.1", port)
    assert caught.value.permanent
    timer = threading.Timer(0.2, busy.close)
    timer.start()
    with bind("127.0.0.1", port, 10.0) as sock:
        assert sock.getsockname()[1] == port
    timer.join()


def test_an_address_that_the_machine_does_not_have_yet_may_come():
    with pytest.raises(HostError, match=r"cannot listen on 192\.0\.2\.1:1") as caught:
        bind("192.0.2.1", 1)
    assert not caught.value.permanent


def test_an_own_socket_is_reachable_and_one_of_another_network_is_not(monkeypatch):
    with listening() as sock:
        assert is_reachable(sock)

        class Elsewhere:
            family = socket.AF_INET

            def getsockopt(self, *_):
                return b"another "

        if hasattr(os, "unshare") or os.path.exists("/proc/self/ns/net"):
            with socket.socket() as mine:
                try:
                    mine.getsockopt(socket.SOL_SOCKET, listen._SO_NETNS_COOKIE, 8)
                except OSError:
                    pytest.skip("capability: the kernel gives networks no cookies")
            assert not is_reachable(Elsewhere())
        refused = OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

        def no_network(*_):
            raise refused

        monkeypatch.setattr(listen.socket, "socket", no_network)
        assert not is_reachable(sock)
