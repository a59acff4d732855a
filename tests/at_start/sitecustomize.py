"""Python imports this file at start-up if its folder is on the path; the process then dies at the point FAULT_POINT."""

import importlib.util
import os
import sys


class AfterImport:
    """Installs the fault once the task that it concerns is imported."""

    def find_spec(self, name, path, target=None):
        if name != "runner.tasks.train":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            import fault_points

            fault_points.install(fault_points.parse(os.environ["FAULT_POINT"]))

        spec.loader.exec_module = exec_module
        return spec


if "FAULT_POINT" in os.environ:
    sys.meta_path.insert(0, AfterImport())
