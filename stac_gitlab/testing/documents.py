"""STAC documents of SharingHub 0.4.0 that hold other documents: catalog, collections, pages.

Items are made in `items`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stac_gitlab.testing.viewpoint import Viewpoint, media_type

Document = dict[str, Any]
Link = dict[str, Any]

JSON = "application/json"
GEOJSON = "application/geo+json"

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


@dataclass(frozen=True)
class Category:
    """A collection of SharingHub.

    Attributes:
        id: The collection's id.
        title: Its title; the id in title case where it is empty.
        description: Its description; a generated sentence where it is empty.
        logo: The address of a picture, which becomes a `preview` link.
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
"""The collections that the stand-in has words for; others are described by their id."""


def landing_page(view: Viewpoint, categories: Sequence[Category]) -> Document:
    """The root catalog."""
    return {
        "stac_version": "1.0.0",
        "type": "Catalog",
        "id": "sharinghub-lab",
        "title": "SharingHub brings your data and models closer.",
        "description": f"Catalog generated from your [Gitlab]({view.gitlab_url}) with SharingHub.",
        "links": [
            link("self", JSON, view.root()),
            link("root", JSON, view.root()),
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


def collection(view: Viewpoint, category: Category) -> Document:
    """One collection: linked to its items by `items`, never by `item`."""
    here = f"/collections/{category.id}"
    links = [
        link("self", JSON, view.stac(here)),
        link("parent", JSON, view.root()),
        link("root", JSON, view.root()),
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
        "providers": [host(view, "")],
        "extent": {
            "spatial": {"bbox": [[-180, -90, 180, 90]]},
            "temporal": {"interval": [[None, None]]},
        },
        "links": links,
    }


def collections(view: Viewpoint, categories: Sequence[Category]) -> Document:
    """All collections on one page."""
    count = len(categories)
    return {
        "collections": [collection(view, category) for category in categories],
        "links": [
            link("self", JSON, view.stac("/collections")),
            link("root", JSON, view.root()),
        ],
        "context": {"limit": count, "matched": count, "returned": count},
        "numberMatched": count,
        "numberReturned": count,
    }


def item_page(
    features: Sequence[Document], links: Sequence[Link], *, limit: int, matched: int | None
) -> Document:
    """A page of items.

    Args:
        features: The items.
        links: The page's links.
        limit: How many items were asked for.
        matched: How many there are in all, where that is known.
    """
    returned = len(features)
    return {
        "type": "FeatureCollection",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "context": {"limit": limit, "matched": matched, "returned": returned},
        "numberMatched": matched,
        "numberReturned": returned,
        "features": features,
        "links": links,
    }


def link(rel: str, kind: str, href: str, **more: str) -> Link:
    """A link with its members in the server's order; `kind` is its media type."""
    return {"rel": rel, "type": kind, "href": href, **more}


def host(view: Viewpoint, path: str) -> Document:
    """GitLab as a provider."""
    return {
        "name": f"GitLab ({view.gitlab_url})",
        "roles": ["host"],
        "url": f"{view.gitlab_url}{path}",
    }
