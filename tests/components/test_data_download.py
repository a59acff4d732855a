"""Truncated, altered, refused, hostile and killed downloads: a one-line error, and a clean next attempt."""

from __future__ import annotations

import fcntl
import io
import os
import signal
import tarfile
import time
from collections.abc import Iterator
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import torch
import yaml
from running import ROOT, run_in_child
from test_data import write_cifar

from runner import components  # noqa: F401  (registers all)
from runner.components.data import download
from runner.engine.contracts import Data
from runner.errors import DataError
from runner.registry import build

YAML = yaml.safe_load((ROOT / "conf" / "data" / "cifar10.yaml").read_text())


class Server:
    """Serves one archive, well or badly: whole, half, altered, with status 500, slow (in ten pieces) or silent."""

    def __init__(self, content: bytes) -> None:
        self.content, self.how, self.asked, self.free = content, "whole", 0, Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/cifar-10-python.tar.gz"
        self.thread = Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        if self.how == "500":
            request.send_error(500)
            return
        request.send_response(200)
        request.send_header("Content-Length", str(len(self.content)))
        request.end_headers()
        if request.command == "HEAD":
            return
        self.asked += 1
        pieces = {"half": [self.content[: len(self.content) // 2]], "altered": [self.content[::-1]]}
        tenth = len(self.content) // 10 + 1
        slow = [self.content[i : i + tenth] for i in range(0, len(self.content), tenth)]
        try:
            for piece in pieces.get(self.how, slow):
                if self.how == "silent":
                    self.free.wait(10)
                    return
                request.wfile.write(piece)
                time.sleep(0.01 if self.how == "slow" else 0)
        except OSError:
            pass  # the child was killed

    def close(self) -> None:
        self.free.set()
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A tiny CIFAR-10 on a server of our own, with the checksums that torchvision is to find."""
    from torchvision.datasets import CIFAR10

    source = tmp_path / "source" / CIFAR10.base_folder
    write_cifar(source)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(source, CIFAR10.base_folder)

    def summed(*names: str) -> list[list[str]]:
        return [[name, md5((source / name).read_bytes()).hexdigest()] for name in names]

    monkeypatch.setattr(CIFAR10, "train_list", summed(*(f"data_batch_{i}" for i in range(1, 6))))
    monkeypatch.setattr(CIFAR10, "test_list", summed("test_batch"))
    meta = {"filename": "batches.meta", "key": "label_names", "md5": summed("batches.meta")[0][1]}
    monkeypatch.setattr(CIFAR10, "meta", meta)
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(buffer.getvalue()).hexdigest())
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    found = Server(buffer.getvalue())
    monkeypatch.setattr(CIFAR10, "url", found.url)
    yield found
    found.close()


def cifar10(root: Path) -> Data:
    values: dict[str, Any] = {**YAML, "root": str(root), "val_size": 10}
    return build("data", values)


def refusal(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        cifar10(root)
    line = str(caught.value)
    assert (
        "\n" not in line and caught.value.exit_code == 7 and f"data=cifar10: cannot be downloaded to {root} (" in line
    )
    return line


def left(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


@pytest.mark.parametrize(
    ("how", "words"), [("half", "corrupted"), ("altered", "corrupted"), ("500", "500"), ("silent", "timed out")]
)
def test_a_server_that_fails_is_one_line_and_the_next_try_is_as_the_first(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, words: str
) -> None:
    monkeypatch.setattr(download, "_TIMEOUT", 0.3)
    server.how = how
    assert words in refusal(tmp_path / "root")
    assert left(tmp_path / "root") == [".lock"]
    server.how = "whole"
    assert len(cifar10(tmp_path / "root").train.labels) == 90


@pytest.mark.parametrize("member", ["../escaped", "/tmp/runner-escaped", "link"])
def test_an_archive_that_reaches_out_of_its_folder_is_refused_even_with_the_right_checksum(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: str
) -> None:
    from torchvision.datasets import CIFAR10

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        entry = tarfile.TarInfo(member)
        if member == "link":
            entry.type, entry.linkname = tarfile.SYMTYPE, "../../.."
        else:
            entry.size = 4
        tar.addfile(entry, io.BytesIO(b"evil"))
    server.content = buffer.getvalue()
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(server.content).hexdigest())
    before = sorted(tmp_path.rglob("*"))
    line = refusal(tmp_path / "root")
    assert "outside" in line or member.startswith("/")  # of an absolute path the first slash is taken away
    assert left(tmp_path / "root") == [".lock"] and not Path("/tmp/runner-escaped").exists()
    assert sorted(path for path in tmp_path.rglob("*") if tmp_path / "root" not in (path, path.parent)) == before


def test_a_download_killed_at_any_time_recovers(server: Server, tmp_path: Path) -> None:
    server.how = "slow"
    wanted = cifar10(tmp_path / "whole").train.fetch(torch.arange(90))
    for number in range(4):
        root = tmp_path / str(number)
        child = os.fork()
        if child == 0:
            cifar10(root)
            os._exit(0)
        time.sleep(0.02 + 0.05 * number)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert torch.equal(cifar10(root).train.fetch(torch.arange(90)), wanted)
        assert ".runner-download" not in left(root)


def test_what_a_killed_download_left_goes_when_nobody_downloads(server: Server, tmp_path: Path) -> None:
    cifar10(tmp_path)
    (tmp_path / ".runner-download").mkdir()
    (tmp_path / ".runner-download" / "cifar-10-python.tar.gz").write_bytes(b"left")
    with (tmp_path / ".lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # another download is under way
        cifar10(tmp_path)
        assert (tmp_path / ".runner-download" / "cifar-10-python.tar.gz").exists()
    cifar10(tmp_path)
    assert ".runner-download" not in left(tmp_path)


@pytest.mark.slow
@pytest.mark.ci_slice
def test_a_download_killed_at_twenty_times_recovers(server: Server, tmp_path: Path) -> None:
    server.how = "slow"
    wanted = cifar10(tmp_path / "whole").train.fetch(torch.arange(90))
    for number in range(20):
        root = tmp_path / str(number)
        child = os.fork()
        if child == 0:
            cifar10(root)
            os._exit(0)
        time.sleep(0.01 * number)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert torch.equal(cifar10(root).train.fetch(torch.arange(90)), wanted), number
        assert ".runner-download" not in left(root)


def test_two_processes_download_once(server: Server, tmp_path: Path) -> None:
    server.how = "slow"
    cifar10(tmp_path / "alone")
    alone, server.asked = server.asked, 0

    def work() -> None:
        other = os.fork()
        assert len(cifar10(tmp_path / "root").train.labels) == 90
        if other == 0:
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) == 0

    assert run_in_child(work) == 0
    assert server.asked == alone
