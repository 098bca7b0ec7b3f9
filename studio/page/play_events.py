"""What happens on the tab that plays."""
from studio.page.parts import Parts
def listen(parts: Parts) -> None:
    """x"""
