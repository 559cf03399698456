"""Builds the Debian package from the checkout: scripts/build-deb.

No venv and no bundled interpreter: the libraries lie in /usr/lib/datacat, and the system's own python3 runs them.
Four of them have compiled parts. Three of those exist once for each minor version of Python, and their file names tell
it (`_core.cpython-311-x86_64-linux-gnu.so`): the wheels for 3.11 to 3.14 are laid into one another, the interpreter
picks its own, and the same package runs on Debian 12 (3.11) and 13 (3.13), on Ubuntu 24.04 (3.12) and 26.04 (3.14).
psutil's is abi3, one file for all. Debian's own python3-msgspec, python3-zstandard, python3-psutil are no way: bookworm
has no msgspec, and releases differ in what they have of the rest.

Every file that comes from outside is named by its SHA-256 in packaging/requirements.lock. Two of the libraries exist
as source only (sdnotify, semidbm: plain Python); setuptools, which builds them, comes from the lock as well.
"""

import argparse
import email.utils
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from licences import BuildError, copyright_file
from packaging.requirements import Requirement

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
LIB = "usr/lib/datacat"
DOC = "usr/share/doc/datacat"

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
COMPILED = ("markupsafe", "msgspec", "psutil", "zstandard")
SOURCE_ONLY = ("sdnotify", "semidbm")
BUILD_ONLY = ("setuptools",)
"""zc.lockfile names setuptools in its metadata and never imports it."""

MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
MANYLINUX = ("manylinux_2_28", "manylinux_2_17", "manylinux2014", "manylinux_2_12", "manylinux2010")

DROPPED_DIRS = {"tests", "test", "__pycache__", "bin", "sboms"}
DROPPED_INFO = {"INSTALLER", "REQUESTED", "WHEEL", "direct_url.json", "top_level.txt", "zip-safe"}
DROPPED_SUFFIXES = {".c", ".pyx", ".pxd", ".h"}

LAUNCHER = """\
#!/usr/bin/python3 -I
import sys

sys.path.insert(0, "/usr/lib/datacat")

from {module} import main  # noqa: E402

if __name__ == "__main__":
    main()
"""
LAUNCHERS = {
    "datacat": "datacat.cli.main",
    "datacat-server": "datacat.cli.server",
    "datacat-daemon": "datacat.cli.daemon",
}


