"""Fixtures of the package tests: the package, built once; a root with it; booted machines."""

import shutil
import subprocess

import absent
import booting
import pytest
from booting import Machine, Root, build_deb, say
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
    """Return the folders of a fresh root, after a probe that a container with it boots; skip, and say why, if not."""
    if why := booting.lacking():
        say(f"capability  containers: {why}")
        if "not installed" in why:
            absent.skip(f"no booted container: {why}")
        pytest.skip(f"capability: no booted container: {why}")
    folder = tmp_path_factory.mktemp("fresh")
    fresh = booting.unpack(booting.bare_root(booting.suite()), folder / "root")
    machine = Machine(Root([fresh], folder / "probe"))
    try:
        machine.boot()
    except AssertionError as error:
        say(f"capability  containers: {error}")
        pytest.skip(f"capability: systemd-nspawn does not boot here: {str(error)[:500]}")
    finally:
        machine.close()
    yield [fresh]
    shutil.rmtree(fresh)


@pytest.fixture(scope="session")
def installed(boots, deb, tmp_path_factory):
    """Return the folders of a root in which the package is installed."""
    root = Root(boots, tmp_path_factory.mktemp("installed") / "root")
    try:
        booting.install_unbooted(root.path, deb)
        yield root.freeze()
    finally:
        root.remove()


@pytest.fixture
def make_machine(tmp_path):
    """Return a function that boots a root of its own; every machine is ended, however the test ends."""
    machines = []

    def make(lowers):
        machine = Machine(Root(lowers, tmp_path / f"machine-{len(machines)}"))
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
def machine(installed, make_machine):
    """Return a booted machine in which the service runs."""
    machine = make_machine(installed)
    eventually(machine.ask, 30)
    return machine
