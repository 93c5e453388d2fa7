"""Ways to damage a run's folder, each with what the audit has to call it. Not tests; used by `test_audit`."""

from . import folder, journals, plan, tables, wavs
from .damage import DAMAGES, FIX, JOURNAL, Damage, flip
from .harmless import HARMLESS

__all__ = ["DAMAGES", "FIX", "HARMLESS", "JOURNAL", "Damage", "flip", "folder", "journals", "plan", "tables", "wavs"]
