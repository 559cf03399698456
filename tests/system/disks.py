"""Small file systems of a test's own: one in memory, and ext4 in a file behind a loop device, whose power can be cut."""

import fcntl
import os
import shutil
import struct
import subprocess

import pytest
from system.box import eventually

_SHUTDOWN = 0x8004587D
"""FS_IOC_SHUTDOWN, _IOR('X', 125, __u32)."""
_NO_LOG_FLUSH = 2
"""EXT4_GOING_FLAGS_NOLOGFLUSH."""


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
            self._try(["mkfs.ext4", "-q", "-m", "0", "-O", "^resize_inode", self.image], "no ext4 can be made")
        self._size_bytes = size_bytes
        self._mount()

    def _mount(self):
        given = ["-o", "loop", self.image] if self.image else ["-t", "tmpfs", "-o", f"size={self._size_bytes}", "test"]
        self._try(["mount", *given, self.path], f"no {self.kind} can be mounted")

    def _try(self, command, why):
        if not shutil.which(command[0]):
            pytest.skip(f"capability: {why}: there is no {command[0]}")
        ran = subprocess.run(command, capture_output=True, check=False, text=True)
        if ran.returncode:
            pytest.skip(f"capability: {why}: {ran.stderr.strip()}")

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
            pytest.skip(f"capability: ext4 cannot be shut down here: {error}")
        finally:
            os.close(folder)
        stop()
        self.close()
        self._mount()

    def close(self):
        eventually(lambda: subprocess.run(["umount", self.path], capture_output=True, check=False).returncode == 0)
