r"""Stand-ins for SharingHub and GitLab, for tests and demonstrations.

The servers run in threads of this process, listen on a loopback port, need only the standard
library and respond as the real ones do:

    from stac_gitlab.testing import Fault, Project, SharingHubServer

    project = Project("group/lakes", {"data/lakes.csv": b"id,name\n"}, title="Lakes")
    with SharingHubServer([project], token="glpat-test") as hub:
        hub.inject(Fault(path=r"/items", status=429, headers={"Retry-After": "1"}))
        ...  # read f"{hub.stac_url}/collections/dataset" with the token "glpat-test"
        assert hub.requests[0].headers["X-Gitlab-Token"] == "glpat-test"

The module `stac_gitlab.testing.fixtures` is a pytest plugin.
"""

from stac_gitlab.testing.access import AccessLevel, TokenHolder, User
from stac_gitlab.testing.documents import Category
from stac_gitlab.testing.exchange import Answer, Content, Headers, RecordedRequest
from stac_gitlab.testing.faults import ArmedFault, Fault
from stac_gitlab.testing.gitlab import GitLabServer
from stac_gitlab.testing.loopback import LoopbackServer, Route
from stac_gitlab.testing.projects import (
    Project,
    ProjectSeries,
    Release,
    generated_projects,
    projects_from_folder,
    sample_projects,
)
from stac_gitlab.testing.server import SharingHubServer

__all__ = [
    "AccessLevel",
    "Answer",
    "ArmedFault",
    "Category",
    "Content",
    "Fault",
    "GitLabServer",
    "Headers",
    "LoopbackServer",
    "Project",
    "ProjectSeries",
    "RecordedRequest",
    "Release",
    "Route",
    "SharingHubServer",
    "TokenHolder",
    "User",
    "generated_projects",
    "projects_from_folder",
    "sample_projects",
]
