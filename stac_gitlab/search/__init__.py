"""The bridge to pystac-client, which sends its requests through the session of a GitLabStacIO.

::

    from stac_gitlab.search import open_client

    client = open_client("https://stac.example.org", token)
    search = client.search(collections=["sentinel-2"], bbox=[5, 46, 8, 47], max_items=10)

pystac-client accepts only a reader of its type ``StacApiIO``. :class:`GitLabStacApiIO` is one, and
is a :class:`~stac_gitlab.GitLabStacIO` as well: it sends tokens only to their servers, retries, and
follows all pages. It needs the extra ``client``.
"""

try:
    import pystac_client  # noqa: F401  # the modules below need it
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "stac_gitlab.search needs pystac-client: pip install 'stac-gitlab[client]'.",
        name=error.name,
    ) from error
from stac_gitlab.search.client_io import GitLabStacApiIO, RequestModifier, open_client

__all__ = ["GitLabStacApiIO", "RequestModifier", "open_client"]
