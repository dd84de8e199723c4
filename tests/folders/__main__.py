"""`python -m tests.folders`: update the table in docs/models.md."""

from .page import PAGE, filled

PAGE.write_text(filled(PAGE.read_text("utf-8")), "utf-8")
