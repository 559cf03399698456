"""What runs inside the user's app: light to import, never raises into the app, never blocks it."""

from datacat.client.create import create_session
from datacat.client.session import Session
from datacat.client.spawn import freeze_support

__all__ = ["Session", "create_session", "freeze_support"]
