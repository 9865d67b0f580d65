"""Telling people: the outbox that the store fills, delivered over HTTP."""
