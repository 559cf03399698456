"""Power loss: the disk images that may be left at any moment of a store's work hold everything that was acknowledged.

Every call that changes a file or a folder is written down while a store works. The model is POSIX at its weakest: bytes
are safe after fsync() of their file, names after fsync() of their folder; what came since survives as any prefix, file
by file and folder by folder, its last write torn at any byte or as zeros of its length; or sector by sector, each as it
is or as it was: a disk writes the pages of a file in any order.
"""

import os
import random
import shutil
import sys
from pathlib import Path

import pytest
from storing import opened, put, ship, sid

from datacat.errors import Deleted, NotFound
from datacat.store import RecordQuery, RollupQuery
from datacat.store.checking import Report, check
from datacat.store.semi import SemiStore
from datacat.wire.records import Close, Event, StatePatch

SECTOR_BYTES = 512

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="capability: folders cannot be synced here")


class Recorder:
    """Writes down what os is told to do below a folder; log has (what, ...) in order."""

    NAMES = ("open", "close", "write", "fsync", "ftruncate", "replace", "unlink", "mkdir", "rmdir")

    def __init__(self, monkeypatch, root, known=()):
        """known are the files that are there already; they get the numbers 1, 2, ..."""
        self.root = str(root)
        self.log = []
        self._paths = {}
        self._files = len(known)
        self._inode = {path: number for number, path in enumerate(known, 1)}
        self._real = {name: getattr(os, name) for name in self.NAMES}
        for name in self.NAMES:
            monkeypatch.setattr(os, name, getattr(self, f"_{name}"))

    def _mine(self, path):
        return isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(self.root)

    def _open(self, path, flags, *more, **named):
        new = self._mine(path) and flags & os.O_CREAT and not Path(path).exists()
        fd = self._real["open"](path, flags, *more, **named)
        if self._mine(path):
            name = os.fspath(path)
            if new:
                self._files += 1
                self._inode[name] = self._files
                self.log.append(("create", name, self._files))
            self._paths[fd] = name if Path(name).is_dir() else self._inode.get(name)
            if flags & os.O_TRUNC and not new:
                self.log.append(("truncate", self._inode[name], 0))
        return fd

    def _close(self, fd):
        self._paths.pop(fd, None)
        self._real["close"](fd)

    def _write(self, fd, data):
        at = os.fstat(fd).st_size if fd in self._paths else 0
        written = self._real["write"](fd, data)
        if fd in self._paths:
            self.log.append(("write", self._paths[fd], at, bytes(data[:written])))
        return written

    def _fsync(self, fd):
        if fd in self._paths:
            self.log.append(("sync", self._paths[fd]))  # the disk under the test need not do it

    def _ftruncate(self, fd, size):
        self._real["ftruncate"](fd, size)
        if fd in self._paths:
            self.log.append(("truncate", self._paths[fd], size))

    def _replace(self, old, new, **named):
        self._real["replace"](old, new, **named)
        if self._mine(new):
            self._inode[os.fspath(new)] = self._inode.pop(os.fspath(old))
            self.log.append(("rename", os.fspath(old), os.fspath(new)))

    def _unlink(self, path, **named):
        self._real["unlink"](path, **named)
        if self._mine(path):
            self._inode.pop(os.fspath(path), None)
            self.log.append(("unlink", os.fspath(path)))

    def _mkdir(self, path, *more, **named):
        self._real["mkdir"](path, *more, **named)
        if self._mine(path):
            self.log.append(("mkdir", os.fspath(path)))

    def _rmdir(self, path, **named):
        self._real["rmdir"](path, **named)
        if self._mine(path):
            self.log.append(("rmdir", os.fspath(path)))


class Disk:
    """What is on the disk after the first operations of a log: what is safe, and what came since."""

    def __init__(self):
        self.bytes = {}
        self.late_bytes = {}
        self.names = {}
        self.late_names = {}

    def apply(self, step):
        what, on = step[0], step[1]
        if what in ("write", "truncate"):
            self.late_bytes.setdefault(on, []).append(step)
        elif what == "sync" and isinstance(on, int):
            self.bytes[on] = played(self.bytes.get(on, b""), self.late_bytes.pop(on, []))
        elif what == "sync":
            for late in self.late_names.pop(on, []):
                renamed(self.names, late)
        elif what in ("create", "unlink", "mkdir", "rmdir", "rename"):
            self.late_names.setdefault(os.path.dirname(on), []).append(step)

    def image(self, rng):
        """Return one of the images that a power cut may leave now: {path: bytes, or None for a folder}."""
        names = dict(self.names)
        for late in self.late_names.values():
            for step in late[: rng.randint(0, len(late))]:
                renamed(names, step)
        return {path: None if inode is None else self._content(inode, rng) for path, inode in names.items()}

    def _content(self, inode, rng):
        late = self.late_bytes.get(inode, [])
        some = late[: rng.randint(0, len(late))]
        if some and rng.random() < 0.4:
            return some_sectors(self.bytes.get(inode, b""), played(self.bytes.get(inode, b""), some), rng)
        if some and some[-1][0] == "write" and rng.random() < 0.6:
            _, _, at, data = some[-1]
            torn = b"\0" * len(data) if rng.random() < 0.3 else data[: rng.randint(0, len(data))]
            some = [*some[:-1], ("write", inode, at, torn)]
        return played(self.bytes.get(inode, b""), some)


