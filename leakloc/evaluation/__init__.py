"""Measuring results against truth."""

from leakloc.evaluation.agreement import wilson_interval
from leakloc.evaluation.cases import Case, compare
from leakloc.evaluation.cohort import Cohort
from leakloc.evaluation.folders import evaluate_folders
from leakloc.evaluation.phantoms import evaluate_phantoms
from leakloc.evaluation.reading import Reading, analysis_reading, fluid_reading, read_case
from leakloc.evaluation.sheet import contact_sheet
from leakloc.evaluation.simulated import SimulatedCohort, evaluate_simulated
from leakloc.evaluation.spider import SpiderCase, evaluate_spider, spider_json, spider_text

__all__ = [
    "Case",
    "Cohort",
    "Reading",
    "SimulatedCohort",
    "SpiderCase",
    "analysis_reading",
    "compare",
    "contact_sheet",
    "evaluate_folders",
    "evaluate_phantoms",
    "evaluate_simulated",
    "evaluate_spider",
    "fluid_reading",
    "read_case",
    "spider_json",
    "spider_text",
    "wilson_interval",
]
