"""What HTML pages share: their frame, their tables and the style of their plots."""
