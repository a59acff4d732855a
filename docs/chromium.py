"""A headless Chromium for screenshots and tests, driven through pipes; nothing is installed and no port is opened."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_WORDS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
    *("--force-color-profile=srgb", "--remote-debugging-pipe", "--disable-background-networking"),
)
_PATIENCE = 60
# Elements in shadow roots, where TensorBoard's older pages keep theirs
_ALL = """
function all(root) {
  return [...root.querySelectorAll('*')].flatMap(e => e.shadowRoot ? [e, ...all(e.shadowRoot)] : [e]);
}
"""


class Page:
    """A page in a browser, as wide and high as a screen."""

    def __init__(self, commands: int, answers: int, width: int, height: int) -> None:
        self._commands, self._answers, self._read = commands, answers, b""
        self._numbers, self._session = itertools.count(1), {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._session = {"sessionId": session}
        phone = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Return the answer to a command of the Chrome DevTools Protocol."""
        number = next(self._numbers)
        command = {"id": number, "method": method, "params": params, **self._session}
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while True:
            while b"\0" not in self._read:
                if not (more := os.read(self._answers, 1 << 20)):
                    raise RuntimeError("Chromium ended")
                self._read += more
            message, _, self._read = self._read.partition(b"\0")
            answer = json.loads(message)
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result

    def evaluate(self, script: str) -> Any:
        """Return the value of a JavaScript expression; `all(document)` are the elements, also in shadow roots."""
        found = self.call("Runtime.evaluate", expression=f"{_ALL}\n{script}", returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"]["text"])
        return found["result"].get("value")

    def open(self, address: str) -> None:
        """Open an address, even if only its fragment differs from the last one."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=address)
        self.wait("document.readyState == 'complete'")

    def wait(self, condition: str) -> None:
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            try:
                if self.evaluate(condition):
                    return
            except RuntimeError:
                pass  # the page is being replaced
            time.sleep(0.1)
        raise TimeoutError(condition)

    def screenshot(self) -> bytes:
        """Return the visible part of the page as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png", optimizeForSpeed=False)["data"])


@contextmanager
def browse(width: int, height: int) -> Iterator[Page]:
    """Yield an empty page of a new browser without history."""
    if PROGRAM is None:
        raise FileNotFoundError("needs Chromium (apt-get install chromium)")
    to_read, commands = os.pipe()
    answers, to_write = os.pipe()
    with tempfile.TemporaryDirectory(prefix="chromium", ignore_cleanup_errors=True) as profile:
        # Chromium reads commands from descriptor 3 and answers to 4
        shell = ("bash", "-c", f'exec "$0" "$@" 3<&{to_read} 4>&{to_write}', PROGRAM)
        words = (*_WORDS, f"--user-data-dir={profile}", f"--window-size={width},{height}")
        silent = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen([*shell, *words], pass_fds=(to_read, to_write), **silent)
        os.close(to_read)
        os.close(to_write)
        try:
            yield Page(commands, answers, width, height)
        finally:
            os.close(commands)
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(answers)
