"""The page of one network: what it costs, where its spikes are, how it was trained, how to get and to cite it."""

import csv
import io
import json
import re
from typing import Any, NamedTuple

import altair as alt
from markdown_it import MarkdownIt

from zoo.files import dump_yaml
from zoo.hub.client import published
from zoo.hub.release import LOG, Release, bibtex, card, collect
from zoo.load import BUNDLED, pretrained_names

from ..row import Row
from .figures import OTHER, PLAIN, SCALED, data, finish


class Network(NamedTuple):
    """What the template shows of a row beside the row itself."""

    row: Row
    load: str
    """Python code."""
    recipe: str
    """YAML, "" where it is not known."""
    charts: list[dict[str, Any]]
    card: str
    """HTML, "" for what is not bundled."""
    citation: str
    """BibTeX."""
    evidence: list[tuple[str, str]]
    """File and content of each measurement."""
    commands: list[str]
    """That gave the numbers, those that trained it first."""


def network(row: Row) -> Network:
    """Everything about a row that is measured here."""
    release = _release(row)
    recipe = row.recipe or (release and release.recipe)
    commands = dict.fromkeys(result["command"] for _, result in row.evidence)
    return Network(
        row=row,
        load=_load(row, release),
        recipe=dump_yaml(recipe) if recipe else "",
        charts=[*_spikes(row), *(_training(release.files[LOG].decode()) if release else ())],
        card=_html(card(release, where.repo if (where := published().get(row.name)) else None)) if release else "",
        citation=_citation(row),
        evidence=[(origin, json.dumps(result, indent=1, ensure_ascii=False)) for origin, result in row.evidence],
        commands=sorted(commands, key=lambda command: "train" not in command),
    )


def _release(row: Row) -> Release | None:
    """The bundled checkpoint of a row, with all that was measured of it."""
    if row.name not in pretrained_names() or not (BUNDLED / row.name).is_dir():
        return None
    release = collect(BUNDLED / row.name)
    results = [result for _, result in row.evidence if result["weights_sha256"] == release.config["weights_sha256"]]
    return release._replace(results=results) if results else None


def _load(row: Row, release: Release | None) -> str:
    source = json.dumps(row.name) if release else '"RUN_FOLDER")  # the folder that its training, below, wrote'
    return f"import zoo\nmodel = zoo.load({source}{')' if release else ''}\n"


def _html(card: str) -> str:
    """A model card without its metadata; Markdown that brings HTML along shows it as text."""
    return MarkdownIt("js-default").render(card.split("---\n", 2)[2])


def _spikes(row: Row) -> list[dict[str, Any]]:
    colour = SCALED if row.scaling else PLAIN
    charts = []
    count = alt.X("spikes:Q", title="Spikes per image").axis(format="~s", tickCount=5)
    if row.spikes_per_layer:
        layers = [{"layer": layer, "spikes": spikes} for layer, spikes in row.spikes_per_layer.items()]
        place = alt.Y("layer:N", sort=None, title=None).axis(grid=False, labelLimit=140)
        bars = alt.Chart(data(layers)).mark_bar(color=colour).encode(x=count, y=place, tooltip=_tips("layer:N"))
        charts.append(finish(bars, "Spikes by layer", 18 * len(layers)))
    if row.spikes_per_step:
        steps = [{"step": step, "spikes": spikes} for step, spikes in enumerate(row.spikes_per_step, 1)]
        place = alt.Y("step:O", title=None).axis(grid=False)
        bars = alt.Chart(data(steps)).mark_bar(color=colour).encode(x=count, y=place, tooltip=_tips("step:O"))
        charts.append(finish(bars, "Spikes by time step", 34 * len(steps)))
    return charts


def _tips(place: str) -> list[alt.Tooltip]:
    return [alt.Tooltip(place), alt.Tooltip("spikes:Q", format=",.0f")]


def _training(log: str) -> list[dict[str, Any]]:
    """Curves of the training's log: the loss, and the accuracies that it has."""
    lines = [{key: float(value) for key, value in line.items() if value} for line in csv.DictReader(io.StringIO(log))]
    titles = {"train_top1": "training", "val_top1": "validation"}
    points = [
        {"epoch": line["epoch"], "top1": line[key], "images": title}
        for line in lines
        for key, title in titles.items()
        if key in line
    ]
    epoch = alt.X("epoch:Q", title="Epoch (augmented images)", scale=alt.Scale(nice=False))
    epoch = epoch.axis(grid=False, tickMinStep=1)
    loss = alt.Y("train_loss:Q", title=None, scale=alt.Scale(zero=False))
    top1 = alt.Y("top1:Q", title=None, scale=alt.Scale(zero=False))
    images = alt.Color("images:N").scale(domain=list(titles.values()), range=[OTHER, SCALED]).legend(None)
    point = {"size": 24, "filled": True}
    losses = alt.Chart(data(lines)).mark_line(point=point | {"color": OTHER}, color=OTHER).encode(epoch, loss)
    tips = ["epoch:Q", "images:N", alt.Tooltip("top1:Q", format=".2f")]
    accuracies = alt.Chart(data(points)).mark_line(point=point).encode(epoch, top1, images, tooltip=tips)
    return [finish(losses, "Training loss", 200), finish(accuracies, "Top-1 (%) while it trains", 200)]


def _citation(row: Row) -> str:
    date = max((result["date"] for _, result in row.evidence), default="")
    weights = next((result["weights_sha256"] for _, result in row.evidence), "")
    note = f"Top-1 {row.top1:.2f} % on {row.dataset}" + (f", weights sha256 {weights}" if weights else "")
    own = f"""\
@misc{{snnzoo:{re.sub("[^A-Za-z0-9.-]", "-", row.name)},
  title = {{{{{_latex(row.name)}}}, a spiking neural network of snn-zoo}},
  author = {{{{The snn-zoo developers}}}},
  year = {{{date[:4]}}},
  note = {{{_latex(note)}}}
}}
"""
    return f"{own}\n" + bibtex(scaled=row.scaling is not None)


def _latex(text: str) -> str:
    return re.sub(r"([&%$#_{}])", r"\\\1", text.replace("\\", "/"))
