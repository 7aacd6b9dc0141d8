"""The STAC documents of SharingHub 0.4.0: catalog, collections, items and pages of items."""

from __future__ import annotations

import mimetypes
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlparse, urlsplit

from stac_gitlab.testing.access import AccessLevel, NumberedProject
from stac_gitlab.testing.projects import Project

Document = dict[str, Any]

JSON = "application/json"
GEOJSON = "application/geo+json"
_SUMMARY_LENGTH = 150
IMAGE = re.compile(r"!\[(?P<alt>[^\]]*)\]\((?P<src>[^)]+)\)")

CONFORMANCE = [
    "https://api.stacspec.org/v1.0.0/core",
    "https://api.stacspec.org/v1.0.0/collections",
    "https://api.stacspec.org/v1.0.0/ogcapi-features",
    "https://api.stacspec.org/v1.0.0/ogcapi-features#sort",
    "https://api.stacspec.org/v1.0.0-rc.1/ogcapi-features#free-text",
    "https://api.stacspec.org/v1.0.0/item-search",
    "https://api.stacspec.org/v1.0.0/item-search#sort",
    "https://api.stacspec.org/v1.0.0-rc.1/item-search#free-text",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/core",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/oas30",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/geojson",
]

_HTML_SOURCE = re.compile(r"""src=(?:"|')(?P<src>.*?)(?:"|')""")
_BLANK_LINES = re.compile(r"\n{3,}")
_TOOLS = {
    "deployment-spaces": "disable",
    "jupyter": "enable",
    "map-viewer": "enable",
    "store-s3": "enable",
    "mlflow": "disable",
}

# The built-in table alone, so that items are the same on every machine, with two types that the
# recorded server added.
_MEDIA_TYPES = mimetypes.MimeTypes()
_MEDIA_TYPES.add_type("text/markdown", ".md")
_MEDIA_TYPES.add_type("application/geo+json", ".geojson")


@dataclass(frozen=True)
class Category:
    """A collection of SharingHub.

    Attributes:
        id: The id of the collection.
        title: Its title. If it is empty, it is made from the id.
        description: Its description. If it is empty, it is made from the title.
        logo: URL of a picture, which becomes a `preview` link.
    """

    id: str
    title: str = ""
    description: str = ""
    logo: str | None = None


KNOWN_CATEGORIES: Mapping[str, Category] = {
    each.id: each
    for each in (
        Category(
            "ai-model",
            "AI Models",
            "AI models are the core of our platform, go and browse them to discover our models.",
        ),
        Category(
            "dataset",
            "Datasets",
            "Datasets are very important in the process of training an AI, "
            "discover those that we put at your disposal.",
        ),
        Category("processor", "Processors", "A list of useful tools for working with your models."),
    )
}


@dataclass(frozen=True)
class View:
    """What the URLs in a document depend on: how the server was addressed, and by whom.

    Attributes:
        origin: Scheme and host of the request.
        stac_path: Path of the STAC API.
        gitlab_url: URL of the GitLab behind the server.
        token: The token of the caller, which the server writes into every URL of a file.
        token_in_query: Whether it came in the query: the server then writes it into all links.
    """

    origin: str
    stac_path: str
    gitlab_url: str
    token: str = ""
    token_in_query: bool = False

    def stac(self, path: str, query: Mapping[str, object] | None = None) -> str:
        """Return the URL of a STAC endpoint."""
        query = {**(query or {}), **(self._token_query if self.token_in_query else {})}
        return f"{self.origin}{self.stac_path}{path}{f'?{urlencode(query)}' if query else ''}"

    def file(self, project: Project, href: str, **query: str) -> str:
        """Return the URL of a file in a repository, or the href itself if it is absolute.

        As SharingHub does not quote the path, the part after a `?` or `#` ends up behind the query.
        """
        if ":" in href and urlsplit(href).scheme not in ("", "file"):
            return href
        path = posixpath.normpath(href).lstrip("/")
        query = {"ref": str(project.ref), **query, **self._token_query}
        url = urlparse(self._download(project, f"repository/{path}"))
        return url._replace(query=urlencode({**dict(parse_qsl(url.query)), **query})).geturl()

    def archive(self, project: Project, ref: str) -> str:
        """Return the URL of the archive of a repository."""
        query = urlencode({"ref": ref, **self._token_query})
        return f"{self._download(project, 'archive.zip')}?{query}"

    @property
    def _token_query(self) -> dict[str, str]:
        return {"gitlab_token": self.token} if self.token else {}

    def _download(self, project: Project, path: str) -> str:
        api_path = self.stac_path.rpartition("/")[0]
        return f"{self.origin}{api_path}/download/{project.path}/{path}"


