"""Measuring results against truth."""

from leakloc.evaluation.phantoms import PhantomCase, PhantomTable, evaluate_phantoms
from leakloc.evaluation.spider import SpiderCase, evaluate_spider, spider_json, spider_text

__all__ = [
    "PhantomCase",
    "PhantomTable",
    "SpiderCase",
    "evaluate_phantoms",
    "evaluate_spider",
    "spider_json",
    "spider_text",
]
