"""STAC items as SharingHub 0.4.0 writes them: full, preview and reference.

Functions from projects to JSON; who may see what is decided before. Preview items have at most a
thumbnail, reference items a null datetime and nothing else.
"""

from __future__ import annotations

import posixpath
import re
from urllib.parse import urlsplit

from stac_gitlab.testing.access import AccessLevel
from stac_gitlab.testing.catalogue import Entry
from stac_gitlab.testing.documents import GEOJSON, JSON, Document, Link, host, link
from stac_gitlab.testing.projects import Project
from stac_gitlab.testing.viewpoint import Viewpoint, media_type

_IMAGE_CACHE_SECONDS = "300"
_SUMMARY_LENGTH = 150
_IMAGE = re.compile(r"!\[(?P<alt>[^\]]*)\]\((?P<src>[^)]+)\)")
_HTML_SOURCE = re.compile(r"""src=(?:"|')(?P<src>.*?)(?:"|')""")
_BLANK_LINES = re.compile(r"\n{3,}")
_TOOLS = ("deployment-spaces", "jupyter", "map-viewer", "store-s3", "mlflow")
_TOOLS_ENABLED = frozenset({"jupyter", "map-viewer", "store-s3"})


def reference_item(view: Viewpoint, entry: Entry, category: str) -> Document:
    """The shortest form of an item: a title, links, and a datetime that is null."""
    return {
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "type": "Feature",
        "id": entry.project.path,
        "geometry": None,
        "collection": category,
        "properties": {"title": entry.project.name, "datetime": None},
        "links": _item_links(view, entry.project, category),
        "assets": {},
    }


def preview_item(
    view: Viewpoint, entry: Entry, category: str, level: AccessLevel = AccessLevel.MAINTAINER
) -> Document:
    """An item with a short description and, at most, a thumbnail."""
    project = entry.project
    links = _item_links(view, project, category)
    assets: dict[str, Document] = {}
    if level > AccessLevel.GUEST:
        _add_thumbnail(view, project, links, assets)
    return {
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "type": "Feature",
        "id": project.path,
        "geometry": None,
        "collection": category,
        "properties": {
            "title": project.name,
            "description": summary(project),
            "datetime": entry.updated,
            "keywords": list(project.keywords),
            "sharinghub:stars": project.stars,
        },
        "links": links,
        "assets": assets,
    }


def full_item(
    view: Viewpoint, entry: Entry, category: str, level: AccessLevel = AccessLevel.MAINTAINER
) -> Document:
    """The whole item. A guest gets what GitLab tells of a project whose repository is hidden."""
    project = entry.project
    readable = level > AccessLevel.GUEST
    updated = entry.updated
    start, end = (readable and project.temporal) or (entry.created, updated)
    links = [
        *_item_links(view, project, category),
        link(
            "bug_tracker",
            "text/html",
            f"{view.gitlab_url}/{project.path}/issues",
            title="Bug Tracker",
        ),
    ]
    document: Document = {
        "stac_version": "1.0.0",
        "stac_extensions": list(project.extensions) if readable else [],
        "type": "Feature",
        "id": project.path,
        **_extent(project if readable else None),
        "collection": category,
        "properties": {
            "title": (readable and project.title) or project.name,
            "description": description(view, project) if readable else "",
            "datetime": updated,
            "start_datetime": start,
            "end_datetime": end,
            "created": start,
            "updated": end,
            "keywords": list(project.keywords),
            "providers": [host(view, f"/{project.path}"), _producer(view, project)],
            **_made_properties(entry, level),
        },
        "links": links,
        "assets": {},
    }
    if readable:
        _add_repository(view, project, document)
    return document


def description(view: Viewpoint, project: Project) -> str:
    """The README with its images' addresses made absolute, token and all."""
    readme = (project.readme or "").strip()
    if "![" not in readme and "src=" not in readme:
        return _BLANK_LINES.sub("\n\n", readme)

    def image(match: re.Match[str]) -> str:
        return f"![{match['alt']}]({_image_address(view, project, match['src'])})"

    def source(match: re.Match[str]) -> str:
        return f'src="{_image_address(view, project, match["src"])}"'

    return _BLANK_LINES.sub("\n\n", _IMAGE.sub(image, _HTML_SOURCE.sub(source, readme)))


def summary(project: Project) -> str:
    """GitLab's one-line description, or the README's first words without heading and images."""
    if project.summary is not None:
        return project.summary
    lines = (project.readme or "").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    text = _IMAGE.sub("", text).strip()
    return text if len(text) < _SUMMARY_LENGTH else f"{text[:_SUMMARY_LENGTH].strip()}..."


def _item_links(view: Viewpoint, project: Project, category: str) -> list[Link]:
    home = view.stac(f"/collections/{category}")
    return [
        link("self", GEOJSON, view.stac(f"/collections/{category}/items/{project.path}")),
        link("parent", JSON, home),
        link("root", JSON, view.root()),
        link("collection", JSON, home),
    ]


