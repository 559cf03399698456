"""A progress bar for long work: on standard error when that is a terminal, else nothing."""

import contextlib
from collections.abc import Iterator

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from datacat.cli import screen
from datacat.store.survey import Step


def follow(steps: Iterator[Step]) -> None:
    """Do all steps of a work and show how far it is; Ctrl-C ends it between two steps, and it cleans up."""
    out = screen.console(err=True)
    with contextlib.closing(steps) as work:  # type: ignore[type-var]  # a generator, always
        if not out.is_terminal:
            for _ in work:
                pass
            return
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=out, transient=True) as bar:
            task = bar.add_task("", total=None)
            for step in work:
                bar.update(task, completed=step.done, total=step.total, description=step.doing)
