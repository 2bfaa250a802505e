"""How large a dump will be, how long it will take, and whether it will fit: learned from dumps made before."""

from __future__ import annotations

from snaplib.forecasting.curve import DirtyCurve
from snaplib.forecasting.durations import PHASES, DurationModel
from snaplib.forecasting.forecast import forecast_with, work_of
from snaplib.forecasting.interval import CONFIDENCE, Interval
from snaplib.forecasting.models import Models
from snaplib.forecasting.pipeline import Flow, Pipeline
from snaplib.forecasting.spread import Spread
from snaplib.forecasting.strategies import SURE, CompressionSample, Forecast, StrategyForecast
from snaplib.forecasting.work import DumpRecord, Phases, Promise, Rates, Work

__all__ = [
    "CONFIDENCE",
    "PHASES",
    "SURE",
    "CompressionSample",
    "DirtyCurve",
    "DumpRecord",
    "DurationModel",
    "Flow",
    "Forecast",
    "Interval",
    "Models",
    "Phases",
    "Pipeline",
    "Promise",
    "Rates",
    "Spread",
    "StrategyForecast",
    "Work",
    "forecast_with",
    "work_of",
]
