r"""Run a module with the packages of the folder `site` beside this file: python -I run.py MODULE [ARGUMENTS].

The service needs python.exe itself: the one of a virtual environment starts a second process, and the service control
manager would wait for the first. -I keeps the user's own packages and PYTHONPATH out.
"""

import runpy
import site
import sys
from pathlib import Path

site.addsitedir(str(Path(__file__).resolve().parent / "site"))
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
