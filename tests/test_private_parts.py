"""Private parts of libraries: the tree uses those of this table only. A new one needs a feature test and a fallback."""

import ast
from collections.abc import Iterator
from pathlib import Path

from running import ROOT

from runner.engine.parts import BATCH_NORMS, CONVOLUTIONS, DROPOUTS, INSTANCE_NORMS, TRANSPOSED

# File: names. `torch._foreach_*` are not among them: torch documents them.
KNOWN = {
    "assemble/model.py": {"_version"},  # torch's count of writes, in its documentation of autograd
    "components/data/pixels/decoder_messages.py": {"_imaging"},
    # The parameters of one module by name, registered as None too: torch has no public way
    "components/init/layers.py": {"_parameters"},
    "engine/parametrized.py": {"_WeightNorm", "_forward_pre_hooks", "_parameters"},
    "engine/weights.py": {"_parameters"},
    "components/regularizer/dropout.py": {"_conv_forward"},
    "components/regularizer/weight_standardization.py": {"_conv_forward"},
    "engine/fast_step.py": {
        "_global_optimizer_post_hooks",
        "_global_optimizer_pre_hooks",
        "_optimizer_step_post_hooks",
        "_optimizer_step_pre_hooks",
    },
    "engine/finite.py": {"_amp_foreach_non_finite_check_and_unscale_"},
    "engine/fused_step.py": {"_fused_adam_", "_fused_adamw_", "_fused_sgd_"},
    "engine/loading.py": {"_shutdown_workers", "_workers"},
    "engine/saving/storage.py": {"_Hash"},  # in an annotation, which is never evaluated
    "search/proposals.py": {"_suggest"},
    # Of a base class of ours
    "door/hydra_launchers.py": {"_done", "_queue"},
    "door/submitted.py": {"_done", "_queue"},
    "sweeps/in_process.py": {"_done", "_queue"},
}
PUBLIC = {"_asdict", "_exit", "_replace"}  # of named tuples and of os


def private_names(path: Path) -> Iterator[str]:
    """Yield the private names of others that a file reads: attributes, and what it imports."""
    tree = ast.parse(path.read_text())
    own = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    own |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name):
                names = [name]
            case ast.ImportFrom(module=str(module), names=imported) if not module.startswith("runner"):
                names = [*module.split("."), *(each.name for each in imported)]
            case ast.Import(names=imported):
                names = [part for each in imported for part in each.name.split(".")]
            case _:
                continue
        yield from (name for name in names if name.startswith("_") and not name.startswith("__") and name not in own)


def test_only_known_private_parts_of_libraries_are_used():
    found: dict[str, set[str]] = {}
    for path in (ROOT / "runner").rglob("*.py"):
        names = {name for name in private_names(path) if not name.startswith("_foreach_")} - PUBLIC
        if names:
            found[str(path.relative_to(ROOT / "runner"))] = names
    assert found == KNOWN


def test_the_search_finds_private_parts(tmp_path):
    (tmp_path / "part.py").write_text(
        "import torch._dynamo\nfrom hydra._internal.callbacks import Callbacks\nfrom rich import _emoji\n"
        "class A:\n    def _own(self): return self._own() or self.made or torch.nn._Base\n"
    )
    assert set(private_names(tmp_path / "part.py")) == {"_dynamo", "_internal", "_emoji", "_Base"}


def test_the_layers_of_each_kind_are_those_with_torch_s_private_base():
    from torch import nn

    for listed, base in (
        (BATCH_NORMS, nn.modules.batchnorm._BatchNorm),
        (INSTANCE_NORMS, nn.modules.instancenorm._InstanceNorm),
        (CONVOLUTIONS, nn.modules.conv._ConvNd),
        (TRANSPOSED, nn.modules.conv._ConvTransposeNd),
        (DROPOUTS, nn.modules.dropout._DropoutNd),
    ):
        kinds = {kind for kind in vars(nn).values() if isinstance(kind, type) and issubclass(kind, base)}
        assert {kind for kind in kinds if not kind.__name__.startswith("Lazy")} == set(listed)
