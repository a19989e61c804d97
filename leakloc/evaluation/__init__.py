"""Measuring results against truth."""

from leakloc.evaluation.phantoms import PhantomCase, PhantomTable, evaluate_phantoms

__all__ = ["PhantomCase", "PhantomTable", "evaluate_phantoms"]
