"""Fixtures of the package tests: the package, built once; a root with it; booted machines."""

import shutil
import subprocess

import booting
import pytest
from booting import Machine, build_deb, say
from helpers import eventually


@pytest.fixture(scope="session")
def deb(tmp_path_factory):
    """Return the package of this checkout."""
    for tool in ("dpkg-deb", "objdump"):
        if not shutil.which(tool):
            pytest.skip(f"capability: no {tool} on this machine")
    return build_deb(tmp_path_factory.mktemp("deb"))


@pytest.fixture(scope="session")
def newer_deb(deb, tmp_path_factory):
    """Return the same package as a later version."""
    folder = tmp_path_factory.mktemp("newer")
    subprocess.run(["dpkg-deb", "-R", deb, folder / "root"], check=True)
    control = folder / "root/DEBIAN/control"
    control.write_text(control.read_text().replace("0.1.0-1", "0.1.0-2"))
    path = folder / "datacat_0.1.0-2.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zgzip", "-b", folder / "root", path], check=True, stdout=subprocess.DEVNULL
    )
    shutil.rmtree(folder / "root")
    return path


@pytest.fixture(scope="session")
def boots(tmp_path_factory):
    """Probe whether this machine can boot a container; skip when it cannot, and say why."""
    if why := booting.lacking():
        say(f"capability  containers: {why}")
        pytest.skip(f"capability: no booted container: {why}")
    tar = booting.bare_root(booting.suite())
    machine = Machine(booting.unpack(tar, tmp_path_factory.mktemp("probe") / "root"))
    try:
        machine.boot()
    except AssertionError as error:
        say(f"capability  containers: {error}")
        pytest.skip(f"capability: systemd-nspawn does not boot here: {str(error)[:500]}")
    finally:
        machine.close()
    return tar


@pytest.fixture(scope="session")
def installed_root(boots, deb, tmp_path_factory):
    """Return the tar file of a root in which the package is installed."""
    folder = tmp_path_factory.mktemp("installed")
    root = booting.unpack(boots, folder / "root")
    booting.install_unbooted(root, deb)
    tar = folder / "root.tar"
    subprocess.run(["tar", "-C", root, "-cpf", tar, "."], check=True)
    shutil.rmtree(root)
    yield tar
    tar.unlink()


@pytest.fixture
def make_machine(tmp_path):
    """Return a function that boots a root; every machine is ended, however the test ends."""
    machines = []

    def make(tar):
        machine = Machine(booting.unpack(tar, tmp_path / f"machine-{len(machines)}"))
        machines.append(machine)
        return machine.boot()

    yield make
    for machine in machines:
        machine.close()


@pytest.fixture
def bare(boots, deb, make_machine):
    """Return a booted machine that has the package's file in /srv, not installed."""
    machine = make_machine(boots)
    shutil.copy(deb, machine.root / "srv/datacat.deb")
    return machine


@pytest.fixture
def machine(installed_root, make_machine):
    """Return a booted machine in which the service runs."""
    machine = make_machine(installed_root)
    eventually(lambda: machine.ask() is not None, 30)
    return machine
