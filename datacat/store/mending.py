"""Repair a store that nobody has open: what every start does, and what a start leaves for a person to ask for."""

import contextlib
import shutil
from pathlib import Path

import msgspec

from datacat.errors import Corrupt, StoreError
from datacat.host import needs_a_person
from datacat.store import hints, page_files, pages, survey
from datacat.store.loading import take
from datacat.store.page_files import PageFile, Reader
from datacat.store.pages import Family, View
from datacat.store.repair import Finding
from datacat.store.semi import SemiStore


def repair(root: Path) -> list[Finding]:
    """Put the folder right; return what was done to segments. Every byte of them is read.

    Roll-ups: of a page with damage the sound parts are kept; a page that cannot be read is made again from what the log
    still has. Damaged bytes are in quarantine afterwards. Raises: Busy, StoreError; Corrupt when a person has to act.
    """
    survey.require(root)
    lock = take(root)
    try:
        shutil.rmtree(root / hints.HINTS_DIR, ignore_errors=True)
        for file in page_files.known(root):
            _mend(root, file)
    except OSError as error:
        raise StoreError(f"cannot repair {root}: {error}", permanent=needs_a_person(error)) from error
    finally:
        lock.release()
    store = SemiStore(root)
    store.close()
    return store.findings


def _mend(root: Path, file: PageFile) -> None:
    """Leave a page that is sound as it is; of another one only what is sound. Raises: OSError, StoreError."""
    sound: list[tuple[Family, View]] = []
    try:
        with Reader(file) as reader:
            for section in reader.sections:
                with contextlib.suppress(Corrupt, msgspec.MsgspecError, ValueError, IndexError):
                    reader.items(section)
                    sound.append((page_files.family_of(section), (section.view, *reader.sound(section))))
            whole = len(sound) == len(reader.sections)
    except (Corrupt, msgspec.MsgspecError):
        page_files.set_aside(root, file.path)
        file.path.unlink()
        # Without the mark the next start reads the whole log for what is in no page.
        (root / page_files.ROLLUPS_DIR / page_files.MARK).unlink(missing_ok=True)
        return
    if whole and file.path.stat().st_size == len(pages.encode(file.id, file.position, sound)):
        return
    page_files.set_aside(root, file.path)
    page_files.write(root, file.id, file.position, sound)
