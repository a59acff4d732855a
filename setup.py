"""Packages of the wheel: found, not listed, with conf/ beside them as runner/conf."""

from setuptools import find_namespace_packages, setup

setup(
    # namespaces too: Hydra's plugins lie in one, runner/_plugins/hydra_plugins, which others share
    packages=[*find_namespace_packages(include=["runner*"], exclude=["*.__pycache__"]), "runner.conf"],
    package_dir={"runner.conf": "conf"},
    package_data={"runner.conf": ["**/*.yaml"]},
)
