"""What can go wrong with an engine; it imports none of them."""


class EngineUnavailableError(RuntimeError):
    """An engine cannot be used on this machine; the message says what is missing and how to install it."""


class MeasurementError(RuntimeError):
    """One workload could not be measured: the engine refused it, computed something else, or was slowed down."""
