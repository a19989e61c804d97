"""Output of an analysis: JSON report, figures, masks, HTML report and DICOM objects."""

from typing import TYPE_CHECKING

from leakloc.core.extras import lazy_names

if TYPE_CHECKING:
    from leakloc.report.build import build_report
    from leakloc.report.contents import ReportContents, read_contents
    from leakloc.report.model import Report, report_schema
    from leakloc.report.overlays import Picture, figure, picture
    from leakloc.report.writer import check_output, write_outputs
else:  # reading a report needs neither figures nor images
    __getattr__ = lazy_names(
        __name__,
        {
            "Picture": "leakloc.report.overlays",
            "Report": "leakloc.report.model",
            "ReportContents": "leakloc.report.contents",
            "build_report": "leakloc.report.build",
            "check_output": "leakloc.report.writer",
            "figure": "leakloc.report.overlays",
            "picture": "leakloc.report.overlays",
            "read_contents": "leakloc.report.contents",
            "report_schema": "leakloc.report.model",
            "write_outputs": "leakloc.report.writer",
        },
    )

__all__ = [
    "Picture",
    "Report",
    "ReportContents",
    "build_report",
    "check_output",
    "figure",
    "picture",
    "read_contents",
    "report_schema",
    "write_outputs",
]
