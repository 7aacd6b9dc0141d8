"""Make the computed files of the sample hub in ``stac_gitlab/testing/sample``.

The texts there (``README.md``, ``sharinghub.json``, the processor) are written by hand; what a
simulation or a fit computes (tables, outlines, raster, model, pictures) is written by this script:

    python tests/sample/generate.py

It needs numpy, onnx, pillow and rasterio, which neither the package nor its tests do. The random
seed is fixed, so the same versions of these libraries give the same bytes.

The lakes are invented. Their surface temperature follows the air's with a lag that grows with the
depth of the layer that mixes, and stops at 0 °C under ice: simple physics, no measurements.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import rasterio
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw, ImageFont
from rasterio.transform import from_origin
from rasterio.warp import transform

Floats = npt.NDArray[np.float64]

SAMPLE = Path(__file__).parents[2] / "stac_gitlab" / "testing" / "sample"
SEED = 20240101
UTM = "EPSG:32632"
SPIN_UP = date(2018, 7, 1)
FIRST, LAST = date(2019, 1, 7), date(2023, 12, 25)
TEST_YEAR = 2023
FEATURES = (
    "day_of_year",
    "elevation_m",
    "mean_depth_m",
    "air_temperature_c",
    "surface_temperature_c",
)


@dataclass(frozen=True)
class Lake:
    """An invented lake; its outline is drawn around (lon, lat) so that it covers area_km2."""

    id: str
    name: str
    lon: float
    lat: float
    elevation_m: int
    area_km2: float
    mean_depth_m: float


LAKES = (
    Lake("arvenel", "Lac d'Arvenel", 6.94, 46.28, 402, 14.2, 61.0),
    Lake("brissola", "Lago Brissola", 8.71, 45.93, 214, 21.6, 84.0),
    Lake("corvane", "Lac de Corvane", 7.12, 46.05, 1486, 0.9, 11.5),
    Lake("drusersee", "Drusersee", 9.63, 46.71, 1874, 0.4, 7.2),
    Lake("elmoorsee", "Elmoorsee", 8.34, 46.79, 568, 3.1, 14.8),
    Lake("fontenaz", "Lac de Fontenaz", 7.38, 45.87, 2106, 0.2, 5.1),
    Lake("gravelline", "Étang de Gravelline", 6.87, 46.52, 447, 0.6, 2.4),
    Lake("hohlmattsee", "Höhlmattsee", 7.92, 46.63, 1212, 1.3, 19.6),
    Lake("isarella", "Lago d'Isarella", 9.28, 45.98, 336, 6.7, 38.0),
    Lake("jorasque", "Lac de Jorasque", 7.55, 46.41, 934, 2.2, 23.0),
    Lake("kaltmoorsee", "Kaltmoorsee", 9.05, 46.84, 721, 1.0, 3.8),
    Lake("lunera", "Lej da Lünera", 10.02, 46.55, 1797, 2.7, 32.0),
)


@dataclass(frozen=True)
class Weather:
    """One row per day and one column per lake, in °C; where a lake is frozen, water is at 0."""

    days: list[date]
    air: Floats
    water: Floats
    frozen: npt.NDArray[np.bool_]


def simulate(rng: np.random.Generator) -> Weather:
    """Let every lake follow the weather, day by day."""
    days = [SPIN_UP + timedelta(n) for n in range((LAST - SPIN_UP).days + 1)]
    season = np.cos(
        2 * np.pi * (np.array([day.timetuple().tm_yday for day in days]) - 201) / 365.25
    )
    elevation = np.array([lake.elevation_m for lake in LAKES])
    depth = np.array([lake.mean_depth_m for lake in LAKES])

    climate = 13.5 - 0.0055 * elevation + 9.5 * season[:, None]
    air = climate + persistent(rng, len(days), 1, 2.8) + persistent(rng, len(days), len(LAKES), 0.8)
    target = air + 1.5 + 1.0 * season[:, None]  # the sun warms the water beyond the air

    water, ice = np.full(len(LAKES), 15.0), np.zeros(len(LAKES))
    history, frozen_history = np.empty_like(air), np.empty(air.shape, dtype=bool)
    for n, goal in enumerate(target):
        cooling = goal < water
        # Warm water floats on a thin layer; cooling mixes deeper, and wholly before it passes 4 °C.
        mixed = np.where(
            cooling, np.where(water < 4, depth, np.minimum(depth, 30)), np.minimum(depth, 10)
        )
        water = water + (goal - water) / (2.2 * mixed)
        frozen = (ice > 0) | (water <= 0)
        ice = np.where(frozen, np.maximum(ice - goal * np.where(goal > 0, 3, 1), 0), 0)
        water = np.where(frozen, 0.0, water)
        history[n], frozen_history[n] = water, frozen
    return Weather(days, air, history, frozen_history)


def persistent(rng: np.random.Generator, length: int, width: int, spread: float) -> Floats:
    """Noise in which a warm day tends to follow a warm day."""
    memory = 0.85
    steps = rng.normal(0, spread * np.sqrt(1 - memory**2), (length, width))
    for n in range(1, length):
        steps[n] += memory * steps[n - 1]
    return steps


@dataclass(frozen=True)
class Observation:
    """A Monday's row of temperature.csv; the air's is the mean of the seven days before."""

    date: str
    day_of_year: int
    lake_id: str
    elevation_m: int
    mean_depth_m: float
    air_temperature_c: float
    surface_temperature_c: float


def observe(weather: Weather, rng: np.random.Generator) -> list[Observation]:
    """Sample the weather every Monday, with a thermometer good to 0.2 °C."""
    rows = []
    for n in range((FIRST - SPIN_UP).days, len(weather.days), 7):
        day = weather.days[n]
        air = weather.air[n - 7 : n].mean(axis=0)
        seen = weather.water[n] + rng.normal(0, 0.2, len(LAKES)) * ~weather.frozen[n]
        rows += [
            Observation(
                day.isoformat(),
                day.timetuple().tm_yday,
                lake.id,
                lake.elevation_m,
                lake.mean_depth_m,
                round(float(air[k]), 1),
                round(max(float(seen[k]), 0.0), 1),
            )
            for k, lake in enumerate(LAKES)
        ]
    return rows


def ice_seasons(weather: Weather) -> list[tuple[str, str, str, str, int]]:
    """Lake, winter, first day of ice, last day of ice, days of ice; a winter starts in August."""
    rows = []
    for year in range(FIRST.year, LAST.year):
        start, end = (date(y, 8, 1) for y in (year, year + 1))
        for k, lake in enumerate(LAKES):
            icy = [
                day.isoformat()
                for n, day in enumerate(weather.days)
                if weather.frozen[n, k] and start <= day < end
            ]
            first, last = (icy[0], icy[-1]) if icy else ("", "")
            rows.append((lake.id, f"{year}/{(year + 1) % 100:02}", first, last, len(icy)))
    return rows


def outline(lake: Lake, rng: np.random.Generator) -> Floats:
    """A closed, counter-clockwise ring in UTM metres, star-shaped around the lake's centre."""
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    radius = 1 + sum(
        rng.uniform(0, 0.3 / k) * np.cos(k * angle + rng.uniform(0, 6)) for k in range(2, 7)
    )
    turn = rng.uniform(0, np.pi)
    long, short = 1.7 * radius * np.cos(angle), radius * np.sin(angle)
    x, y = (
        long * np.cos(turn) - short * np.sin(turn),
        long * np.sin(turn) + short * np.cos(turn),
    )
    area = 0.5 * np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))
    (east,), (north,) = transform("EPSG:4326", UTM, [lake.lon], [lake.lat])
    ring = np.sqrt(lake.area_km2 * 1e6 / area) * np.column_stack([x, y]) + (east, north)
    return np.vstack([ring, ring[:1]])