def main() -> None:
    """Build; print the path of the package and its SHA-256."""
    parser = argparse.ArgumentParser(prog="scripts/build-deb", description="Build the Debian package of datacat.")
    parser.add_argument("--arch", choices=MACHINES, default=run("dpkg", "--print-architecture").strip())
    parser.add_argument("--out", type=Path, default=CHECKOUT / "dist", metavar="FOLDER")
    given = parser.parse_args()
    started = time.monotonic()
    try:
        deb = build(given.arch, given.out)
    except BuildError as error:
        sys.exit(f"scripts/build-deb: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"scripts/build-deb: {' '.join(map(str, error.cmd))}\n{error.stdout}{error.stderr}")
    digest = hashlib.sha256(deb.read_bytes()).hexdigest()
    size_mb = deb.stat().st_size / 1e6
    print(f"{deb}\nsha256 {digest}, {size_mb:.1f} MB, {time.monotonic() - started:.0f} s")


def build(arch: str, out: Path) -> Path:
    """Build the package for an architecture; return its path. Raises: BuildError, CalledProcessError."""
    version, epoch_s = newest_entry()
    os.environ["SOURCE_DATE_EPOCH"] = str(epoch_s)
    os.umask(0o022)
    with tempfile.TemporaryDirectory(prefix="datacat-deb-") as scratch:
        root = Path(scratch) / "root"
        root.mkdir(mode=0o755)
        collect_libraries(root / LIB, arch, Path(scratch))
        put(root / DOC / "copyright", copyright_file(root, LIB))
        trim(root / LIB)
        use_system_certificates(root / LIB)
        glibc = strip(root / LIB, arch)
        add_files(root, epoch_s)
        add_control(root, version, arch, glibc)
        set_modes_and_times(root, epoch_s)
        out.mkdir(parents=True, exist_ok=True)
        deb = out / f"datacat_{version}_{arch}.deb"
        # One thread: several cut the stream elsewhere.
        run("dpkg-deb", "--root-owner-group", "-Zxz", "--build", root, deb, DPKG_DEB_THREADS_MAX="1")
    return deb


def newest_entry() -> tuple[str, int]:
    """Return version and time of the changelog's newest entry. Raises: BuildError when it is not the program's."""
    text = (HERE / "changelog").read_text(encoding="utf-8")
    head = re.match(r"datacat \(([^)]+)\)", text)
    date = re.search(r"^ -- .*>  (.*)$", text, re.MULTILINE)
    program = re.search(r'^__version__ = "([^"]+)"', (CHECKOUT / "datacat/__init__.py").read_text(), re.MULTILINE)
    if not head or not date or not program:
        raise BuildError("packaging/debian/changelog or datacat/__init__.py does not tell its version")
    if head[1].rsplit("-", 1)[0] != program[1]:
        raise BuildError(f"packaging/debian/changelog says {head[1]}, datacat/__init__.py {program[1]}: add an entry")
    return head[1], int(email.utils.parsedate_to_datetime(date[1]).timestamp())


# --- libraries ------------------------------------------------------------------------------------------------------


def locked() -> list[tuple[Requirement, str]]:
    """Return every requirement of the lock with its text, hashes included."""
    text = (CHECKOUT / "packaging/requirements.lock").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(Requirement(line.split(" --hash", 1)[0].strip()), line) for line in lines]


def chosen(names: Iterable[str] | None, python: str, path: Path) -> Path:
    """Write to path the locked requirements with those names (None: all others) that a Python needs; return path."""
    # pip judges markers by the Python that it runs on, not by the one that it is asked for.
    target = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    apart = {*COMPILED, *SOURCE_ONLY, *BUILD_ONLY}
    wanted = [
        line.replace(f"; {requirement.marker}", "") if requirement.marker is None else cut_marker(line)
        for requirement, line in locked()
        if (requirement.name not in apart if names is None else requirement.name in names)
        and (requirement.marker is None or requirement.marker.evaluate(target))
    ]
    path.write_text("\n".join(wanted) + "\n", encoding="utf-8")
    return path


def cut_marker(line: str) -> str:
    """Return a line of the lock without its condition."""
    before, after = line.split(" --hash", 1)
    return f"{before.split(';', 1)[0].strip()} --hash{after}"


def pip(*arguments: object, **environ: str) -> None:
    """Run pip on what is named by hash, resolving nothing."""
    run(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments, **environ)