def landing_page(view: View, categories: Sequence[Category]) -> Document:
    """Return the root catalog."""
    return {
        "stac_version": "1.0.0",
        "type": "Catalog",
        "id": "sharinghub-lab",
        "title": "SharingHub brings your data and models closer.",
        "description": f"Catalog generated from your [Gitlab]({view.gitlab_url}) with SharingHub.",
        "links": [
            link("self", JSON, view.stac("/")),
            link("root", JSON, view.stac("/")),
            link(
                "service-desc",
                "application/vnd.oai.openapi+json;version=3.1",
                f"{view.origin}/openapi.json",
                title="OpenAPI definition",
            ),
            link(
                "service-doc",
                "text/html",
                f"{view.origin}/api/docs",
                title="OpenAPI interactive docs: Swagger UI",
            ),
            link("conformance", JSON, view.stac("/conformance")),
            link("data", JSON, view.stac("/collections")),
            link("search", GEOJSON, view.stac("/search"), method="GET"),
            link("search", GEOJSON, view.stac("/search"), method="POST"),
            *(
                link("child", GEOJSON, view.stac(f"/collections/{category.id}"))
                for category in categories
            ),
        ],
        "conformsTo": CONFORMANCE,
    }


def collection(view: View, category: Category) -> Document:
    """Return a collection. It has an `items` link and no `item` links."""
    here = f"/collections/{category.id}"
    links = [
        link("self", JSON, view.stac(here)),
        link("parent", JSON, view.stac("/")),
        link("root", JSON, view.stac("/")),
        link("items", GEOJSON, view.stac(f"{here}/items")),
    ]
    if category.logo:
        links.append(link("preview", media_type(category.logo) or "image/png", category.logo))
    title = category.title or category.id.replace("-", " ").title()
    return {
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "type": "Collection",
        "id": category.id,
        "title": title,
        "description": category.description
        or f"STAC {title} generated from your [Gitlab]({view.gitlab_url}) with SharingHub.",
        "license": "other",
        "keywords": [category.id],
        "providers": [_host(view)],
        "extent": {
            "spatial": {"bbox": [[-180, -90, 180, 90]]},
            "temporal": {"interval": [[None, None]]},
        },
        "links": links,
    }


def collections(view: View, categories: Sequence[Category]) -> Document:
    """Return all collections on one page."""
    return {
        "collections": [collection(view, category) for category in categories],
        "links": [
            link("self", JSON, view.stac("/collections")),
            link("root", JSON, view.stac("/")),
        ],
        **_counts(len(categories), len(categories), len(categories)),
    }


def item_page(
    features: Sequence[Document], links: Sequence[Document], *, limit: int, matched: int | None
) -> Document:
    """Return a page of items; `matched` is the number of all items, if it is known."""
    return {
        "type": "FeatureCollection",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        **_counts(limit, matched, len(features)),
        "features": features,
        "links": links,
    }


def reference_item(view: View, found: NumberedProject, category: str) -> Document:
    """Return the shortest form of an item: a title, links, and a datetime that is null."""
    return {
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "type": "Feature",
        "id": found.project.path,
        "geometry": None,
        "collection": category,
        "properties": {"title": found.project.name, "datetime": None},
        "links": item_links(view, found.project, category),
        "assets": {},
    }


def preview_item(
    view: View,
    found: NumberedProject,
    category: str,
    level: AccessLevel,
    *,
    summary: str | None = None,
) -> Document:
    """Return the short form of an item: a few properties, and at most a thumbnail.

    Without a `summary`, the description is the start of the README.
    """
    project = found.project
    item: Document = {
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "type": "Feature",
        "id": project.path,
        "geometry": None,
        "collection": category,
        "properties": {
            "title": project.name,
            "description": _beginning(project) if summary is None else summary,
            "datetime": found.updated,
            "keywords": list(project.keywords),
            "sharinghub:stars": project.stars,
        },
        "links": item_links(view, project, category),
        "assets": {},
    }
    if level > AccessLevel.GUEST:
        add_thumbnail(view, project, item)
    return item


def _beginning(project: Project) -> str:
    """Return the start of the README, without headings and images."""
    lines = (project.readme or "").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    text = IMAGE.sub("", text).strip()
    return text if len(text) < _SUMMARY_LENGTH else f"{text[:_SUMMARY_LENGTH].strip()}..."


def full_item(view: View, found: NumberedProject, category: str, level: AccessLevel) -> Document:
    """Return the whole item. Guests get what GitLab shows of a project without its repository."""
    project = found.project
    readable = level > AccessLevel.GUEST
    start, end = (readable and project.temporal) or (found.created, found.updated)
    document: Document = {
        "stac_version": "1.0.0",
        "stac_extensions": list(project.extensions) if readable else [],
        "type": "Feature",
        "id": project.path,
        **_extent(project if readable else None),
        "collection": category,
        "properties": {
            "title": (readable and project.title) or project.name,
            "description": _description(view, project) if readable else "",
            "datetime": found.updated,
            "start_datetime": start,
            "end_datetime": end,
            "created": start,
            "updated": end,
            "keywords": list(project.keywords),
            "providers": [_host(view, f"/{project.path}"), _producer(view, project)],
            **(project.properties if readable else {}),
            **_sharinghub_properties(found, level, readable=readable),
            **(project.properties if readable else {}),
        },
        "links": [
            *item_links(view, project, category),
            link(
                "bug_tracker",
                "text/html",
                f"{view.gitlab_url}/{project.path}/issues",
                title="Bug Tracker",
            ),
        ],
        "assets": {},
    }
    if readable:
        _add_repository(view, project, document)
    return document


