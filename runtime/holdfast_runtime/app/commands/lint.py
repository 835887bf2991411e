"""`holdfast lint`"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from holdfast_runtime.app.options import AsJson

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_runtime.app.lint.searching import Report

Targets = Annotated[
    list[str] | None,
    typer.Argument(metavar="[TARGET]...", help="A file, a folder, MODULE or MODULE:SERVICES; else this folder.", show_default=False),
]
Ignore = Annotated[
    list[str] | None, typer.Option("--ignore", metavar="CODE", help="A rule to leave out; may be given again.", show_default=False)
]
Rules = Annotated[bool, typer.Option("--rules", help="List the rules and stop.")]


def lint(targets: Targets = None, ignore: Ignore = None, rules: Rules = False, as_json: AsJson = False) -> None:
    """Find in handlers what replay cannot repeat, without importing them.

    Exit code 0: nothing found; 1: something was; 2: the command line is wrong. `# holdfast: ok <reason>` passes over a line.
    """
    from pathlib import Path

    from holdfast_runtime.app.errors import FAILED
    from holdfast_runtime.app.lint.rules import TITLES
    from holdfast_runtime.app.lint.searching import lint as search
    from holdfast_runtime.app.output import print_json

    if rules:
        return print_json(TITLES) if as_json else print("\n".join(f"{code} {title}" for code, title in TITLES.items()))
    folder = Path.cwd()
    report = search(targets or ["."], folder, ignore or ())
    if as_json:
        print_json([_document(report, index) for index in range(len(report.findings))])
    else:
        _print(report, folder)
    if report.findings:
        raise typer.Exit(FAILED)
    return None


def _print(report: Report, folder: Path) -> None:
    from holdfast_runtime.app.output import count, remark

    for finding in report.findings:
        print(f"{_shown(finding.path, folder)}:{finding.line}:{finding.column}: {finding.code} {finding.message}")
    hidden = f"; {count(report.suppressed, 'finding')} passed over by comments" if report.suppressed else ""
    looked = f"{count(len(report.handlers), 'handler')} in {count(report.files, 'file')}{hidden}"
    if report.findings:
        remark(f"Found {count(len(report.findings), 'problem')}: {looked}.")
    elif report.handlers:
        remark(f"All checks passed: {looked}.")
    else:
        remark(f"No handlers found in {count(report.files, 'file')}: expected functions decorated with `.handler` of a service.")


def _shown(path: Path, folder: Path) -> Path:
    return path.relative_to(folder.resolve()) if path.is_relative_to(folder.resolve()) else path


def _document(report: Report, index: int) -> dict[str, object]:
    finding = report.findings[index]
    return {
        "code": finding.code,
        "message": finding.message,
        "filename": str(finding.path),
        "location": {"row": finding.line, "column": finding.column},
        "end_location": {"row": finding.end_line, "column": finding.end_column},
        "handler": finding.handler or None,
        "via": list(finding.via),
    }
