"""Alembic migrations, and the function that applies them."""
