"""The work as a plugin of dask's workers; importable only where dask is."""

from distributed import WorkerPlugin

from verify.runs.cluster import Sent


class SentPlugin(Sent, WorkerPlugin):  # type: ignore[misc]  # dask ships no types
    """See `verify.runs.cluster.Sent`."""
