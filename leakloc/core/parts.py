"""Base class and number types of the parts of a report.

Numbers computed by the stages are rounded when a part is created, far below the accuracy of any
measurement; NaN and infinity become None. Numbers read from a stored report are validated and not
changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

_Value = TypeVar("_Value")

_MM_DIGITS: Final = 2
"""0.01 mm, far below any voxel."""
_ML_DIGITS: Final = 4
"""0.1 µL, below one voxel of 0.5 mm."""
_FRACTION_DIGITS: Final = 4
_DIRECTION_DIGITS: Final = 6


def _computed(convert: Callable[[Any], Any]) -> BeforeValidator:
    """Apply a conversion to numbers from Python, not to those of a stored report."""

    def validate(value: Any, info: ValidationInfo) -> Any:
        return value if value is None or info.mode == "json" else convert(value)

    return BeforeValidator(validate)


def _rounded(digits: int) -> BeforeValidator:
    return _computed(lambda number: round(float(number), digits))


def _rounded_vector(digits: int) -> BeforeValidator:
    return _computed(lambda vector: tuple(round(float(x), digits) for x in vector))


def _fraction(number: float) -> float:
    if not math.isfinite(number):
        return 0.0
    return min(max(round(float(number), _FRACTION_DIGITS), 0.0), 1.0)


def _finite(value: Any) -> Any:
    """Return a number or a vector, or None if it is not finite."""
    numbers = value if isinstance(value, Iterable) else (value,)
    return value if all(map(math.isfinite, numbers)) else None


Amount = Annotated[float, Field(ge=0.0)]
"""A volume, length or area."""
Fraction = Annotated[float, Field(ge=0.0, le=1.0), _computed(_fraction)]
"""A fraction or a confidence; 0 if not finite."""
Millimeters = Annotated[Amount, _rounded(_MM_DIGITS)]
"""A length in mm, or an area in mm²."""
SignedMillimeters = Annotated[float, _rounded(_MM_DIGITS)]
"""A distance or position in mm."""
Degrees = Annotated[Amount, _rounded(1)]
"""An angle in degrees."""
Ratio = Annotated[Amount, _rounded(2)]
"""A ratio of two signals."""
Signed = Annotated[float, _rounded(2)]
"""A difference of two ratios."""
Milliliters = Annotated[Amount, _rounded(_ML_DIGITS)]
"""A volume in mL."""
Point = Annotated[tuple[float, float, float], _rounded_vector(_MM_DIGITS)]
"""Position in LPS millimeters."""
Direction = Annotated[tuple[float, float, float], _rounded_vector(_DIRECTION_DIGITS)]
"""Unit vector, LPS."""
Nullable = Annotated[_Value | None, _computed(_finite)]
"""A number or a vector; None if unknown or not finite."""


class Part(BaseModel):
    """Part of a report: immutable, with all numbers finite."""

    # Keys added by later versions are preserved.
    model_config = ConfigDict(
        frozen=True,
        extra="allow",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        populate_by_name=True,
        serialize_by_alias=True,
    )
