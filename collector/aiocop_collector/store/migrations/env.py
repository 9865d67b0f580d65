"""Run by Alembic (by its path, not by import) for each upgrade; the connection comes from `migrate`."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
context.run_migrations()
