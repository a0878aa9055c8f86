"""Simulated recordings: an event model over rendered scenes, and a scene of playing cards."""

from streams.simulation.cards import LABELS, NO_CARD, card_labels, simulate_cards
from streams.simulation.event_model import EventModel
from streams.simulation.sensor import Sensor

__all__ = ["LABELS", "NO_CARD", "EventModel", "Sensor", "card_labels", "simulate_cards"]
