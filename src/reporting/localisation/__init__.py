"""Where a net says that pixels were changed, held against masks: maps, scores, table and sheet."""
