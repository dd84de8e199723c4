"""What pages of HTML share: their frame, their tables and how their plots look."""
