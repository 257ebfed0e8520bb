"""Errors that a person can act on. The command line prints them without a traceback."""

from __future__ import annotations


class FledgeError(Exception):
    """Something the user can mend: the message names the file, line, key or value, and what to do."""


class ConfigError(FledgeError):
    """A configuration that cannot be used: unknown key, wrong type, impossible value."""


class DataError(FledgeError):
    """Input data that cannot be used."""


class ArtefactError(FledgeError):
    """An artefact that is missing, damaged, or not the one that the configuration describes."""


class Halt(FledgeError):
    """A stage has done its work, and what it found says that the chain must not go on. Nothing is lost."""
