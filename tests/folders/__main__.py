"""`python -m tests.folders` writes the table of docs/models.md."""

from .page import PAGE, filled

PAGE.write_text(filled(PAGE.read_text("utf-8")), "utf-8")