def some_sectors(old, new, rng):
    """Return new, with some of its sectors as they were in old; those that old did not have are zeros."""
    sectors = [
        new[at : at + SECTOR_BYTES]
        if rng.random() < 0.5
        else old[at : at + SECTOR_BYTES].ljust(SECTOR_BYTES, b"\0")[: len(new) - at]
        for at in range(0, len(new), SECTOR_BYTES)
    ]
    return b"".join(sectors)


def played(content, steps):
    for step in steps:
        if step[0] == "write":
            content = content[: step[2]].ljust(step[2], b"\0") + step[3]
        else:
            content = content[: step[2]].ljust(step[2], b"\0")
    return content


def renamed(names, step):
    what, on = step[0], step[1]
    if what == "create":
        names[on] = step[2]
    elif what == "mkdir":
        names[on] = None
    elif what == "rename":
        if on in names:
            names[step[2]] = names.pop(on)
    else:
        names.pop(on, None)


def materialise(image, root, target):
    """Make an image real in target; what lies in a folder that did not survive is not there."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    kept = {str(root)}
    for path in sorted(image):
        if os.path.dirname(path) not in kept:
            continue
        place = target / os.path.relpath(path, root)
        if image[path] is None:
            place.mkdir()
            kept.add(path)
        else:
            place.write_bytes(image[path])


def work(root, rng, log):
    """Let a store take batches, merge, delete, empty segments, write roll-ups and hints; return what was acknowledged.

    That is (length of the log then, session, how many events it had, or None when it was deleted).
    """
    now = [0.0]
    store = SemiStore(root, segment_bytes=6000, quiet_s=0, clock=lambda: now[0], now_ns=lambda: 5_000_000)
    acked = []
    counts = {}
    for turn in range(60):
        number = rng.randrange(1 + turn // 4)
        session = sid(number)
        if counts.get(session, 0) is None:
            continue
        count = counts.get(session, 0)
        records = [] if count else [opened(t=100)]
        records += [Event(t=1000 + count + n, name=f"e{count + n}", message="x" * 80) for n in range(3)]
        records.append(StatePatch(t=1000 + count, patch={"count": count + 3}))
        if rng.random() < 0.3:
            records.append(Close(t=2000 + count, exit_code=0))
        put(store, session, *records)
        counts[session] = count + 3
        acked.append((len(log), session, count + 3))
        now[0] += rng.choice([0, 0, 100])
        if rng.random() < 0.2:
            store.tend(0.01)
        if rng.random() < 0.08:
            store.drop(session)
            counts[session] = None
            acked.append((len(log), session, None))
    while store.tend(10):
        pass
    store.close()
    return acked


def verify(target, acked, after):
    """Open what the disk had after so many operations, twice; compare with what was acknowledged by then."""
    gone = {session for _, session, count in acked if count is None}
    owed = {session: count for length, session, count in acked if length <= after}
    seen = {}
    for turn in range(2):
        store = SemiStore(target, segment_bytes=6000, quiet_s=0, now_ns=lambda: 5_000_000)
        missing = []
        for session in {session for _, session, _ in acked}:
            try:
                rows = list(store.records(session, RecordQuery(kinds=("event",))))
            except Deleted:
                missing.append(session not in gone)
                continue
            except NotFound:
                missing.append(session in owed)
                continue
            assert owed.get(session, 0) is not None, f"{session} was deleted and is back"
            names = [row.record["name"] for row in rows]
            assert names == [f"e{n}" for n in range(len(names))]
            assert len(names) >= owed.get(session, 0)
            assert store.state(session)["count"] == len(names)
            assert store.head(session).dropped == {}
            if turn:
                assert seen[session] == len(names)
            seen[session] = len(names)
        assert not any(missing)
        assert store.stats()["damaged_regions"] == 0
        counted = store.rollups(RollupQuery(kinds=("event",))).cells
        total = sum(cell.count for cell in counted.values())
        sent = {}
        for _, session, count in acked:
            sent[session] = count or sent[session]
        assert sum(seen.values()) <= total <= sum(sent.values())
        store.close()
    report = Report()
    list(check(target, report))
    assert report.sound, report.troubles


def cut_again(target, rng, monkeypatch):
    """Let a store open what a power cut left, and cut the power once more, at a random moment of the repair."""
    disk = Disk()
    paths = [str(path) for path in sorted(target.rglob("*"))]
    files = [path for path in paths if not Path(path).is_dir()]
    disk.bytes = {number: Path(path).read_bytes() for number, path in enumerate(files, 1)}
    numbers = {path: number for number, path in enumerate(files, 1)}
    disk.names = {str(target): None} | {path: numbers.get(path) for path in paths}
    with monkeypatch.context() as patched:
        recorder = Recorder(patched, target, files)
        store = SemiStore(target, segment_bytes=6000, quiet_s=0, now_ns=lambda: 5_000_000)
        store.tend(0.01)
        store.close()
    for step in recorder.log[: rng.randint(0, len(recorder.log))]:
        disk.apply(step)
    materialise(disk.image(rng), target, target.with_name("again"))
    shutil.rmtree(target)
    target.with_name("again").rename(target)


def campaign(tmp_path, monkeypatch, seeds, images):
    cuts = 0
    for seed in seeds:
        root = tmp_path / f"store{seed}"
        with monkeypatch.context() as patched:
            recorder = Recorder(patched, root)
            log = recorder.log
            acked = work(root, random.Random(seed), log)
        # Otherwise nothing of what is to be seen was there to be seen.
        assert any(step[0] == "unlink" and step[1].endswith("/data") for step in log)
        assert {"rollups", "hints"} <= {Path(step[2]).parent.name for step in log if step[0] == "rename"}
        rng = random.Random(seed + 1000)
        disk = Disk()
        disk.names[str(root)] = None
        bounds = [at for at, step in enumerate(log) if step[0] == "sync"]
        # Just before and just after each sync, which is where the most and the least may be lost.
        moments = sorted({*bounds, *(at + 1 for at in bounds)})
        wanted = set(moments if images is None else rng.sample(moments, min(images, len(moments))))
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", lambda fd: None)
            for at in range(len(log) + 1):
                if at in wanted:
                    for _ in range(1 if images else 3):
                        materialise(disk.image(rng), root, tmp_path / "image")
                        for _ in range(rng.choice([0, 0, 1, 2])):
                            cut_again(tmp_path / "image", rng, monkeypatch)
                            cuts += 1
                        verify(tmp_path / "image", acked, at)
                        cuts += 1
                if at < len(log):
                    disk.apply(log[at])
    sys.stdout.write(f"power cuts: {cuts}\n")
    return cuts


def test_a_power_cut_at_some_moments_loses_nothing_that_was_acknowledged(tmp_path, monkeypatch):
    assert campaign(tmp_path, monkeypatch, range(2), 45) > 90


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_a_power_cut_at_every_sync_loses_nothing_that_was_acknowledged(tmp_path, monkeypatch):
    assert campaign(tmp_path, monkeypatch, range(100, 110), None) > 1000


def test_a_stream_that_a_cut_took_is_not_told_to_be_stored_by_another_that_it_left(tmp_path):
    """Both were written before one sync; the disk has written the page of the second, and not of the first."""
    store = SemiStore(tmp_path / "store", sync_interval_s=3600)
    ship(store, sid(1), 0, 10, opened())
    store._segments.sync()
    ship(store, sid(1), 0, 10, *[Event(200, f"{number:x}" * 9) for number in range(400)], stream="first")
    ship(store, sid(1), 0, 10, Event(300, "second"), stream="second")
    (data,) = (tmp_path / "store" / "segments").glob("*/data")
    whole = data.read_bytes()
    store.close()
    sector = whole.index(b'"first"') // SECTOR_BYTES + 1
    hole = slice(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES)
    data.write_bytes(whole[: hole.start] + bytes(SECTOR_BYTES) + whole[hole.stop :])
    shutil.rmtree(tmp_path / "store" / "hints")
    again = SemiStore(tmp_path / "store")
    assert {name: one.acked for name, one in again.head(sid(1)).streams.items()} == {"app": 10}
    assert again.stats()["damaged_regions"] == 0
    assert again.head(sid(1)).dropped == {}
    again.close()


def test_a_new_segment_begins_when_the_one_before_is_durable(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        recorder = Recorder(patched, tmp_path / "store")
        store = SemiStore(tmp_path / "store", segment_bytes=500, sync_interval_s=3600)
        for number in range(6):
            put(store, sid(number), opened(), Event(200, "x" * 150))
        log = list(recorder.log)
        store.close()
    segments, unsynced = set(), set()
    begun = 0
    for step in log:
        if step[0] == "create" and "/segments/" in step[1]:
            segments.add(step[2])
        elif step[0] == "write" and step[1] in segments:
            unsynced.add(step[1])
        elif step[0] == "sync":
            unsynced.discard(step[1])
        elif step[0] == "mkdir" and "/segments/" in step[1]:
            begun += 1
            assert not unsynced
    assert begun > 2


def test_the_model_loses_what_was_not_synced(tmp_path, monkeypatch):
    """Without syncs the images are poorer than what was acknowledged, so the tests above can fail."""
    with monkeypatch.context() as patched:
        recorder = Recorder(patched, tmp_path / "store")
        acked = work(tmp_path / "store", random.Random(1), recorder.log)
    disk = Disk()
    disk.names[str(tmp_path / "store")] = None
    for step in recorder.log:
        if step[0] != "sync":
            disk.apply(step)
    lost = 0
    for seed in range(5):
        materialise(disk.image(random.Random(seed)), tmp_path / "store", tmp_path / "image")
        try:
            verify(tmp_path / "image", acked, len(recorder.log))
        except Exception:
            lost += 1
    assert lost
