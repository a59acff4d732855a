"""Packages of the wheel: found, not listed, with conf/ beside them as runner/conf, and py.typed."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages(include=["runner*"], exclude=["*.__pycache__"]), "runner.conf"],
    package_dir={"runner.conf": "conf"},
    package_data={"runner": ["py.typed"], "runner.conf": ["**/*.yaml"]},
)
