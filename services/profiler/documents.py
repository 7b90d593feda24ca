"""Latency tables and architectures by id, fetched from the control plane once: under a digest, nothing changes."""

from functools import _CacheInfo, lru_cache
from typing import cast

from fasterseg_core.architecture import Architecture, ArchitectureDocument
from fasterseg_core.latency_table import LatencyTable, LatencyTableDocument, RowState
from services.client.client import FasterSegClient
from services.client.errors import CorruptArtifactError

CACHED_TABLES = 16
CACHED_ARCHITECTURES = 4096


class Documents:
    """The control plane's documents, verified and kept.

    Both raise:
        ProblemError: the control plane refused, for example because it has no such document.
        UnreachableError: nothing answered.
        CorruptArtifactError: the document is not that of its id.
    """

    def __init__(self, client: FasterSegClient) -> None:
        self._client = client
        self.rows = dict.fromkeys(RowState, 0)  # of all tables that were fetched
        self._latency_table = lru_cache(CACHED_TABLES)(self._fetch_latency_table)
        self._architecture = lru_cache(CACHED_ARCHITECTURES)(self._fetch_architecture)

    def latency_table(self, table_id: str) -> LatencyTable:
        """The table of an id."""
        return self._latency_table(table_id)

    def architecture(self, architecture_id: str) -> Architecture:
        """The architecture of an id."""
        return self._architecture(architecture_id)

    def caches(self) -> dict[str, _CacheInfo]:
        """How often each kind of document was asked for and was held."""
        return {
            "latency_table": self._latency_table.cache_info(),
            "architecture": self._architecture.cache_info(),
        }

    def _fetch_latency_table(self, table_id: str) -> LatencyTable:
        table = LatencyTable.from_document(cast(LatencyTableDocument, self._client.latency_table(table_id)))
        if table.digest != table_id:
            raise CorruptArtifactError(table_id, table.digest)
        for row in table.rows.values():
            self.rows[row.state] += 1
        return table

    def _fetch_architecture(self, architecture_id: str) -> Architecture:
        record = self._client.architecture(architecture_id)
        architecture = Architecture.from_document(cast(ArchitectureDocument, record.document))
        if architecture.digest != architecture_id:
            raise CorruptArtifactError(architecture_id, architecture.digest)
        return architecture
