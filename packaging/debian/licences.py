"""The copyright file of the Debian package: whose the libraries are that lie in it, and under which licence."""

import email
import email.message
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]

LICENCES = {
    "lgpl": "LGPL-3",
    "apache": "Apache-2.0",
    "mpl": "MPL-2.0",
    "zope": "ZPL-2.1",
    "zpl": "ZPL-2.1",
    "psf": "Python-2.0",
    "python software": "Python-2.0",
    "bsd": "BSD-3-clause",
    "mit": "Expat",
}
"""What a library says about its licence, in small letters: the name in the copyright file. The first that fits."""


class BuildError(Exception):
    """Something that the package must not be built with; the text says what."""


def copyright_file(root: Path, below: str) -> str:
    """Return the copyright file, with a paragraph for each library in the folder below root."""
    lib = root / below
    expat = (CHECKOUT / "LICENSE").read_text(encoding="utf-8").split("\n\n", 2)[2]
    stanzas, licences = [], set()
    for info in sorted(lib.glob("*.dist-info")):
        metadata = email.message_from_string((info / "METADATA").read_text(encoding="utf-8"))
        name = metadata["Name"]
        if name == "datacat":
            continue
        who = metadata["Author"] or metadata["Author-Email"] or metadata["Maintainer-Email"] or f"the authors of {name}"
        licence = licence_of(metadata)
        licences.add(licence)
        stanzas.append(
            f"Files: {' '.join(parts_of(info, lib, below))}\nCopyright: {' '.join(who.split())}\nLicense: {licence}\n"
        )
    text = (HERE / "copyright.in").read_text(encoding="utf-8")
    replaced = {
        "@LIBRARIES@": "".join(f"{stanza}\n" for stanza in stanzas),
        "@EXPAT@": indented(expat),
        "@LICENSES@": "\n".join(licence_stanza(licence) for licence in sorted(licences - {"Expat"})).strip("\n"),
    }
    for key, value in replaced.items():
        text = text.replace(key, value)
    return text


def licence_of(metadata: email.message.Message) -> str:
    """Return the short name of a library's licence."""
    classifiers = [value for value in metadata.get_all("Classifier", []) if value.startswith("License")]
    texts = [metadata["License-Expression"], metadata["License"], *classifiers]
    given = " ".join(text for text in texts if text and "\n" not in text)
    for word, short in LICENCES.items():
        if word in given.lower():
            return short
    raise BuildError(f"the licence of {metadata['Name']} is not known: {given!r}")


def parts_of(info: Path, lib: Path, below: str) -> Iterator[str]:
    """Yield the patterns that match a library's files, as its RECORD lists them."""
    yield f"{below}/{info.name}/*"
    listed = [Path(line.split(",", 1)[0]) for line in (info / "RECORD").read_text(encoding="utf-8").splitlines()]
    # A folder without __init__.py is a name that several libraries share.
    tops = {
        Path(*path.parts[: 1 if (lib / path.parts[0] / "__init__.py").exists() else 2])
        for path in listed
        if path.parts[0] != ".."  # scripts, which are not taken
    }
    for top in sorted(tops):
        if (lib / top).exists() and top.parts[0] != info.name:
            yield f"{below}/{top}/*" if (lib / top).is_dir() else f"{below}/{top}"


def licence_stanza(short: str) -> str:
    """Return what a licence's paragraph says."""
    common = {"LGPL-3": "LGPL-3", "Apache-2.0": "Apache-2.0", "MPL-2.0": "MPL-2.0"}
    if short in common:
        where = f"On Debian systems the full text is in /usr/share/common-licenses/{common[short]}."
    else:
        where = (
            "The full text is in the folder licenses, or the file LICENSE, of the library's folder named .dist-info."
        )
    return f"License: {short}\n{indented(where)}\n"


def indented(text: str) -> str:
    """Return text as a field's continuation lines."""
    return "\n".join(f" {line}" if line.strip() else " ." for line in text.strip().splitlines())