def collect_libraries(lib: Path, arch: str, scratch: Path) -> None:
    """Put datacat and all libraries into lib."""
    platforms = [f"--platform={tag}_{MACHINES[arch]}" for tag in MANYLINUX]
    fetch = (
        "install",
        "--no-deps",
        "--no-compile",
        "--only-binary=:all:",
        "--require-hashes",
        "--root-user-action=ignore",
    )
    for python in PYTHONS:
        version = f"--python-version={python}"
        compiled, plain = scratch / f"compiled-{python}", scratch / f"plain-{python}"
        names = chosen(COMPILED, python, scratch / "names")
        pip(*fetch, version, "--implementation=cp", *platforms, "--target", compiled, "--requirement", names)
        merge(compiled, lib)
        if python in (PYTHONS[0], PYTHONS[-1]):  # all others lie between them
            # --platform any: a library that would bring a compiled part unnoticed is refused.
            names = chosen(None, python, scratch / "names")
            pip(*fetch, version, "--platform=any", "--target", plain, "--requirement", names)
            merge(plain, lib)
    tools, wheels = scratch / "tools", scratch / "wheels"
    pip(*fetch, "--target", tools, "--requirement", chosen(BUILD_ONLY, PYTHONS[0], scratch / "names"))
    wheel = ("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels)
    names = chosen(SOURCE_ONLY, PYTHONS[0], scratch / "names")
    pip(
        *wheel, "--require-hashes", "--no-binary=:all:", "--no-cache-dir", "--requirement", names, PYTHONPATH=str(tools)
    )
    # A copy: the build leaves folders behind, and packs what it finds in older ones.
    tree = scratch / "tree"
    shutil.copytree(CHECKOUT / "datacat", tree / "datacat", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(CHECKOUT / "packaging/web", tree / "packaging/web", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, tree)
    pip(*wheel, "--no-index", tree, PYTHONPATH=str(tools))
    built = scratch / "built"
    pip("install", "--no-deps", "--no-compile", "--no-index", "--root-user-action=ignore", "--target", built,
        *sorted(wheels.glob("*.whl")))  # fmt: skip
    merge(built, lib)


def merge(source: Path, lib: Path) -> None:
    """Add the files of source to lib. Raises: BuildError when two say different things under one name."""
    for path in sorted(source.rglob("*")):
        if path.is_dir() or (path.parent.suffix == ".dist-info" and path.name in DROPPED_INFO):
            continue
        target = lib / path.relative_to(source)
        if target.exists():
            if path.name != "RECORD" and target.read_bytes() != path.read_bytes():
                raise BuildError(f"{target.relative_to(lib)} differs between the wheels of one library")
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def trim(lib: Path) -> None:
    """Take away what is not needed to run; take execute bits and first lines that only scripts need."""
    for platform in ("launchd", "windows"):  # what `datacat service` installs on other systems
        shutil.rmtree(lib / "datacat/cli/service_files" / platform)
    for path in sorted(lib.rglob("*"), reverse=True):
        if path.is_dir():
            if path.name in DROPPED_DIRS and "licenses" not in path.parts:
                shutil.rmtree(path)
        elif (
            path.name == "RECORD"
            or path.suffix in DROPPED_SUFFIXES
            or (path.name.startswith("_cffi.") and path.suffix == ".so")
        ):
            path.unlink()  # zstandard's second backend, for PyPy
        elif path.suffix == ".py" and (text := path.read_bytes()).startswith(b"#!"):
            path.write_bytes(text.partition(b"\n")[2])


def use_system_certificates(lib: Path) -> None:
    """Trust whom the system trusts, a company's own authority included, and get new ones from the system."""
    bundle = lib / "certifi/cacert.pem"
    bundle.unlink()
    bundle.symlink_to("/etc/ssl/certs/ca-certificates.crt")


def strip(lib: Path, arch: str) -> str:
    """Strip the compiled parts; return the glibc version that they need. Raises: BuildError."""
    libraries = sorted(lib.rglob("*.so"))
    for library in libraries:
        tags = [f".cpython-{python.replace('.', '')}-{MACHINES[arch]}-" for python in PYTHONS]
        if not library.name.endswith(".abi3.so") and not any(tag in library.name for tag in tags):
            raise BuildError(f"{library.relative_to(lib)} does not tell by its name which Python it is for")
    prefix = f"{MACHINES[arch]}-linux-gnu-"
    if not shutil.which(f"{prefix}strip"):
        raise BuildError(f"no {prefix}strip on this machine: apt-get install binutils-{prefix[:-1].replace('_', '-')}")
    run(f"{prefix}strip", "--strip-unneeded", "--remove-section=.comment", "--remove-section=.note", *libraries)
    needed: list[str] = re.findall(r"GLIBC_([0-9.]+)", run(f"{prefix}objdump", "-T", *libraries))
    return max(needed, key=lambda text: [int(part) for part in text.split(".")])


# --- the rest of the package ----------------------------------------------------------------------------------------


def add_files(root: Path, epoch_s: int) -> None:
    """Add launchers, units, configuration, man pages, completion and documentation."""
    run(sys.executable, CHECKOUT / "packaging/generated.py", root, epoch_s, PYTHONPATH=str(CHECKOUT))
    systemd = CHECKOUT / "packaging/systemd"
    for name, module in LAUNCHERS.items():
        put(root / "usr/bin" / name, LAUNCHER.format(module=module).replace("  # noqa: E402", ""), 0o755)
    copies = {
        systemd / "datacat-server.service": "lib/systemd/system/datacat-server.service",
        systemd / "user/datacat-server.service": "usr/lib/systemd/user/datacat-server.service",
        systemd / "datacat.sysusers": "usr/lib/sysusers.d/datacat.conf",
        HERE / "rtupdate": "usr/share/python3/runtime.d/datacat.rtupdate",
        HERE / "lintian-overrides": "usr/share/lintian/overrides/datacat",
        **{path: f"{DOC}/examples/sealed/{path.name}" for path in sorted((systemd / "sealed").iterdir())},
        **{path: f"{DOC}/{path.name}" for path in sorted((CHECKOUT / "docs").glob("*.md"))},
        CHECKOUT / "README.md": f"{DOC}/README.md",
    }
    for source, target in copies.items():
        put(root / target, source.read_text(encoding="utf-8"), source.stat().st_mode & 0o755)
    put(root / DOC / "changelog.Debian", (HERE / "changelog").read_text(encoding="utf-8"))
    for path in [root / DOC / "changelog.Debian", *(root / "usr/share/man").rglob("*.?")]:
        with gzip.GzipFile(path.with_name(path.name + ".gz"), "wb", 9, mtime=0) as packed:
            packed.write(path.read_bytes())
        path.unlink()


def put(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def add_control(root: Path, version: str, arch: str, glibc: str) -> None:
    """Add what dpkg reads."""
    folder = root / "DEBIAN"
    below, above = PYTHONS[0], f"3.{int(PYTHONS[-1].split('.')[1]) + 1}~"
    depends = [
        f"python3 (>= {below})", f"python3 (<< {above})", f"libc6 (>= {glibc})", "ca-certificates",
        "init-system-helpers (>= 1.54~)", "systemd | systemd-standalone-sysusers | systemd-sysusers",
    ]  # fmt: skip
    files = [path for path in sorted(root.rglob("*")) if path.is_file() or path.is_symlink()]
    size_kb = sum(-(-path.lstat().st_size // 1024) for path in files)
    values = {"@VERSION@": version, "@ARCH@": arch, "@SIZE@": str(size_kb), "@DEPENDS@": ", ".join(depends)}
    text = (HERE / "control.in").read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace(key, value)
    put(folder / "control", text)
    put(folder / "conffiles", "/etc/datacat/server.toml\n")
    sums = [
        f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(root)}\n"  # noqa: S324  dpkg's own format
        for path in files
        if not path.is_symlink() and path.relative_to(root).parts[0] != "etc"
    ]
    put(folder / "md5sums", "".join(sums))
    for name in ("postinst", "prerm", "postrm"):
        put(folder / name, (HERE / name).read_text(encoding="utf-8"), 0o755)


def set_modes_and_times(root: Path, epoch_s: int) -> None:
    """Make every build of one tree the same: modes and times, whatever the machine and the hour."""
    for path in [root, *sorted(root.rglob("*"))]:
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if executable else 0o644)
        os.utime(path, (epoch_s, epoch_s), follow_symlinks=False)


def run(*command: object, **environ: str) -> str:
    """Run a program and return its output. Raises: CalledProcessError."""
    arguments = [str(argument) for argument in command]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True, env={**os.environ, **environ})
    return done.stdout


if __name__ == "__main__":
    main()
