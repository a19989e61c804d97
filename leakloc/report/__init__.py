"""Output of an analysis: JSON report, figures, masks, HTML report and DICOM objects."""

from leakloc.report.build import build_report
from leakloc.report.model import Report, report_schema
from leakloc.report.overlays import Picture, figure, picture
from leakloc.report.writer import check_output, write_outputs

__all__ = [
    "Picture",
    "Report",
    "build_report",
    "check_output",
    "figure",
    "picture",
    "report_schema",
    "write_outputs",
]
