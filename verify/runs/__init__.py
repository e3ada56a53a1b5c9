"""Runs: whole test sets, decided by some workers, each result stored as it comes.

from verify.runs import read_run
run = read_run(Path("runs"), "overnight")
rows = [answer.record for answer in run.answers()]
"""

from verify.runs.answers import Answer, Blob, Stretch
from verify.runs.engine import Alone, Crew, Lost, Work, answered, tasks_of
from verify.runs.folder import open_run, read_run, run_path, run_paths, runs_folder
from verify.runs.identity import Head, Instance
from verify.runs.store import Store

__all__ = [
    "Alone",
    "Answer",
    "Blob",
    "Crew",
    "Head",
    "Instance",
    "Lost",
    "Store",
    "Stretch",
    "Work",
    "answered",
    "open_run",
    "read_run",
    "run_path",
    "run_paths",
    "runs_folder",
    "tasks_of",
]
