"""Join the processes that train one model together, and tell why one of them failed.

All meet at a key-value store: each says there that it has started, and with which command; one that fails writes its
error there before it ends. So the others can name the cause, which the failure of an exchange does not say.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from runner.engine.process_errors import ProcessesDiffer, ProcessLost
from runner.engine.process_group import ProcessGroup
from runner.engine.rendezvous import Place
from runner.errors import RunnerError, describe
from runner.status import ending

# Seconds to wait for what the other processes say after an exchange failed
_PATIENCE = 4.0
_FOLDER, _TOLD = "folder", "told"


@dataclass(frozen=True)
class Words:
    """The words of a process that has read its command: a digest of its config, or why it was refused."""

    digest: str = ""
    error: str = ""
    exit_code: int = 0

    @classmethod
    def of(cls, error: BaseException | None) -> Words:
        """Return the words of a process whose command was refused."""
        found = ending(error or RuntimeError("no command"))
        return cls(error=str(found.reason), exit_code=found.exit_code)


class Meeting:
    """The store of the processes of one attempt.

    Args:
        place: The place of this process.
        start_timeout: Seconds to wait for a process that has not started, or that begins an exchange late.
    """

    def __init__(self, place: Place, start_timeout: float) -> None:
        self.place, self._start_timeout = place, start_timeout
        patience = timedelta(seconds=start_timeout)
        keeps = place.rank == 0 and not place.keeps_store
        try:
            store = TCPStore(place.address, place.port, is_master=keeps, timeout=patience, wait_for_workers=False)
        except RuntimeError as error:
            raise ProcessLost(
                f"rank {place.rank} cannot reach the other processes at {place.address}:{place.port}, as "
                f"{place.starter} says ({describe(error)})"
            ) from error
        self._run = PrefixStore("runner", store)
        # The addresses of processes of an earlier attempt are still in the store of an agent
        self.store = PrefixStore(f"attempt {place.attempt}", self._run)

    def agree(self, words: Words) -> None:
        """Wait until each process has read its command; raise an error in all if one was refused or differs."""
        self._say("words", vars(words))
        heard = [self._hear("words", rank) for rank in range(self.place.size)]
        for rank, each in enumerate(heard):
            if each["error"]:
                where = "" if heard[0]["error"] == each["error"] else f"rank {rank} on {each['host']}: "
                found = RunnerError(f"{where}{each['error']}")
                found.exit_code = each["exit_code"]
                raise found
        for rank, each in enumerate(heard):
            if each["digest"] != heard[0]["digest"]:
                raise ProcessesDiffer(
                    f"rank {rank} on {each['host']} has another config, version or plugin than rank 0"
                )

    def fail(self, error: BaseException, line: str, exit_code: int) -> None:
        """Tell the other processes why this one ends."""
        if isinstance(error, ProcessLost):
            return
        with suppress(RuntimeError):
            self._say("failed", {"error": line, "exit_code": exit_code})
            if self.place.rank:
                # Whoever has started the processes ends them all when the first one ends
                self._leave()
                self.store.wait([_TOLD], timedelta(seconds=_PATIENCE))

    def told(self) -> None:
        """Let the others know that the user has been told why the run failed."""
        with suppress(RuntimeError):
            self.store.set(_TOLD, "")

    def _leave(self) -> None:
        """Close the connections, so that no process waits for this one."""
        if distributed.is_initialized():
            distributed.destroy_process_group()

    def explain(self, reason: str) -> RunnerError:
        """Return why an exchange failed: the error of the first process that told one, or who does not answer."""
        with suppress(RuntimeError):
            self._say("alive", {})
            until = time.monotonic() + _PATIENCE
            others = [rank for rank in range(self.place.size) if rank != self.place.rank]
            while time.monotonic() < until:
                for rank in others:
                    if self._has("failed", rank):
                        told = self._hear("failed", rank)
                        found = ProcessLost(f"rank {rank} on {told['host']} failed: {told['error']}")
                        found.exit_code = told["exit_code"]
                        return found
                if all(self._has("alive", rank) for rank in others):
                    break
                time.sleep(0.05)
            silent = [rank for rank in others if not self._has("alive", rank)]
            if silent:
                hosts = ", ".join(f"rank {rank} on {self._host_of(rank)}" for rank in silent)
                what = "does not answer: it was killed or stopped, or its machine is gone"
                many = "do not answer: they were killed or stopped, or their machines are gone"
                return ProcessLost(f"{hosts} {what if len(silent) == 1 else many}")
        return ProcessLost(f"an exchange between the processes failed ({reason})")

    def speaks(self) -> bool:
        """Return True if no process of a smaller rank is left to tell the user."""
        with suppress(RuntimeError):
            lower = range(self.place.rank)
            return not any(self._has(topic, rank) for rank in lower for topic in ("alive", "failed"))
        return True

    def folder(self) -> Path | None:
        """Return the folder that an earlier attempt has made."""
        with suppress(RuntimeError):
            if self._run.check([_FOLDER]):
                return Path(self._run.get(_FOLDER).decode())
        return None

    def remember(self, folder: Path) -> None:
        """Keep the folder of the run for the next attempt."""
        with suppress(RuntimeError):
            self._run.set(_FOLDER, str(folder))

    def _say(self, topic: str, content: dict[str, Any]) -> None:
        self.store.set(f"{topic}/{self.place.rank}", json.dumps({**content, "host": socket.gethostname()}))

    def _hear(self, topic: str, rank: int) -> dict[str, Any]:
        try:
            self.store.wait([f"{topic}/{rank}"], timedelta(seconds=self._start_timeout))
        except RuntimeError as error:
            raise ProcessLost(
                f"rank {rank} has not started within {self._start_timeout:g} s (strategy.start_timeout)"
            ) from error
        found: dict[str, Any] = json.loads(self.store.get(f"{topic}/{rank}"))
        return found

    def _has(self, topic: str, rank: int) -> bool:
        return bool(self.store.check([f"{topic}/{rank}"]))

    def _host_of(self, rank: int) -> str:
        return str(self._hear("words", rank)["host"]) if self._has("words", rank) else "an unknown host"

    @contextmanager
    def joined(self, timeout: float) -> Iterator[ProcessGroup]:
        """Initialize torch's process group, for the body; `timeout` is the seconds to wait for a process in a step."""
        place = self.place
        has_gpu = torch.cuda.is_available() and torch.cuda.device_count() > place.local_rank
        backend = "cpu:gloo,cuda:nccl" if has_gpu else "gloo"
        try:
            distributed.init_process_group(
                backend,
                store=self.store,
                rank=place.rank,
                world_size=place.size,
                timeout=timedelta(seconds=timeout),
            )
            patient = distributed.new_group(timeout=timedelta(seconds=self._start_timeout), backend=backend)
        except RuntimeError as error:
            raise self.explain(describe(error)) from error
        group = ProcessGroup(
            place.rank,
            place.size,
            place.local_rank,
            patient=None if isinstance(patient, int) else patient,
            explain=self.explain,
            remember=self.remember,
        )
        with group.joined():
            yield group
