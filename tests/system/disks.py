"""Small file systems of a test's own: one in memory, and ext4 in a file behind a loop device, whose power can be cut."""

import errno
import fcntl
import os
import shutil
import struct
import subprocess
from pathlib import Path

import absent
import pytest
from system.box import eventually

_SHUTDOWN = 0x8004587D
"""FS_IOC_SHUTDOWN, _IOR('X', 125, __u32)."""
_NO_LOG_FLUSH = 2
"""EXT4_GOING_FLAGS_NOLOGFLUSH."""
_LOOP_DEVICES = Path("/dev/loop-control")
_DENIED = ("permission denied", "not permitted", "superuser", "unknown filesystem type")
"""What mount says to who may not, and of a kernel without ext4; anything else it says is a mistake of the test."""


class Disk:
    """A file system at path; close() takes it away. image is the file that has its blocks, None in memory."""

    def __init__(self, folder, kind, size_bytes):
        self.path = folder / "disk"
        self.path.mkdir()
        self.kind = kind
        self.image = None if kind == "tmpfs" else folder / "disk.ext4"
        if self.image is not None:
            with self.image.open("wb") as file:
                file.truncate(size_bytes)
            if not shutil.which("mkfs.ext4"):
                absent.skip("mkfs.ext4 is not installed")
            subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-O", "^resize_inode", self.image], check=True)
        self._size_bytes = size_bytes
        self._mount()

    def _mount(self):
        given = ["-o", "loop", self.image] if self.image else ["-t", "tmpfs", "-o", f"size={self._size_bytes}", "test"]
        if self.image and not _LOOP_DEVICES.exists():
            pytest.skip("capability: there are no loop devices")
        ran = subprocess.run(["mount", *given, self.path], capture_output=True, check=False, text=True)
        if ran.returncode and any(word in ran.stderr.lower() for word in _DENIED):
            pytest.skip(f"capability: no {self.kind} can be mounted: {ran.stderr.strip()}")
        assert ran.returncode == 0, ran.stderr

    def cut_power(self, stop):
        """Let only what is on the disk at this moment be there afterwards; stop() ends who has files open.

        The file system is shut down without flushing anything, as its own developers do it: what is in memory of files
        and of its journal never gets to the disk, and every write and fsync fails from now on. The next mount replays
        what the journal has.
        """
        folder = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        except OSError as error:
            if error.errno not in (errno.ENOTTY, errno.EOPNOTSUPP):
                raise
            pytest.skip(f"capability: this kernel does not let ext4 be shut down: {error}")
        finally:
            os.close(folder)
        stop()
        self.close()
        self._mount()

    def close(self):
        eventually(lambda: subprocess.run(["umount", self.path], capture_output=True, check=False).returncode == 0)
