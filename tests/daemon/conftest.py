import pytest
from daemon_helpers import FakeServer, start_app, start_daemon


@pytest.fixture
def server():
    fake = FakeServer()
    yield fake
    fake.close()


@pytest.fixture
def spool(tmp_path):
    folder = tmp_path / "spool"
    (folder / "owners").mkdir(parents=True)
    return folder


@pytest.fixture
def processes():
    """Start apps and daemons; what still runs at the end is killed, and nobody stays a zombie."""
    started = []

    class Starter:
        def app(self, *args):
            app, start = start_app(*args)
            started.append(app)
            return app, start

        def daemon(self, *args, **kwargs):
            daemon = start_daemon(*args, **kwargs)
            started.append(daemon)
            return daemon

    yield Starter()
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
