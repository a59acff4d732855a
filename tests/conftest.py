"""Settings of all tests. torch uses one thread: on a busy machine two threads mostly wait for each other."""

import atexit
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest
from quick_pictures import quicken, render

from runner import registry

os.environ.setdefault("OMP_NUM_THREADS", "1")

# `nohup` and `&` start a program with signals ignored, and what is ignored stays so in every child. Tests that send
# such a signal need the disposition of a program in the foreground.
for _number, _default in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGTERM, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _default)

if "PYTEST_XDIST_WORKER" not in os.environ:  # which inherits what is set here
    os.environ.setdefault("MPLCONFIGDIR", str(Path("~/.cache/matplotlib").expanduser()))  # its fonts take seconds
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="runner-caches-")
    atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)


def pytest_addoption(parser):
    parser.addoption("--no-skips", action="store_true", help="a skipped test fails: all that it needs must be here")


def _fail_if_skipped(item, report):
    if report.skipped and not hasattr(report, "wasxfail") and item.config.getoption("--no-skips"):
        report.outcome, report.longrepr = "failed", f"skipped: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    return _fail_if_skipped(item, (yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return _fail_if_skipped(collector, (yield))


@pytest.fixture(autouse=True, scope="module")
def _options_of_a_module():
    """Remove the options that a module's tests registered: tests over the whole registry must not meet them."""
    before = {(kind, name) for kind, found in registry._parts.items() for name in found}
    yield
    for kind, found in registry._parts.items():
        for name, factory in list(found.items()):
            if (kind, name) not in before and registry.is_plugins(factory):
                del found[name]
                sys.modules.pop(factory.__module__, None)  # so that the next import of the plugin registers again


@pytest.fixture(autouse=True, scope="module")
def _pictures_of_a_module(request):
    """Let figures be made but not rendered, except in modules that are marked `rendered`."""
    with pytest.MonkeyPatch.context() as patch:
        if request.node.get_closest_marker("rendered") is None:
            quicken(patch)
        yield


@pytest.fixture(autouse=True)
def _pictures_of_a_test(request, _pictures_of_a_module):
    """Let figures be rendered in a test that is marked `rendered`."""
    with pytest.MonkeyPatch.context() as patch:
        if request.node.get_closest_marker("rendered") is not None:
            render(patch)
        yield
