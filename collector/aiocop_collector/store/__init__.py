"""From arrivals to rows: the one writer, what its transactions do, and what it keeps tidy between them.

writer ─> transaction ─> fold ─> dimensions, agents, stalls, … ─> statements ─> schema (migrations)
writer ─> retention, condense (spans)
"""