def _producer(view: Viewpoint, project: Project) -> Document:
    group = project.path.partition("/")[0]
    return {
        "name": group.title(),
        "roles": ["producer"],
        "url": f"{view.gitlab_url}/{group}",
    }


def _made_properties(entry: Entry, level: AccessLevel) -> Document:
    """The project's own properties, and SharingHub's, of which the former win."""
    if level <= AccessLevel.GUEST:
        return _sharinghub_properties(entry, level, readable=False)
    own = entry.project.properties
    made = _sharinghub_properties(entry, level, readable=True)
    return {**own, **made, **own} if own else made


def _sharinghub_properties(entry: Entry, level: AccessLevel, *, readable: bool) -> Document:
    project = entry.project
    files = project.files if readable else ()
    # Seen from afar, a repository without any file looks as if it used DVC.
    dvc = not files or any(name.startswith(".dvc/") for name in files)
    return {
        "sharinghub:id": entry.number,
        "sharinghub:name": entry.full_name,
        "sharinghub:path": project.path,
        "sharinghub:stars": project.stars,
        "sharinghub:default-branch": project.ref if readable else None,
        "sharinghub:access-level": int(level),
        "sharinghub:dvc-init": "enable" if dvc else "disable",
        **{
            f"sharinghub:{tool}": "enable" if tool in _TOOLS_ENABLED else "disable"
            for tool in _TOOLS
        },
    }


def _extent(project: Project | None) -> Document:
    if project is None or project.bbox is None:
        return {"geometry": None}
    west, south, east, north = project.bbox
    ring = [[east, south], [east, north], [west, north], [west, south], [east, south]]
    return {
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [west, south, east, north],
    }


def _add_repository(view: Viewpoint, project: Project, document: Document) -> None:
    """Add what is read from the repository: links, assets and the license."""
    links, assets = document["links"], document["assets"]
    links.extend(_project_links(view, project))
    _add_assets(view, project, assets)
    _add_thumbnail(view, project, links, assets)
    if project.license:
        document["properties"]["license"] = project.license
        address = f"{view.gitlab_url}/{project.path}/-/blob/{project.ref}/LICENSE"
        links.append({"rel": "license", "href": address})
    for number, (name, kind) in enumerate(project.packages.items(), start=1):
        links.append(
            {
                "rel": "package",
                "href": f"{view.gitlab_url}/{project.path}/-/packages/{number}",
                "title": f"Package {name}",
                "package:name": name,
                "package:type": kind,
            }
        )
    if doi := project.properties.get("sci:doi"):
        links.append({"rel": "cite-as", "href": f"https://doi.org/{doi}"})


def _project_links(view: Viewpoint, project: Project) -> list[Link]:
    links = [
        {**link, "href": _address(view, project, link["href"])} for link in project.extra_links
    ]
    for category, paths in project.related.items():
        for path in paths:
            href = view.stac(f"/collections/{category}/items/{path}")
            title = f"{category}: {path}"
            links.append({"rel": "derived_from", "type": GEOJSON, "title": title, "href": href})
    return links


def _add_assets(view: Viewpoint, project: Project, assets: dict[str, Document]) -> None:
    for path, roles in project.assets.items():
        assets[path] = {"href": _address(view, project, path), "roles": roles}
        if kind := media_type(path):
            assets[path]["type"] = kind
    for key, extra in project.extra_assets.items():
        asset = dict(extra)
        if "path" in asset:
            asset = {"href": _address(view, project, asset.pop("path")), **asset}
        assets[key] = asset
    if project.releases:
        latest = project.releases[0]
        assets["release"] = {
            "href": view.archive(project, latest.tag),
            "title": f"Release {latest.tag}: {latest.name}",
            "roles": ["source"],
            **({"description": latest.description} if latest.description else {}),
            "type": "application/zip",
        }


def _add_thumbnail(
    view: Viewpoint, project: Project, links: list[Link], assets: dict[str, Document]
) -> None:
    source = project.preview
    for image in _IMAGE.finditer(project.readme or ""):
        if image["alt"].strip().lower() == "preview":
            source = image["src"]
    if source is None:
        return
    href = _image_address(view, project, source)
    kind = media_type(source)
    links.append({"rel": "preview", "href": href})
    assets[f"preview{posixpath.splitext(urlsplit(source).path)[1]}"] = {
        "href": href,
        "title": "Preview",
        "roles": ["thumbnail"],
        **({"type": kind} if kind else {}),
    }


def _image_address(view: Viewpoint, project: Project, source: str) -> str:
    return _address(view, project, source, cache=_IMAGE_CACHE_SECONDS)


def _address(view: Viewpoint, project: Project, href: str, **query: str) -> str:
    """An href of a project: a file of its repository, unless it has a scheme of its own."""
    if ":" in href and urlsplit(href).scheme not in ("", "file"):
        return href
    path = posixpath.normpath(href).lstrip("/")
    return view.download(project, path, {"ref": str(project.ref), **query})
