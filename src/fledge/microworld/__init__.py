"""A small invented bilingual world: its web site with planted defects, instructions, pairs, tasks and held-out tests.

Everything is generated from a seed; nothing is downloaded and no outside text is used. `generate.run` is the stage.
"""

from fledge.microworld.config import Config, presets

__all__ = ["Config", "presets"]
