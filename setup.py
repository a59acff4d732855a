"""Packages of the wheel: found, not listed, with conf/ beside them as runner/conf."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["runner*"]), "runner.conf"],
    package_dir={"runner.conf": "conf"},
    package_data={"runner.conf": ["**/*.yaml"]},
)
