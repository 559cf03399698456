"""A datacat-server that does in seconds what others do in weeks: small segments, and jobs that are always due.

It is the real program with other constants; python busy_server.py takes its flags.
"""

from functools import partial

from datacat.cli.server import main
from datacat.server import backups, jobs
from datacat.store import semi, tending

jobs.TEND_INTERVAL_S = jobs.RETAIN_INTERVAL_S = 0.05
backups.INTERVAL_S = 0.1
backups._HOUR_US = backups.RETRY_US = 1_000_000  # an hour is a second
tending._OLD_INTERVAL_S = 0.2
semi.HINT_BYTES = 60_000
semi.SemiStore = partial(semi.SemiStore, segment_bytes=100_000, quiet_s=0.1)

if __name__ == "__main__":
    main()