def link(rel: str, media_type: str, href: str, **more: str) -> Document:
    """Return a link with its members in the order of the server."""
    return {"rel": rel, "type": media_type, "href": href, **more}


def item_links(view: View, project: Project, category: str) -> list[Document]:
    """Return the links that every item has."""
    parent = view.stac(f"/collections/{category}")
    return [
        link("self", GEOJSON, view.stac(f"/collections/{category}/items/{project.path}")),
        link("parent", JSON, parent),
        link("root", JSON, view.stac("/")),
        link("collection", JSON, parent),
    ]


def add_thumbnail(view: View, project: Project, item: Document) -> None:
    """Add the thumbnail to an item, as a link and as an asset."""
    source = project.preview
    for image in IMAGE.finditer(project.readme or ""):
        if image["alt"].strip().lower() == "preview":
            source = image["src"]
    if source is None:
        return
    href = _image_url(view, project, source)
    item["links"].append({"rel": "preview", "href": href})
    asset = {"href": href, "title": "Preview", "roles": ["thumbnail"]}
    if kind := media_type(source):
        asset["type"] = kind
    item["assets"][f"preview{posixpath.splitext(urlsplit(source).path)[1]}"] = asset


@lru_cache(maxsize=4096)
def media_type(path: str) -> str | None:
    """Return the media type of a path by its suffix, as far as it shows in an unquoted URL."""
    return _MEDIA_TYPES.guess_type(urlparse(path).path)[0]


def _counts(limit: int, matched: int | None, returned: int) -> Document:
    return {
        "context": {"limit": limit, "matched": matched, "returned": returned},
        "numberMatched": matched,
        "numberReturned": returned,
    }


def _host(view: View, path: str = "") -> Document:
    return {
        "name": f"GitLab ({view.gitlab_url})",
        "roles": ["host"],
        "url": f"{view.gitlab_url}{path}",
    }


def _producer(view: View, project: Project) -> Document:
    group = project.path.partition("/")[0]
    return {"name": group.title(), "roles": ["producer"], "url": f"{view.gitlab_url}/{group}"}


def _extent(project: Project | None) -> Document:
    if project is None or project.bbox is None:
        return {"geometry": None}
    west, south, east, north = project.bbox
    ring = [[east, south], [east, north], [west, north], [west, south], [east, south]]
    return {
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [west, south, east, north],
    }


def _description(view: View, project: Project) -> str:
    """Return the README with absolute image URLs."""

    def image(match: re.Match[str]) -> str:
        return f"![{match['alt']}]({_image_url(view, project, match['src'])})"

    def source(match: re.Match[str]) -> str:
        return f'src="{_image_url(view, project, match["src"])}"'

    readme = (project.readme or "").strip()
    return _BLANK_LINES.sub("\n\n", IMAGE.sub(image, _HTML_SOURCE.sub(source, readme)))


def _image_url(view: View, project: Project, source: str) -> str:
    return view.file(project, source, cache="300")


def _sharinghub_properties(
    found: NumberedProject, level: AccessLevel, *, readable: bool
) -> Document:
    project = found.project
    files = project.files if readable else ()
    # The server takes a repository without files for one that uses DVC.
    dvc = not files or any(name.startswith(".dvc/") for name in files)
    return {
        "sharinghub:id": found.number,
        "sharinghub:name": found.full_name,
        "sharinghub:path": project.path,
        "sharinghub:stars": project.stars,
        "sharinghub:default-branch": project.ref if readable else None,
        "sharinghub:access-level": int(level),
        "sharinghub:dvc-init": "enable" if dvc else "disable",
        **{f"sharinghub:{tool}": state for tool, state in _TOOLS.items()},
    }


def _add_repository(view: View, project: Project, item: Document) -> None:
    """Add what SharingHub reads from the repository: links, assets and the licence."""
    for extra in project.extra_links:
        item["links"].append({**extra, "href": view.file(project, extra["href"])})
    for path, roles in project.assets.items():
        item["assets"][path] = {"href": view.file(project, path), "roles": roles}
        if kind := media_type(path):
            item["assets"][path]["type"] = kind
    for key, extra in project.extra_assets.items():
        asset = dict(extra)
        if "path" in asset:
            asset = {"href": view.file(project, asset.pop("path")), **asset}
        item["assets"][key] = asset
    if project.releases:
        item["assets"]["release"] = _release_asset(view, project)
    add_thumbnail(view, project, item)
    if project.license:
        item["properties"]["license"] = project.license
        href = f"{view.gitlab_url}/{project.path}/-/blob/{project.ref}/LICENSE"
        item["links"].append({"rel": "license", "href": href})


def _release_asset(view: View, project: Project) -> Document:
    latest = project.releases[0]
    return {
        "href": view.archive(project, latest.tag),
        "title": f"Release {latest.tag}: {latest.name}",
        "roles": ["source"],
        **({"description": latest.description} if latest.description else {}),
        "type": "application/zip",
    }
