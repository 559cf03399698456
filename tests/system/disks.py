"""Small file systems of a test's own: one in memory, and ext4 in a file behind a loop device, whose power can be cut."""

import shutil
import subprocess

import pytest
from system.box import eventually


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
        """Let only what is on the disk at this moment be there; stop() ends who writes, after that moment.

        What the kernel holds in memory of the file system is not in the image yet. A copy of it is what a machine finds
        that lost its power: the mount of it replays the journal of ext4. Who writes must stand still meanwhile.
        """
        found = self.image.with_suffix(".found")
        subprocess.run(["cp", "--sparse=always", self.image, found], check=True)
        stop()
        self.close()
        found.replace(self.image)
        self._mount()

    def close(self):
        eventually(lambda: subprocess.run(["umount", self.path], capture_output=True, check=False).returncode == 0)