def feature(lake: Lake, ring: Floats) -> dict[str, Any]:
    """The lake as a GeoJSON feature."""
    lon, lat = transform(UTM, "EPSG:4326", ring[:, 0], ring[:, 1])
    return {
        "type": "Feature",
        "id": lake.id,
        "properties": {
            "name": lake.name,
            "elevation_m": lake.elevation_m,
            "area_km2": lake.area_km2,
            "mean_depth_m": lake.mean_depth_m,
        },
        "geometry": {
            "type": "Polygon",
            "coordinates": [np.column_stack([lon, lat]).round(5).tolist()],
        },
    }


def write_bathymetry(path: Path, lake: Lake, ring: Floats, cell: float = 25.0) -> None:
    """Write the lake's depths in metres; their mean is the lake's mean depth."""
    west, south = np.floor(ring.min(axis=0) / cell) * cell
    east, north = np.ceil(ring.max(axis=0) / cell) * cell
    x, y = np.meshgrid(
        np.arange(west + cell / 2, east, cell), np.arange(north - cell / 2, south, -cell)
    )
    middle = ring[:-1].mean(axis=0)
    shore = ring[:-1] - middle
    shore_angle, shore_radius = (
        np.arctan2(shore[:, 1], shore[:, 0]),
        np.hypot(shore[:, 0], shore[:, 1]),
    )
    dx, dy = x - middle[0], y - middle[1]
    reach = np.interp(np.arctan2(dy, dx), shore_angle, shore_radius, period=2 * np.pi)
    offshore = np.clip(
        1 - (np.hypot(dx, dy) / reach) ** 2, 0, None
    )  # 0 at the shore, 1 in the middle
    basin = offshore * (1 + 0.12 * np.sin(dx / 310) * np.cos(dy / 270))
    depth = np.where(offshore > 0, basin * lake.mean_depth_m / basin[offshore > 0].mean(), -9999)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=x.shape[1],
        height=x.shape[0],
        count=1,
        dtype="float32",
        crs=UTM,
        transform=from_origin(west, north, cell, cell),
        nodata=-9999,
        compress="deflate",
    ) as raster:
        raster.write(depth.round(1).astype("float32"), 1)
        raster.set_band_description(1, "depth")
        raster.set_band_unit(1, "metre")
        raster.update_tags(LAKE=lake.name, LICENSE="CC0-1.0")


