"""What axe-core finds fault with in a page as it stands."""

import json

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page

# WCAG 2.2 A and AA, and what axe-core's makers think well of beside it.
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
# What is no fault is neither described nor told: that takes as long as looking for faults.
OPTIONS = {"runOnly": {"type": "tag", "values": RULES}, "resultTypes": ["violations"]}
FAULTS = f"""async () => {{
    const {{ violations }} = await axe.run({json.dumps(OPTIONS)});
    return violations.flatMap(({{ id, nodes }}) =>
        nodes.map(node => `${{id}}: ${{JSON.stringify(node.target)}} ${{node.failureSummary}}`));
}}"""


def audit(page: Page) -> list[str]:
    """The faults, one in a line: rule, elements and what would mend it."""
    # Transitions are over: a colour on its way to another one has no contrast of its own.
    page.evaluate("Promise.all(document.getAnimations().map(one => one.finished))")
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    faults: list[str] = page.evaluate(FAULTS)
    return faults
