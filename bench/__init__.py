"""How fast dual is, and what neighbours notice, beside Docker Compose: ``make bench``."""
