"""What commands print: tables, verdicts, last lines."""
