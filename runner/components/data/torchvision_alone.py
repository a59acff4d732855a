"""torchvision's data sets without the rest of torchvision, which a run that only reads images has no use for."""

from __future__ import annotations

import contextlib
import sys
from importlib.util import find_spec, module_from_spec
from typing import Any

PACKAGE = "torchvision"
PART = "torchvision.datasets"


def datasets() -> Any:
    """Return the module `torchvision.datasets`, imported without the package round it unless that is there already.

    `import torchvision` imports models and operators first, and with them torch's compiler: longer than torch itself
    takes. So the package stands there unexecuted while its data sets are imported, and is taken away again: whoever
    imports it later gets all of it, with these data sets in it. One that is laid out in another way is imported whole.
    """
    if PART in sys.modules:
        return sys.modules[PART]
    if PACKAGE not in sys.modules and (spec := find_spec(PACKAGE)):
        sys.modules[PACKAGE] = module_from_spec(spec)
        with contextlib.suppress(AttributeError, ImportError), contextlib.ExitStack() as after:
            after.callback(sys.modules.pop, PACKAGE)
            from torchvision import datasets as alone

            return alone
    from torchvision import datasets as with_all

    return with_all
