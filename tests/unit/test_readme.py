"""The README stays short, says what adoption depends on first, and names every page."""

from tests.docs.pages import DOCS, README, blocks, pages, text


def test_it_has_at_most_180_lines():
    assert len(text(README).splitlines()) <= 180


def test_the_licence_comes_before_anything_is_installed():
    assert text(README).index("BUSL-1.1") < text(README).index("pip install")


def test_every_page_is_named():
    assert [page.name for page in DOCS.glob("*.md") if f"docs/{page.name})" not in text(README)] == []
    assert [name for name in ("CONTRIBUTING.md", "CHANGELOG.md") if name not in text(README)] == []


def test_blocks_are_run_page_by_page_from_the_readme_on():
    assert pages()[0] == README
    assert blocks("sh")[0].startswith("python - > shop.csv")
    assert "oslo.json" in blocks("grpcurl")[0]
