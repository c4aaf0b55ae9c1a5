"""All ranks meet before a collective, so that a collective that cannot succeed is an error that says why, not a hang.

Each rank writes a small header (what it is about to do, with which sizes) into the key-value store that every process
group has, whatever its backend. The last rank to arrive publishes all headers as the verdict, and every rank compares
them. A rank that has waited too long publishes a verdict too: who is missing. The store keeps the first verdict only, so
either all ranks go on or all ranks fail, one that comes late included.

A meeting costs each rank about six small messages (0.3 ms for two processes and a TCPStore) and never waits for a GPU.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch.distributed as dist

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

LINGER_SECONDS = 5.0
"""How long a failing rank waits for the others to read the verdict: the process that holds the store must not end first."""


class Meetings:
    """The meetings of one process group, numbered in the order in which each of its ranks attends them.

    Args:
        group: a process group that this process belongs to.
    """

    def __init__(self, group: ProcessGroup) -> None:
        store: Any = group.get_group_store()
        # A connection of its own: waiting locks a connection, and NCCL's watchdog needs the group's one meanwhile.
        self.store = store.clone()
        self.rank = dist.get_rank(group)
        self.names: list[int] = dist.get_process_group_ranks(group)
        self.number = 0

    def meet(
        self,
        call: str,
        same: Mapping[str, object],
        *,
        timeout: timedelta,
        own: object = None,
        error: str | None = None,
        remedies: Mapping[str, str] | None = None,
    ) -> list[Any]:
        """Waits for all ranks and compares what they are about to do.

        Args:
            call: the name of the collective; must be equal on all ranks.
            same: sizes and settings that must be equal on all ranks, by their names.
            timeout: how long to wait for the last rank.
            own: what this rank tells the others (anything that JSON holds).
            error: why this rank cannot take part, if it cannot; then no rank goes on.
            remedies: what to do if the ranks differ, by the names in ``same``.

        Returns:
            ``own`` of every rank, in the order of the group's ranks.

        Raises:
            ValueError: on all ranks alike: one has an error, or they differ; says which ranks.
            TimeoutError: names the ranks that did not arrive, on those that did, and on a late one when it arrives.
            ConnectionError: the store is gone.
        """
        if timeout <= timedelta(0):
            raise ValueError(f"timeout={timeout}; expected a positive duration such as timedelta(minutes=5)")
        key = f"clinical_symile/{self.number}"
        self.number += 1
        header = json.dumps(
            {"call": call, "same": {name: str(value) for name, value in same.items()}, "own": own, "error": error}
        )
        try:
            verdict = self._verdict(key, header, timeout)
        except RuntimeError as lost:
            raise ConnectionError(
                f"{call}: rank {self.names[self.rank]} cannot reach the store of the process group; "
                "the process that holds it, usually that of rank 0, has probably ended"
            ) from lost
        headers = [json.loads(verdict["headers"][index]) for index in verdict["header_of"]]
        try:
            if verdict["missing"]:
                raise TimeoutError(
                    f"{call}: {_ranks(verdict['missing'])} did not arrive within {verdict['waited']:g} s, so no rank goes on; "
                    "see how they ended, or whether they ran fewer batches; a longer timeout helps slow ones"
                )
            self._compare(headers, remedies or {})
        except (ValueError, TimeoutError):
            self._let_others_read(key, arrived=len(self.names) - len(verdict["missing"]))
            raise
        self._forget(self.number - 2)
        return [found["own"] for found in headers]

    def _verdict(self, key: str, header: str, timeout: timedelta) -> dict[str, Any]:
        self.store.set(f"{key}/{self.rank}", header)
        if self.store.add(f"{key}/arrived", 1) == len(self.names):
            self._publish(key, timeout)
        else:
            try:
                self.store.wait([f"{key}/verdict"], timeout)
            except RuntimeError:  # too late, or the store is gone: then the next line says so
                self._publish(key, timeout)
        verdict: dict[str, Any] = json.loads(self.store.get(f"{key}/verdict"))
        return verdict

    def _publish(self, key: str, timeout: timedelta) -> None:
        """Writes the verdict, unless there is one."""
        keys = [f"{key}/{rank}" for rank in range(len(self.names))]
        missing = [] if self.store.check(keys) else [rank for rank in range(len(keys)) if not self.store.check([keys[rank]])]
        found = [] if missing else [header.decode() for header in self.store.multi_get(keys)]
        # Headers are mostly equal; each one is sent once, so that the verdict stays small with many ranks.
        headers = list(dict.fromkeys(found))
        verdict = {
            "missing": [self.names[rank] for rank in missing],
            "waited": timeout.total_seconds(),
            "headers": headers,
            "header_of": [headers.index(header) for header in found],
        }
        self.store.compare_set(f"{key}/verdict", "", json.dumps(verdict))

    def _compare(self, headers: Sequence[Mapping[str, Any]], remedies: Mapping[str, str]) -> None:
        """Raises the same ValueError on all ranks, unless their headers agree."""
        calls = [header["call"] for header in headers]
        if len(set(calls)) > 1:
            raise ValueError(
                f"the ranks make different calls: {self._by_rank(calls)}; every rank must make the same calls in the same order"
            )
        errors = [f"rank {name}: {header['error']}" for name, header in zip(self.names, headers, strict=True) if header["error"]]
        if errors:
            raise ValueError(f"{calls[0]} failed on {'; '.join(errors)}")
        for name in headers[0]["same"]:
            values = [header["same"].get(name) for header in headers]
            if len(set(values)) > 1:
                raise ValueError(
                    f"{calls[0]}: the ranks differ in {name}: {self._by_rank(values)}; "
                    + remedies.get(name, "it must be equal on all ranks")
                )

    def _by_rank(self, values: Sequence[str]) -> str:
        """``4 on ranks 0, 2; 3 on rank 1``."""
        holders = {value: [name for name, other in zip(self.names, values, strict=True) if other == value] for value in values}
        return "; ".join(f"{value} on {_ranks(names)}" for value, names in holders.items())

    def _let_others_read(self, key: str, arrived: int) -> None:
        """A rank that fails often ends, and the store may end with it."""
        deadline = time.monotonic() + LINGER_SECONDS
        try:
            read = self.store.add(f"{key}/read", 1)
            while read < arrived and time.monotonic() < deadline:
                time.sleep(0.01)
                read = self.store.add(f"{key}/read", 0)
        except RuntimeError:
            return  # The store is gone because its holder saw that all had read.

    def _forget(self, number: int) -> None:
        """Deletes this rank's keys of a meeting before the last: all ranks have read its verdict, or were not here now."""
        if number < 0:
            return
        for name in [str(self.rank), *(["arrived", "verdict", "read"] if self.rank == 0 else [])]:
            self.store.delete_key(f"clinical_symile/{number}/{name}")


_MEETINGS: WeakKeyDictionary[ProcessGroup, Meetings] = WeakKeyDictionary()


def meetings_of(group: ProcessGroup) -> Meetings:
    """The meetings of a group, which all callers share because their order is what the ranks agree on."""
    if group not in _MEETINGS:
        _MEETINGS[group] = Meetings(group)
    return _MEETINGS[group]


def _ranks(names: Sequence[int]) -> str:
    return f"rank {names[0]}" if len(names) == 1 else f"ranks {', '.join(map(str, names))}"