@dataclass(frozen=True)
class Forecast:
    """Next week's temperature: linear in this week's row and the year's harmonics, at least 0."""

    weights: npt.NDArray[np.float32]
    intercept: np.float32

    @staticmethod
    def turns() -> npt.NDArray[np.float32]:
        """Picks the day of the year out of a row and makes it the angles of the two harmonics."""
        turns = np.zeros((len(FEATURES), 2), dtype=np.float32)
        turns[0] = 2 * np.pi / 365.25 * np.array([1, 2])
        return turns

    @classmethod
    def regressors(cls, rows: Floats) -> Floats:
        """The columns that the weights belong to."""
        angle = rows @ cls.turns().astype(np.float64)
        return np.hstack([rows, np.sin(angle), np.cos(angle)])

    @classmethod
    def fit(cls, rows: Floats, target: Floats) -> Forecast:
        """Fit by least squares; the bare day of the year gets no weight, only its harmonics."""
        columns = cls.regressors(rows)
        columns[:, 0] = 1
        solution = np.linalg.lstsq(columns, target, rcond=None)[0].round(6)
        return cls(
            np.concatenate([[0], solution[1:]]).astype(np.float32)[:, None], np.float32(solution[0])
        )

    def predict(self, rows: Floats) -> Floats:
        """Forecast one temperature per row."""
        return np.maximum(self.regressors(rows) @ self.weights + self.intercept, 0)[:, 0]

    def to_onnx(self) -> onnx.ModelProto:
        """The same computation as an ONNX graph."""
        nodes = [
            helper.make_node("MatMul", ["features", "turns"], ["angle"]),
            helper.make_node("Sin", ["angle"], ["sine"]),
            helper.make_node("Cos", ["angle"], ["cosine"]),
            helper.make_node("Concat", ["features", "sine", "cosine"], ["regressors"], axis=1),
            helper.make_node("MatMul", ["regressors", "weights"], ["weighted"]),
            helper.make_node("Add", ["weighted", "intercept"], ["unbounded"]),
            helper.make_node("Relu", ["unbounded"], ["forecast"]),
        ]
        graph = helper.make_graph(
            nodes,
            "lake_temperature_forecast",
            [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", len(FEATURES)])],
            [helper.make_tensor_value_info("forecast", TensorProto.FLOAT, ["rows", 1])],
            [
                numpy_helper.from_array(self.turns(), "turns"),
                numpy_helper.from_array(self.weights, "weights"),
                numpy_helper.from_array(np.array(self.intercept), "intercept"),
            ],
            doc_string="Lake surface temperature in a week, in °C.",
        )
        # An old IR and opset, so that runtimes of several years load it.
        model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
        helper.set_model_props(model, {"columns": ",".join(FEATURES), "license": "CC0-1.0"})
        onnx.checker.check_model(model)
        return model


@dataclass(frozen=True)
class Lesson:
    """What a forecast learns from, or is tested on: FEATURES, and the temperature a week later."""

    rows: Floats
    target: Floats

    @classmethod
    def of(cls, observations: Sequence[Observation], years: Iterable[int]) -> Lesson:
        """The weeks of these years whose following week is known."""
        wanted = {str(year) for year in years}
        pairs = [
            (now, observations[n + len(LAKES)])
            for n, now in enumerate(observations[: -len(LAKES)])
            if now.date[:4] in wanted
        ]
        rows = [[float(getattr(now, name)) for name in FEATURES] for now, _ in pairs]
        return cls(np.array(rows), np.array([later.surface_temperature_c for _, later in pairs]))

    def score(self, predicted: Floats) -> dict[str, float]:
        """Errors in °C, and the share of the variance explained."""
        error = predicted - self.target
        return {
            "rows": len(error),
            "rmse_c": round(float(np.sqrt(np.mean(error**2))), 3),
            "mae_c": round(float(np.mean(np.abs(error))), 3),
            "bias_c": round(float(np.mean(error)), 3),
            "r2": round(float(1 - np.mean(error**2) / np.var(self.target)), 4),
        }


class Chart:
    """A small picture with axes, drawn in the coordinates of what it shows."""

    def __init__(self, title: str, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.x, self.y = x, y
        self.image = Image.new("RGB", (640, 360), "white")
        self.draw = ImageDraw.Draw(self.image)
        self.font = ImageFont.load_default(13)
        self.draw.text((50, 10), title, "black", ImageFont.load_default(16))
        self.draw.rectangle((50, 40, 620, 320), outline="gray")

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The pixel that shows this point."""
        (left, right), (bottom, top) = self.x, self.y
        return 50 + 570 * (x - left) / (right - left), 320 - 280 * (y - bottom) / (top - bottom)

    def ticks(self, x: dict[float, str], y: Iterable[int]) -> None:
        """Label both axes."""
        for place, label in x.items():
            self.draw.text((self.at(place, 0)[0], 326), label, "black", self.font, "ma")
        for value in y:
            self.draw.text((44, self.at(0, value)[1]), str(value), "black", self.font, "rm")

    def line(self, points: Iterable[tuple[float, float]], colour: str) -> None:
        """Join the points."""
        self.draw.line([self.at(x, y) for x, y in points], colour, 2)

    def dots(self, points: Iterable[tuple[float, float]], colour: str) -> None:
        """Mark the points."""
        for x, y in (self.at(*point) for point in points):
            self.draw.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), colour)

    def bar(self, x: float, height: float, colour: str) -> None:
        """Stand a bar on the x axis."""
        (left, top), (right, bottom) = self.at(x - 0.35, height), self.at(x + 0.35, 0)
        self.draw.rectangle((left, top, right, bottom), colour)

    def save(self, path: Path) -> None:
        """Write a PNG of 64 colours."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.image.quantize(64).save(path, optimize=True)


def elevation_colour(lake: Lake) -> str:
    """From red in the valleys to blue in the heights."""
    return f"hsl({round(240 * lake.elevation_m / 2200)}, 70%, 45%)"


def draw_temperatures(path: Path, observations: Sequence[Observation]) -> None:
    """Each lake's mean year."""
    chart = Chart("Lake surface temperature, mean year (°C)", (1, 12), (0, 25))
    chart.ticks(dict(enumerate("JFMAMJJASOND", 1)), range(0, 26, 5))
    for lake in LAKES:
        months: dict[int, list[float]] = {month: [] for month in range(1, 13)}
        for row in observations:
            if row.lake_id == lake.id:
                months[int(row.date[5:7])].append(row.surface_temperature_c)
        chart.line(
            ((month, float(np.mean(seen))) for month, seen in months.items()),
            elevation_colour(lake),
        )
    chart.save(path)


def draw_forecast(path: Path, lesson: Lesson, predicted: Floats) -> None:
    """What was forecast over what was seen."""
    chart = Chart(f"Forecast over observed temperature, {TEST_YEAR} (°C)", (0, 30), (0, 30))
    chart.ticks({value: str(value) for value in range(0, 31, 5)}, range(0, 31, 5))
    chart.line([(0, 0), (30, 30)], "silver")
    chart.dots(np.column_stack([lesson.target, predicted]).tolist(), "steelblue")
    chart.save(path)


def draw_ice(path: Path, seasons: Sequence[tuple[str, str, str, str, int]]) -> None:
    """Each lake's mean days of ice."""
    chart = Chart("Days of ice per winter, mean", (-0.6, len(LAKES) - 0.4), (0, 200))
    by_elevation = sorted(LAKES, key=lambda lake: lake.elevation_m)
    chart.ticks({n: lake.id[:6] for n, lake in enumerate(by_elevation)}, range(0, 201, 50))
    for n, lake in enumerate(by_elevation):
        days = float(np.mean([row[-1] for row in seasons if row[0] == lake.id]))
        chart.bar(n, days, elevation_colour(lake))
    chart.save(path)


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a table."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_geojson(path: Path, features: Sequence[dict[str, Any]]) -> None:
    """Write a feature collection, one feature a line."""
    lines = ",\n".join(json.dumps(one, ensure_ascii=False) for one in features)
    text = f'{{"type": "FeatureCollection", "features": [\n{lines}\n]}}\n'
    path.write_bytes(text.encode())


def main() -> None:
    """Write every computed file, by default into the package."""
    parser = argparse.ArgumentParser(description="Make the computed files of the sample hub.")
    parser.add_argument("output", nargs="?", type=Path, default=SAMPLE)
    hub = parser.parse_args().output / "alpine"
    temperature = hub / "lakes" / "lake-temperature"
    ice_cover = hub / "lakes" / "ice-cover"
    forecast = hub / "models" / "lake-temperature-forecast"
    for folder in (temperature / "data", ice_cover / "data", forecast / "training"):
        folder.mkdir(parents=True, exist_ok=True)

    rng = np.random.default_rng(SEED)
    weather = simulate(rng)
    observations = observe(weather, rng)
    seasons = ice_seasons(weather)
    rings = [outline(lake, rng) for lake in LAKES]

    write_csv(
        temperature / "data" / "temperature.csv",
        Observation.__dataclass_fields__,
        (vars(row).values() for row in observations),
    )
    write_geojson(temperature / "data" / "lakes.geojson", list(map(feature, LAKES, rings)))
    write_bathymetry(temperature / "data" / "bathymetry.tif", LAKES[0], rings[0])
    draw_temperatures(temperature / "images" / "preview.png", observations)

    header = ("lake_id", "winter", "first_ice", "last_ice", "ice_days")
    write_csv(ice_cover / "data" / "ice-cover.csv", header, seasons)
    draw_ice(ice_cover / "images" / "preview.png", seasons)

    train = Lesson.of(observations, range(FIRST.year, TEST_YEAR))
    test = Lesson.of(observations, [TEST_YEAR])
    model = Forecast.fit(train.rows, train.target)
    metrics = {
        "target": "surface_temperature_c one week later",
        "features": list(FEATURES),
        "train": {"years": [FIRST.year, TEST_YEAR - 1], **train.score(model.predict(train.rows))},
        "test": {"years": [TEST_YEAR, TEST_YEAR], **test.score(model.predict(test.rows))},
        "test_if_nothing_changed": test.score(
            test.rows[:, FEATURES.index("surface_temperature_c")]
        ),
    }
    (forecast / "model.onnx").write_bytes(model.to_onnx().SerializeToString(deterministic=True))
    (forecast / "training" / "metrics.json").write_bytes(
        (json.dumps(metrics, indent=2) + "\n").encode()
    )
    draw_forecast(forecast / "images" / "preview.png", test, model.predict(test.rows))


if __name__ == "__main__":
    main()
