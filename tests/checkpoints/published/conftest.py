"""Published files of every project with tiny networks, which several test files read."""

import pytest

from tests.helpers.published_files import PROJECTS, PublishedFile, write_published


@pytest.fixture(scope="package")
def files(tmp_path_factory):
    """A file of each project, by its name.

    That of TPSMM has 90 MB: two of its networks, each a ResNet-18, have one size only.
    """
    folder = tmp_path_factory.mktemp("published")
    found = {}
    for project in PROJECTS:
        config = project.config("seed=5")
        path = folder / f"{project.name}.pth.tar"
        write_published(path, project, project.content(config))
        found[project.name] = PublishedFile(project, config, path)
    yield found
    for file in found.values():
        file.path.unlink()


@pytest.fixture(params=PROJECTS, ids=lambda project: project.name)
def file(request, files) -> PublishedFile:
    """The file of each project in turn."""
    return files[request.param.name]
