"""What mkdocs does before it builds: the reference is made anew, and pages of the project's root join the site."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))
import generated

ROOT = Path(__file__).parents[2]
FROM_ROOT = {
    "index.md": "README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are no file of docs/, and replace the committed reference by what the code says now."""
    made = {name: make() for name, make in generated.PAGES.items()}
    made |= {name: _in_site((ROOT / source).read_text(encoding="utf-8")) for name, source in FROM_ROOT.items()}
    for name, text in made.items():
        if (old := files.get_file_from_path(name)) is not None:
            files.remove(old)
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Links of docs/ to pages of the root, as they are in the site."""
    for name, source in FROM_ROOT.items():
        markdown = markdown.replace(f"](../{source}", f"]({name}")
    return markdown


def _in_site(text: str) -> str:
    """Markdown of the root with its links as they are in docs/."""
    text = text.replace("](docs/", "](").replace('src="docs/', 'src="')
    for name, source in FROM_ROOT.items():
        text = re.sub(rf"\]\({re.escape(source)}", f"]({name}", text)
    return text
